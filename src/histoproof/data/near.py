"""Near-duplicates: patches that are another patch re-encoded, brightened, shifted by a few pixels, blurred; turned or not.

Three sieves, each finer and dearer than the one before. Sketches (sketch.py) are made while the patches stream by; faiss
finds each sketch's nearest in the 8 rotations and flips, and the pairs that no shift and brightness explains fall out; only
what is left is read again and laid over each other at full resolution (overlay.py).

The glass rule: patches without structure are all alike and are never a pair. A patch must vary by MIN_RELIEF grey levels in
the large and by MIN_TEXTURE in the small, and the alikeness must be in the small.

Neighbouring tissue is no near-duplicate: genuine patches lie on a grid of 16 px and many overlap, farther apart than MAX_SHIFT.
"""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .findings import Finding
from .neighbours import MAX_MISMATCH, Candidates, check_faiss, neighbours
from .overlay import overlay
from .pcam import PATCH_SHAPE, SPLITS, SplitName
from .sketch import ORIENTATIONS, Sketches, join, mismatch, sketch, turn, turn_sketch

__all__ = ["NearIndex", "NearPair", "Read", "near_findings"]

Read = Callable[[SplitName, NDArray[np.int64]], NDArray[np.uint8]]
"""Called with a split and sorted, distinct rows; returns those patches (n, 96, 96, 3) uint8."""
Progress = Callable[[int, int], None]
"""Called with (patches compared, patches in all)."""

_PAIRS = 128  # laid over each other at once: 7 MB of pixels


@dataclass(frozen=True)
class NearPair:
    """A patch that is nearly another, earlier one (in the order train, valid, test; then row)."""

    split: SplitName
    index: int
    other_split: SplitName
    other_index: int
    similarity: float
    """Correlation of the fine texture where both overlap, 0.6-1."""
    detail: str
    """How this patch comes from the other, in words."""


@dataclass(frozen=True)
class _Verdict:
    """Later patch `later` is `earlier`, or nearly: positions in the order of the sketches."""

    earlier: int
    equal: bool
    similarity: float
    detail: str


class NearIndex:
    """Collects sketches of patches as they stream by (382 bytes each), and then tells the near-duplicate pairs among them."""

    def __init__(self) -> None:
        """Raises DataError if faiss is not installed: before hours are spent, not after."""
        check_faiss()
        self._parts: dict[SplitName, list[Sketches]] = {}
        self._next: dict[SplitName, int] = {}

    def add(self, split: SplitName, start: int, block: NDArray[np.uint8]) -> None:
        """Take a split's next patches, (n, 96, 96, 3) uint8, the first of row `start`. Splits may come in any order."""
        assert start == self._next.get(split, 0), f"{split}: rows {start}.. come after {self._next.get(split, 0)}"
        assert block.dtype == np.uint8, block.dtype
        assert block.shape[1:] == PATCH_SHAPE, block.shape
        self._next[split] = start + len(block)
        self._parts.setdefault(split, []).append(sketch(block, start))

    def pairs(
        self,
        read: Read,
        *,
        exclude: Collection[tuple[str, int]] = (),
        progress: Progress | None = None,
    ) -> Iterator[NearPair]:
        """The near-duplicate pairs, ordered by the later patch; each later patch once, with the earliest that it nearly is.

        Patches that are a copy pixel by pixel, turned or not, are no near-duplicates: that is another finding. To save
        time, name those already known in `exclude`, (split, index) each, all but one of each set of copies: they are left
        out as if they were not there. `read` is called for patches that may be one of a pair, in batches.
        """
        where, vectors = self._joined(exclude)
        search = _Search(where, vectors, read)
        search.settle(neighbours(vectors, progress=progress))
        while len(unclear := search.firsts()) > 1:
            # More copies of a patch than neighbours were asked for fall apart into groups that each have a first one.
            if not search.settle(neighbours(vectors, among=unclear)):
                break
        search.trace_back()
        yield from search.pairs()

    def _joined(
        self, exclude: Collection[tuple[str, int]]
    ) -> tuple[list[tuple[SplitName, NDArray[np.int32]]], NDArray[np.float16]]:
        """([(split, rows)] in the order of SPLITS, the vectors of them all)."""
        where, vectors = [], []
        for split in SPLITS:
            if split not in self._parts:
                continue
            whole = join(self._parts[split])
            self._parts[split] = [whole]
            left_out = np.array(sorted(index for name, index in exclude if name == split), dtype=np.int32)
            keep = ~np.isin(whole.rows, left_out)
            where.append((split, whole.rows[keep]))
            vectors.append(whole.vectors[keep])
        return where, np.concatenate(vectors) if vectors else join([]).vectors


