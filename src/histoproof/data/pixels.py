"""Pixels as stored against pixels as uint8: which patches can be represented exactly, and which cannot."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from .findings import Finding

__all__ = ["as_float64", "as_uint8", "looks_scaled", "narrow", "pixel_findings"]

_SLICE = 16
"""Patches narrowed at once: what fits the cache."""


def as_uint8(block: NDArray[np.generic]) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """(uint8 pixels, exact) for a block (n, 96, 96, 3): `exact` (n,) says which patches kept every value.

    A patch that is not exact holds the nearest uint8 of each value (NaN becomes 0); it belongs in quarantine.
    """
    if block.dtype == np.uint8:
        return np.asarray(block, dtype=np.uint8), np.ones(len(block), dtype=np.bool_)
    pixels, exact = np.empty(block.shape, np.uint8), np.empty(len(block), np.bool_)
    again = np.empty((min(_SLICE, len(block)), *block.shape[1:]), np.float32)
    for first in range(0, len(block), _SLICE):
        part = block[first : first + _SLICE]
        stop = first + len(part)
        narrow(part, pixels[first:stop], again[: len(part)], exact[first:stop])
    return pixels, exact


def narrow(
    block: NDArray[np.generic],
    pixels: NDArray[np.uint8],
    again: NDArray[np.float32],
    exact: NDArray[np.bool_],
    same: NDArray[np.bool_] | None = None,
) -> None:
    """As `as_uint8`, for a few patches at once, of any dtype but uint8: writes `pixels` and `exact`.

    Writes the pixels to `again` as well, as float32: a value was kept if it is the same after the way there and back. `same`, of
    the block's shape, is working memory. All are contiguous; given room that is used again and again, no fresh pages are touched.
    """
    with np.errstate(
        invalid="ignore", over="ignore"
    ):  # what a cast makes of NaN or 1e5 is not the value, and so is seen
        np.copyto(pixels, block, casting="unsafe")
        np.copyto(again, pixels)
        equal = np.equal(again, block, out=same)
    np.logical_and.reduce(equal.reshape(len(block), -1), axis=1, out=exact)
    if not exact.all():
        inexact = ~exact
        values = np.nan_to_num(as_float64(block[inexact]), nan=0.0, posinf=255.0, neginf=0.0)
        pixels[inexact] = np.rint(np.clip(values, 0, 255))
        again[inexact] = pixels[inexact]


def as_float64(values: NDArray[np.generic]) -> NDArray[np.float64]:
    """Any real values in float64, signalling NaNs among them without a warning."""
    with np.errstate(invalid="ignore"):
        return np.asarray(values, dtype=np.float64)


def pixel_findings(block: NDArray[np.generic], exact: NDArray[np.bool_], split: str, start: int) -> Iterator[Finding]:
    """Findings nan, infinite, out_of_range and non_integer for the patches of a block that are not exact.

    `start` is the row of the block's first patch. A patch may have several kinds.
    """
    for row in np.flatnonzero(~exact):
        values = as_float64(block[row])
        finite = values[np.isfinite(values)]
        outside = finite[(finite < 0) | (finite > 255)]
        inside = finite[(finite >= 0) & (finite <= 255)]
        fractions = inside[inside != np.rint(inside)]
        total = values.size
        index = start + int(row)
        for kind, count, example in (
            ("nan", int(np.isnan(values).sum()), "not a number"),
            ("infinite", int(np.isinf(values).sum()), "infinite"),
            ("out_of_range", outside.size, f"outside 0-255, the farthest {_farthest(outside)}"),
            ("non_integer", fractions.size, f"not whole numbers, e.g. {fractions[0]:g}" if fractions.size else ""),
        ):
            if count:
                yield Finding(kind, "error", split, index, f"{count} of {total} values are {example}")  # type: ignore[arg-type]


def looks_scaled(block: NDArray[np.generic]) -> bool:
    """Whether a float block (n, ...) seems to hold pixels already divided by 255: in more than half of its patches all are
    within 0-1, and not all of them whole numbers."""
    if block.dtype.kind != "f" or not block.size:
        return False
    scaled = 0
    for patch in block:
        few = patch[:1]
        if (np.isfinite(few) & (few > 1)).any():  # settles most patches
            continue
        values = as_float64(patch)
        finite = values[np.isfinite(values)]
        scaled += bool(finite.size and finite.min() >= 0 and finite.max() <= 1 and (finite != np.rint(finite)).any())
    return scaled > len(block) / 2


def _farthest(values: NDArray[np.float64]) -> str:
    if not values.size:
        return ""
    value = float(values[np.abs(values - 127.5).argmax()])
    return f"{value:g}" if not 0 <= float(f"{value:g}") <= 255 else repr(value)
