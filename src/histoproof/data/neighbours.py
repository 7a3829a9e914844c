"""Which sketches lie near each other in one of the 8 orientations: faiss finds them, their derivatives sift them.

Up to 20,000 sketches are all held against each other; above that only within the nearest cells (IVF) of 4 sqrt(n). The cells
are found by one thread from a fixed seed, and each search is its own, so that threads change nothing.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from .sketch import INVERSE, ORIENTATIONS, mismatch, turn_sketch

__all__ = ["MAX_MISMATCH", "MIN_COSINE", "Candidates", "check_faiss", "neighbours"]

MIN_COSINE = 0.7
"""Of two sketches: copies shifted by 2 px both ways reach 0.75 and more."""
MAX_MISMATCH = 0.06
"""Share of a sketch that shift and brightness may leave unexplained; 99.8 % of the copies of tissue are below 0.04."""
_NEAREST = 12  # neighbours asked for, in each orientation
_FLAT = 20_000
_PROBES = 16
_QUERIES = 4096  # at once


@dataclass(frozen=True)
class Candidates:
    """Pairs that may be near copies, each once; all fields of shape (n,). Positions in the sketches, `later` > `earlier`."""

    earlier: NDArray[np.int64]
    later: NDArray[np.int64]
    orientation: NDArray[np.int64]
    """What turns the earlier one into the later one."""
    mismatch: NDArray[np.float64]


def check_faiss() -> Any:
    """The faiss module. Raises DataError where it is not installed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # its wrapper's, at import on Python 3.12 and later
            import faiss
    except ImportError:
        raise DataError("finding near-duplicates needs faiss", next="pip install 'histoproof[near]'") from None
    return faiss


def neighbours(
    vectors: NDArray[np.float16],
    *,
    among: NDArray[np.int64] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Candidates:
    """Candidate pairs among the sketches `vectors` (n, 3, 63), or among those of them at the sorted positions `among`."""
    numbers = np.arange(len(vectors)) if among is None else among
    patterns = vectors[numbers, 0].astype(np.float32)
    found: list[tuple[NDArray[np.int64], ...]] = [(np.empty(0, np.int64),) * 3]
    misfits: list[NDArray[np.float64]] = [np.empty(0)]
    index = _index(patterns)
    for start in range(0, len(patterns), _QUERIES):
        block = patterns[start : start + _QUERIES]
        for t in range(len(ORIENTATIONS)):
            turned = turn_sketch(block, t)
            cosine, hits = index.search(turned, min(_NEAREST + 1, len(patterns)))
            query, column = np.nonzero((cosine >= MIN_COSINE) & (hits >= 0))
            mine, other = numbers[start + query], numbers[hits[query, column]]
            # `mine`, turned by t, is like `other`.
            swap = mine > other
            earlier, later = np.where(swap, other, mine), np.where(swap, mine, other)
            orientation = np.where(swap, INVERSE[t], t)
            misfit = _misfits(vectors, earlier, later, orientation)
            keep = (mine != other) & (misfit <= MAX_MISMATCH)
            found.append((earlier[keep], later[keep], orientation[keep]))
            misfits.append(misfit[keep])
        if progress:
            progress(min(start + _QUERIES, len(patterns)), len(patterns))
    earlier, later, orientation = (np.concatenate(parts) for parts in zip(*found, strict=True))
    misfit = np.concatenate(misfits)
    order = np.lexsort((orientation, misfit, earlier, later))
    earlier, later, orientation, misfit = earlier[order], later[order], orientation[order], misfit[order]
    first = np.ones(len(order), dtype=np.bool_)  # the best orientation of each pair
    first[1:] = (earlier[1:] != earlier[:-1]) | (later[1:] != later[:-1])
    return Candidates(earlier[first], later[first], orientation[first], misfit[first])


def _misfits(
    vectors: NDArray[np.float16], earlier: NDArray[np.int64], later: NDArray[np.int64], orientation: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Mismatch of the earlier ones, turned, with the later ones; in slices, as a crowded place can have very many pairs."""
    out = np.ones(len(earlier))
    for t in np.unique(orientation):
        which = np.flatnonzero(orientation == t)
        for start in range(0, len(which), _QUERIES):
            k = which[start : start + _QUERIES]
            out[k] = mismatch(turn_sketch(vectors[earlier[k], 0], int(t)), vectors[later[k]])
    return out


def _index(patterns: NDArray[np.float32]) -> Any:
    faiss = check_faiss()
    n, width = patterns.shape
    if n <= _FLAT:
        index = faiss.IndexFlatIP(width)
        index.add(patterns)
        return index
    cells = int(4 * np.sqrt(n))
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        index = faiss.IndexIVFFlat(faiss.IndexFlatIP(width), width, cells, faiss.METRIC_INNER_PRODUCT)
        index.cp.seed, index.cp.niter, index.cp.min_points_per_centroid = 42, 8, 1
        index.train(patterns[:: max(1, n // (40 * cells))])
    finally:
        faiss.omp_set_num_threads(threads)
    index.add(patterns)
    index.nprobe = _PROBES
    return index
