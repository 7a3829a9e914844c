"""Copies among patches: the same pixels, also under the rotations and flips of the square."""

import numpy as np
import xxhash
from numpy.typing import NDArray

from .. import rng
from .partition import PooledImages
from .pcam import PATCH_SHAPE

__all__ = ["find_copies"]

_BLOCK = 1024
_ORBITS = 16


def find_copies(images: PooledImages) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """(pairs, blank) of N pooled patches: pairs (M, 2) of each later copy and the first of its kind, exact or equal under one of
    the 7 rotations and flips; blank (N,), which of the patches with an equal sketch are of one colour. Blank patches form no
    pairs: they are alike on every slide, and hold nothing that could leak.

    One pass sketches every patch by 16 orbits of pixels, whose sums no rotation or flip changes; only patches with equal
    sketches are digested. No copy is missed.
    """
    sketch = np.concatenate([_sketches(piece) for piece in images.pieces])
    _, inverse, counts = np.unique(sketch, return_inverse=True, return_counts=True)
    blank = np.zeros(len(sketch), dtype=np.bool_)
    first: dict[bytes, int] = {}
    places = _orbits(PATCH_SHAPE[0])
    pairs: list[tuple[int, int]] = []
    for index in np.flatnonzero(counts[inverse] > 1).tolist():
        patch = images[index]
        if (patch[0] == patch[0, 0]).all() and (patch == patch[0, 0]).all():
            blank[index] = True
            continue
        earlier = first.setdefault(_digest(patch, places), index)
        if earlier != index:
            pairs.append((earlier, index))
    return np.array(pairs, dtype=np.int64).reshape(-1, 2), blank


def _sketches(images_NHWC: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """(N,) a number of each patch that is the same for its rotations and flips, and seldom for another patch."""
    places = _orbits(images_NHWC.shape[1])
    flat = images_NHWC.reshape(len(images_NHWC), -1, 3)
    out = np.empty(len(flat), dtype=np.uint64)
    for start in range(0, len(flat), _BLOCK):
        pixels = flat[start : start + _BLOCK][:, places.ravel()]
        sums = pixels.reshape(len(pixels), *places.shape, 3).sum(axis=2, dtype=np.uint16)
        out[start : start + len(sums)] = [xxhash.xxh3_64_intdigest(row.tobytes()) for row in sums]
    return out


def _orbits(size: int) -> NDArray[np.int64]:
    """(16, 8) flat places: each row holds the 8 places that the rotations and flips take one pixel to."""
    drawn = np.floor(rng.uniform(rng.key(0, "orbits"), 2 * _ORBITS) * size).astype(np.int64).reshape(_ORBITS, 2)
    grid = np.arange(size * size, dtype=np.int64).reshape(size, size)
    return np.stack([view[drawn[:, 0], drawn[:, 1]] for view in _turned(grid)], axis=1)


def _turned(patch: NDArray[np.generic]) -> list[NDArray[np.generic]]:
    """The 8 views of a square under its rotations and flips."""
    return [view for k in range(4) for view in (np.rot90(patch, k), np.rot90(patch[::-1], k))]


def _digest(patch: NDArray[np.uint8], places: NDArray[np.int64]) -> bytes:
    """One digest of a patch, however it is turned: of the view whose pixels at `places` come first; the least where some tie."""
    pixels = patch.reshape(-1, patch.shape[-1])[places.T]
    signs = [view.tobytes() for view in pixels]
    least = min(signs)
    views = [view for view, sign in zip(_turned(patch), signs, strict=True) if sign == least]
    return min(xxhash.xxh3_128_digest(np.ascontiguousarray(view).data) for view in views)
