"""The training set as a reference: a keyed sample of its patches, their factors, and how far any patch is from the nearest of
them."""

import hashlib
import io
import json
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import rng
from ..data.partition import Part, Patches
from ..data.store import Store
from ..data.stream import in_order
from ..files import canonical, write_bytes
from .known import FACTORS, VERSION
from .measure import measure

__all__ = ["MOST", "Reference", "distances", "identity", "load_or_measure", "measure_rows", "read", "stored"]

Floats = NDArray[np.float32]

MOST = 8192
"""Patches of train that stand for it: a Kolmogorov-Smirnov distance to them is then known to +-0.01."""
_ROWS = 256
_CHUNK = 1024


@dataclass(frozen=True)
class Reference:
    """A sample of the train split."""

    values: Floats
    """(m, len(FACTORS)); the last column is each patch's distance to the nearest of the others."""
    roots: Floats
    """(m, 64) square roots of the histograms."""
    identity: dict[str, Any]
    """What it was drawn from: digests, and the version of the formulas."""

    @property
    def sha256(self) -> str:
        """Digest of what it was drawn from and how."""
        return hashlib.sha256(canonical(self.identity).encode()).hexdigest()


def identity(store: Store, train: Patches, rows: NDArray[np.int64]) -> dict[str, Any]:
    """What a reference, or a table, is of: equal identities have equal numbers."""
    return {
        "version": VERSION,
        "store_sha256": store.content_sha256,
        "partition_sha256": train.sha256 if isinstance(train, Part) else None,
        "split": train.name,
        "rows_sha256": hashlib.sha256(rows.astype("<i8").tobytes()).hexdigest(),
        "most": MOST,
    }


def load_or_measure(
    store: Store,
    train: Patches,
    rows: NDArray[np.int64],
    cache: Path,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Reference:
    """The reference of `rows` of train: from `cache` where that is of the same patches and formulas, else measured.

    Nothing is written; see `stored`.
    """
    wanted = identity(store, train, rows)
    kept = read(cache)
    if kept is not None and kept.identity == wanted:
        return kept
    order = rng.permutation(rng.key(0, "factors", "reference"), len(rows))[:MOST]
    chosen = np.sort(rows[order])
    parts = list(measure_rows(train, chosen, progress=progress))
    values = np.concatenate([values for values, _ in parts])
    roots = np.sqrt(np.concatenate([histograms for _, histograms in parts]))
    return Reference(np.column_stack([values, distances(roots, roots, itself=True)]), roots, wanted)


def read(path: Path) -> Reference | None:
    """The reference in a file; None if there is none, or none that can be used."""
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
            found = Reference(file["values"], file["roots"], json.loads(str(file["identity"])))
    except (OSError, KeyError, ValueError, zipfile.BadZipFile, EOFError):
        return None
    m = len(found.roots)
    if not m or found.values.shape != (m, len(FACTORS)) or not np.isfinite(found.values).all():
        return None
    return found


def stored(reference: Reference, path: Path) -> None:
    """Write it as NPZ (values, roots, identity as JSON text). Raises OutputError."""
    content = io.BytesIO()
    np.savez(content, values=reference.values, roots=reference.roots, identity=np.array(canonical(reference.identity)))
    write_bytes(path, content.getvalue())


def measure_rows(
    patches: Patches, rows: NDArray[np.int64], *, progress: Callable[[int, int], None] | None = None
) -> Iterator[tuple[Floats, Floats]]:
    """`measure` of `rows` (N,) of a split, block by block in their order: memory does not grow with their number."""
    from threadpoolctl import threadpool_limits

    done = 0
    with threadpool_limits(limits=1, user_api="blas"):
        blocks = (rows[start : start + _ROWS] for start in range(0, len(rows), _ROWS))
        for values, histograms in in_order(lambda block: measure(np.asarray(patches.images[block])), blocks):
            done += len(values)
            if progress:
                progress(done, len(rows))
            yield values, histograms


def distances(roots: Floats, among: Floats, *, itself: bool = False) -> Floats:
    """(n,) Hellinger distance sqrt(1 - sum sqrt(p q)) of each histogram to the nearest of others, from their square roots (n, 64)
    and (m, 64), m > 0. With `itself` the two are one, and a patch is not its own neighbour (alone, it is at distance 1)."""
    out = np.empty(len(roots), dtype=np.float32)
    for start in range(0, len(roots), _CHUNK):
        likeness = roots[start : start + _CHUNK] @ among.T
        if itself:
            here = np.arange(len(likeness))
            likeness[here, start + here] = 0
        out[start : start + len(likeness)] = np.sqrt(np.maximum(1 - likeness.max(axis=1), 0))
    return out
