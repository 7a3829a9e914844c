"""What one pass over the pixels notes of every patch: faults, digests to find copies by, and a few plain measures.

The work is done in slices that fit the processor's cache, on a float32 copy, which also shows whether a stored float survives as
uint8. Sums that decide anything are exact integers (below 2**24), so they depend neither on the order of summation nor on the
number of threads.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import xxhash
from numpy.typing import NDArray

from .. import rng
from .findings import Finding
from .flat import flat_finding, may_be_flat
from .pixels import as_float64, narrow, pixel_findings

__all__ = ["Inspection", "Inspector"]

_SIDE, _ROW = 96, 288
_PIXELS = _SIDE * _SIDE
_SLICE = 16
"""Patches turned into float32 at once (1.8 MB): what is still in the cache when it is looked at again."""
_EVERY = 8
"""Contrast and sharpness are measured on every eighth row of pixels and the one below it."""


def _weights() -> NDArray[np.float32]:
    """(4, 96): ones, and three rows of fixed whole numbers up to 126; each the same read backwards."""
    words = rng.bits(rng.key(0, "fold"), np.arange(3 * _SIDE, dtype=np.uint64))
    half = (words >> np.uint64(58)).astype(np.float32).reshape(3, _SIDE)
    return np.concatenate([np.ones((1, _SIDE), np.float32), half + half[:, ::-1]])


_LINES = _weights()
_COLUMNS = np.kron(_LINES.T.astype(np.float64), np.eye(3))
"""(288, 12): the same weights for the columns, per colour channel."""

_ONES = np.ones(_SIDE // _EVERY * _ROW, np.float32)


@dataclass(frozen=True)
class Inspection:
    """What was seen in n patches, in order."""

    digests: NDArray[np.uint64]
    """(n, 2): XXH3-128 of a patch's bytes: as uint8, or as stored where uint8 cannot hold its values."""
    folded: NDArray[np.uint64]
    """(n, 2): a digest that the 8 rotations and flips leave as it is."""
    exact: NDArray[np.bool_]
    """(n,): whether uint8 holds every value."""
    plain: NDArray[np.bool_]
    """(n,): patches without content (one value throughout, blackout, washout): no search for copies looks at them."""
    colour: NDArray[np.float32]
    """(n, 3): mean red, green and blue, 0-255."""
    contrast: NDArray[np.float32]
    """(n,): variance of the values in every eighth row of pixels."""
    sharpness: NDArray[np.float32]
    """(n,): mean squared difference to the pixel below, in every eighth row of pixels."""
    findings: list[Finding] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.exact)

    @staticmethod
    def join(parts: "Iterable[Inspection]") -> "Inspection":
        """One inspection of all patches of consecutive blocks."""
        parts = list(parts)
        names = ("digests", "folded", "exact", "plain", "colour", "contrast", "sharpness")
        arrays = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
        return Inspection(**arrays, findings=[finding for part in parts for finding in part.findings])


