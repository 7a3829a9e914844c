"""truth.csv: what was planted, and what follows from it about which patches are copies of which."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import DataError
from .pcam import SPLITS

__all__ = ["BLANK", "EXACT", "PAIRS", "Copies", "Groups", "Pair", "Patch", "Truth", "read_truth"]

Patch = tuple[str, int]
"""(split, row)."""
Pair = tuple[Patch, Patch]

EXACT = ("duplicate", "cross_split_duplicate", "label_conflict")
"""Kinds that say that two patches have the same pixels."""
PAIRS = (*EXACT, "duplicate_dihedral", "near_duplicate")
"""Kinds that are about two patches."""
BLANK = ("blackout", "washout")


@dataclass(frozen=True)
class Truth:
    """One line of truth.csv: what was planted where. `index` is None for a fault of a whole split or file."""

    kind: str
    split: str
    index: int | None
    other_split: str | None = None
    other_index: int | None = None
    detail: str = ""


def read_truth(path: Path) -> list[Truth]:
    """The lines of a truth.csv. Raises DataError."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return [
                Truth(
                    row["kind"],
                    row["split"],
                    int(row["index"]) if row["index"] else None,
                    row["other_split"] or None,
                    int(row["other_index"]) if row["other_index"] else None,
                    row["detail"],
                )
                for row in csv.DictReader(file)
            ]
    except (OSError, UnicodeDecodeError, csv.Error, KeyError, TypeError, ValueError) as e:
        raise DataError(f"{path} is no readable truth.csv: {e}", next="`histoproof data poison` writes one") from None


@dataclass
class Groups:
    """Patches joined into groups (union-find), each with its label relative to its group's: 0 the same, 1 the opposite."""

    parent: dict[Patch, Patch] = field(default_factory=dict)
    flip: dict[Patch, int] = field(default_factory=dict)

    def join(self, a: Patch, b: Patch, opposite: bool = False) -> None:
        """a and b are of one group."""
        (root_a, flip_a), (root_b, flip_b) = self.find(a), self.find(b)
        if root_a != root_b:
            self.parent[root_b] = root_a
            self.flip[root_b] = flip_a ^ flip_b ^ int(opposite)

    def find(self, patch: Patch) -> tuple[Patch, int]:
        """(the patch that stands for its group, whether the label is the opposite of that one's)."""
        flip = 0
        while (above := self.parent.get(patch, patch)) != patch:
            flip ^= self.flip[patch]
            patch = above
        return patch, flip

    def same(self, a: Patch, b: Patch) -> bool:
        """Whether a and b are of one group."""
        return self.find(a)[0] == self.find(b)[0]

    def members(self) -> list[list[Patch]]:
        """The groups of two and more, each in the order of splits and rows."""
        groups: dict[Patch, set[Patch]] = {}
        for patch in [*self.parent, *self.parent.values()]:
            groups.setdefault(self.find(patch)[0], set()).add(patch)
        return [sorted(group, key=_order) for group in groups.values()]


class Copies:
    """What the truth says about copies: who equals whom exactly, up to rotations and mirroring, and nearly."""

    def __init__(self, truth: Sequence[Truth]) -> None:
        self.exact, self.dihedral, self.near = Groups(), Groups(), Groups()
        self.blank = {(row.split, row.index) for row in truth if row.kind in BLANK}
        for row in truth:
            if row.kind in PAIRS and row.index is not None and row.other_split and row.other_index is not None:
                a, b = (row.split, row.index), (row.other_split, row.other_index)
                opposite = row.kind == "label_conflict"
                if row.kind in EXACT:
                    self.exact.join(a, b, opposite)
                if row.kind != "near_duplicate":
                    self.dihedral.join(a, b, opposite)
                self.near.join(a, b, opposite)

    def expected(self, kind: str) -> list[Pair]:
        """The pairs that an audit should name, as groups make them."""
        if kind == "duplicate":
            return [pair for group in self.exact.members() for pair in _within_splits(group)]
        if kind == "cross_split_duplicate":
            return [pair for group in self.exact.members() for pair in _across_splits(group)]
        if kind == "label_conflict":
            found = []
            for group in self.dihedral.members():
                first = self.dihedral.find(group[0])[1]
                found += [(group[0], patch) for patch in group if self.dihedral.find(patch)[1] != first]
            return found
        wide, narrow = (self.dihedral, self.exact) if kind == "duplicate_dihedral" else (self.near, self.dihedral)
        return [pair for group in wide.members() for pair in _between(group, narrow)]

    def bears_out(self, kind: str, a: Patch, b: Patch) -> bool | None:
        """Whether the truth says so; None where it leaves the question open."""
        if a in self.blank and b in self.blank:  # blank patches equal each other: true, and not planted as copies
            return None
        if kind == "duplicate":
            return a[0] == b[0] and self.exact.same(a, b)
        if kind == "cross_split_duplicate":
            return a[0] != b[0] and self.exact.same(a, b)
        if kind == "label_conflict":
            return self.dihedral.same(a, b) and self.dihedral.find(a)[1] != self.dihedral.find(b)[1]
        if kind == "duplicate_dihedral":
            return self.dihedral.same(a, b) and not self.exact.same(a, b)
        return None if self.dihedral.same(a, b) else self.near.same(a, b)


def _within_splits(group: list[Patch]) -> list[Pair]:
    first: dict[str, Patch] = {}
    return [(first[patch[0]], patch) for patch in group if first.setdefault(patch[0], patch) != patch]


def _across_splits(group: list[Patch]) -> list[Pair]:
    """Each copy against the first one in each later split."""
    first: dict[str, Patch] = {}
    for patch in group:
        first.setdefault(patch[0], patch)
    return [(a, b) for a in group for b in first.values() if _order(b)[0] > _order(a)[0]]


def _between(group: list[Patch], narrow: Groups) -> list[Pair]:
    """The first patch of each narrower group against the first of all."""
    seen = {narrow.find(group[0])[0]}
    pairs = []
    for patch in group[1:]:
        if (root := narrow.find(patch)[0]) not in seen:
            seen.add(root)
            pairs.append((group[0], patch))
    return pairs


def _order(patch: Patch) -> tuple[int, int]:
    return [*SPLITS, patch[0]].index(patch[0]), patch[1]