class _Search:
    """Verdicts so far, on sketches numbered in the order train, valid, test; then row."""

    def __init__(
        self, where: list[tuple[SplitName, NDArray[np.int32]]], vectors: NDArray[np.float16], read: Read
    ) -> None:
        self.splits: list[SplitName] = [split for split, _ in where]
        self.ends = np.cumsum([len(rows) for _, rows in where])
        self.rows = np.concatenate([rows for _, rows in where]) if where else np.empty(0, np.int32)
        self.vectors = vectors
        self.read = read
        self.verdicts: dict[int, _Verdict] = {}
        self.refused: set[tuple[int, int]] = set()

    def settle(self, candidates: Candidates) -> bool:
        """Try each later patch with its candidates, the earliest first, until one holds. Whether any did."""
        before = len(self.verdicts)
        waiting: dict[int, list[tuple[int, int]]] = {}
        # What seems equal comes first: a copy is not to be reported as a near copy of a third patch.
        exact = candidates.mismatch < 1e-5
        for k in np.lexsort((candidates.earlier, ~exact, candidates.later)):
            pair = int(candidates.earlier[k]), int(candidates.later[k])
            if pair[1] not in self.verdicts and pair not in self.refused:
                waiting.setdefault(pair[1], []).append((pair[0], int(candidates.orientation[k])))
        while waiting:
            self._try([(tries[0][0], later, tries[0][1]) for later, tries in waiting.items()])
            waiting = {
                later: tries[1:] for later, tries in waiting.items() if len(tries) > 1 and later not in self.verdicts
            }
        return len(self.verdicts) > before

    def firsts(self) -> NDArray[np.int64]:
        """Patches with a later near copy and without an earlier one."""
        return np.array(sorted({v.earlier for v in self.verdicts.values()} - set(self.verdicts)), dtype=np.int64)

    def trace_back(self) -> None:
        """Where a patch nearly is one that itself nearly is an earlier one, see whether it is nearly that one too."""
        tried = set(self.refused)
        while True:
            pairs = []
            for later, verdict in sorted(self.verdicts.items()):
                further = self.verdicts.get(verdict.earlier)
                if further and not verdict.equal and (further.earlier, later) not in tried:
                    pairs.append((further.earlier, later))
            if not pairs:
                return
            tried.update(pairs)
            fitting = [(*pair, t) for pair, t in zip(pairs, self._orientations(pairs), strict=True) if t >= 0]
            self._try(fitting)

    def pairs(self) -> Iterator[NearPair]:
        """What was found, without the patches that are equal."""
        for later, verdict in sorted(self.verdicts.items()):
            if not verdict.equal:
                (split, index), (other_split, other_index) = self._name(later), self._name(verdict.earlier)
                yield NearPair(split, index, other_split, other_index, verdict.similarity, verdict.detail)

    def _orientations(self, pairs: list[tuple[int, int]]) -> NDArray[np.int64]:
        """Of each pair, the orientation of the earlier patch that fits best; -1 if none does."""
        earlier, later = np.array(pairs, dtype=np.int64).T
        misfit = np.stack(
            [mismatch(turn_sketch(self.vectors[earlier, 0], t), self.vectors[later]) for t in range(len(ORIENTATIONS))]
        )
        return np.where(misfit.min(0) <= MAX_MISMATCH, misfit.argmin(0), -1)

    def _try(self, tries: list[tuple[int, int, int]]) -> None:
        """Lay pairs (earlier, later, orientation) over each other; keep what holds."""
        for start in range(0, len(tries), _PAIRS):
            batch = tries[start : start + _PAIRS]
            earlier, later, orientation = np.array(batch, dtype=np.int64).T
            numbers, places = np.unique(np.concatenate([earlier, later]), return_inverse=True)
            pixels = self._pixels(numbers)
            first, second = pixels[places[: len(batch)]], pixels[places[len(batch) :]]
            for t in np.unique(orientation):
                first[orientation == t] = turn(first[orientation == t], int(t))
            seen = overlay(first, second)
            for k, (before, after, t) in enumerate(batch):
                if not (seen.same[k] or seen.equal[k]):
                    self.refused.add((before, after))
                    continue
                shift = int(seen.down[k]), int(seen.right[k])
                words = _words(t, shift, float(seen.brightness[k]), float(seen.difference[k]))
                self.verdicts[after] = _Verdict(before, bool(seen.equal[k]), float(seen.similarity[k]), words)

    def _pixels(self, numbers: NDArray[np.int64]) -> NDArray[np.uint8]:
        """The patches of sorted sketch numbers, each split's read at once."""
        split_of = np.searchsorted(self.ends, numbers, side="right")
        parts = [
            self.read(self.splits[s], self.rows[numbers[split_of == s]].astype(np.int64)) for s in np.unique(split_of)
        ]
        return np.concatenate(parts)

    def _name(self, number: int) -> tuple[SplitName, int]:
        return self.splits[int(np.searchsorted(self.ends, number, side="right"))], int(self.rows[number])


def near_findings(pairs: Iterator[NearPair]) -> Iterator[Finding]:
    """A warning near_duplicate for each pair, on the later patch."""
    for pair in pairs:
        other = {"split": pair.other_split, "index": pair.other_index}
        detail = f"nearly {pair.other_split} {pair.other_index}: {pair.detail} (similarity {pair.similarity:.2f})"
        yield Finding("near_duplicate", "warning", pair.split, pair.index, detail, other)


def _words(orientation: int, shift: tuple[int, int], brightness: float, difference: float) -> str:
    parts = [ORIENTATIONS[orientation]] if orientation else []
    down, right = shift
    moves = [
        f"{abs(n)} px {way}"
        for n, way in ((down, "down" if down > 0 else "up"), (right, "right" if right > 0 else "left"))
        if n
    ]
    if moves:
        parts.append(f"shifted {' and '.join(moves)}")
    if abs(brightness - 1) >= 0.005:
        parts.append(f"brightness x{brightness:.2f}")
    if difference >= 0.05:
        parts.append(f"{'otherwise ' if parts else ''}different by {difference:.1f} grey levels (rms)")
    return "the same patch, " + ", ".join(parts) if parts else "the same patch"