class Inspector:
    """Working memory for inspecting blocks one after the other; each thread needs its own.

    Nothing large is allocated while blocks pass by: threads that fault in fresh pages would wait for each other.
    """

    def __init__(self) -> None:
        self._rows = np.empty((_SLICE, _SIDE, _ROW), np.float32)
        self._same = np.empty((_SLICE, _SIDE, _SIDE, 3), np.bool_)
        self._lines = np.empty((_SLICE, 4, _ROW), np.float32)
        self._exact_lines = np.empty((_SLICE, 4, _ROW), np.float64)
        self._some = np.empty((2, _SLICE, _SIDE // _EVERY, _ROW), np.float32)

    def __call__(
        self,
        block: NDArray[np.generic],
        split: str,
        start: int,
        known: NDArray[np.bool_] | None = None,
        pixels: NDArray[np.uint8] | None = None,
    ) -> tuple[NDArray[np.uint8], Inspection]:
        """(pixels, inspection) of a block (n, 96, 96, 3) of any real dtype, whose first patch is row `start` of `split`.

        Pixels are uint8, the nearest where it cannot hold a value; written to `pixels` where it is given and needed. `known` (n,)
        marks patches that are not judged, and no copies of them looked for: in a store, those whose pixels were replaced.
        """
        if block.dtype == np.uint8:
            pixels = np.ascontiguousarray(block)
            return pixels, self.follow([pixels], pixels, split, start, known)
        if pixels is None:
            pixels = np.empty(block.shape, np.uint8)
        return pixels, self.follow([block], pixels, split, start, known)

    def follow(
        self,
        blocks: Iterable[NDArray[np.generic]],
        pixels: NDArray[np.uint8],
        split: str,
        start: int,
        known: NDArray[np.bool_] | None = None,
    ) -> Inspection:
        """As a call, for patches that come a few at a time, `blocks` of one dtype: each is looked at while it is in the cache.

        `pixels` (n, 96, 96, 3) has room for them all; blocks of uint8 are parts of it already. `known` may change until the last
        block has come.
        """
        n = len(pixels)
        exact, sums = np.ones(n, np.bool_), np.empty((n, 4, 4, 3), np.float64)
        contrast, sharpness = np.empty(n, np.float32), np.empty(n, np.float32)
        digests = np.empty((n, 2), np.uint64)
        inexact = _Inexact(split, start)
        at = 0
        for block in blocks:
            for first in range(0, len(block), _SLICE):
                few = block[first : first + _SLICE]
                part = slice(at, at + len(few))
                rows = self._rows[: len(few)]
                if few.dtype == np.uint8:
                    np.copyto(rows, pixels[part].reshape(rows.shape))
                else:
                    narrow(few, pixels[part], rows.reshape(few.shape), exact[part], self._same[: len(few)])
                    inexact.look(few, exact[part], at)
                digests[part] = _digests(pixels[part])
                self._sum(rows, sums[part])
                contrast[part], sharpness[part] = self._measure(rows)
                at += len(few)
        colour = sums[:, 0, 0, :] / _PIXELS
        findings: list[Finding] = []
        plain = np.zeros(n, np.bool_) if known is None else known.copy()
        for row in np.flatnonzero(may_be_flat(colour, contrast, sharpness) & exact & ~plain):
            found = flat_finding(pixels[row], split, start + int(row))
            if found:
                findings.append(found)
                plain[row] = True
        folded = _fold(sums)
        for number, digest in inexact.digests.items():
            digests[number] = digest
        plain[inexact.plain] = True
        findings += inexact.findings
        return Inspection(digests, folded, exact, plain, colour.astype(np.float32), contrast, sharpness, findings)

    def _sum(self, rows: NDArray[np.float32], sums: NDArray[np.float64]) -> None:
        """Weighted sums (n, 4, 4, 3) of n patches: over lines with the weights _LINES, then over columns with the same."""
        n = len(rows)
        np.matmul(_LINES, rows, out=self._lines[:n])
        np.copyto(self._exact_lines[:n], self._lines[:n])
        np.matmul(self._exact_lines[:n].reshape(n * 4, _ROW), _COLUMNS, out=sums.reshape(n * 4, 12))

    def _measure(self, rows: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """(n,) variance and mean squared difference to the pixel below, of every eighth row."""
        some, step = self._some[:, : len(rows)]
        np.copyto(some, rows[:, ::_EVERY])
        np.subtract(rows[:, 1::_EVERY], some, out=step)
        some, step = some.reshape(len(rows), -1), step.reshape(len(rows), -1)
        mean = np.vecdot(some, _ONES) / _ONES.size
        return np.vecdot(some, some) / _ONES.size - mean * mean, np.vecdot(step, step) / _ONES.size


class _Inexact:
    """What is to be said of patches that uint8 cannot hold, as long as their values are at hand."""

    def __init__(self, split: str, start: int) -> None:
        self._split, self._start = split, start
        self.findings: list[Finding] = []
        self.digests: dict[int, NDArray[np.uint64]] = {}
        self.plain: list[int] = []

    def look(self, block: NDArray[np.generic], exact: NDArray[np.bool_], at: int) -> None:
        """Look at those patches of a block that are not exact; the first patch is number `at`."""
        if exact.all():
            return
        self.findings += pixel_findings(block, exact, self._split, self._start + at)
        for row in np.flatnonzero(~exact).tolist():
            values = np.ascontiguousarray(block[row])
            self.digests[at + row] = np.frombuffer(xxhash.xxh3_128_digest(values.data.cast("B"), 1), np.uint64)
            if _one_value(values):
                self.plain.append(at + row)


def _digests(items: NDArray[np.generic]) -> NDArray[np.uint64]:
    """(n, 2): XXH3-128 of each item's bytes; the items are contiguous."""
    whole = items.reshape(-1).data.cast("B")
    size = items[0].nbytes
    digest = xxhash.xxh3_128_digest
    joined = b"".join([digest(whole[k : k + size]) for k in range(0, len(whole), size)])
    return np.frombuffer(bytearray(joined), np.uint64).reshape(-1, 2)


def _fold(sums: NDArray[np.float64]) -> NDArray[np.uint64]:
    """(n, 2): digest of weighted sums (n, 4, 4, 3) that a transposition turns into their transpose, and a flip leaves alone."""
    return _digests(np.ascontiguousarray(sums + sums.transpose(0, 2, 1, 3)))


def _one_value(values: NDArray[np.generic]) -> bool:
    """Whether a patch holds one value throughout, or not one finite value."""
    numbers = as_float64(values)
    return bool((numbers == numbers.flat[0]).all() or not np.isfinite(numbers).any())
