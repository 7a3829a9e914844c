"""Copies among patches: exact ones, and those that are the same after a rotation or flip; and labels that contradict each other.

Candidates have equal digests; their pixels are then read again and compared, so a collision is no finding. The kinds:

duplicate               exactly the same pixels twice in one split (warning), on every later row
duplicate_dihedral      the same only after one of the 7 rotations and flips, on the later one: within a split a warning, across
                        splits an error
cross_split_duplicate   exactly the same pixels in two splits (error), on each copy in the earlier split
label_conflict          the same pixels, or the same up to rotation and flip, with labels 0 and 1 (error), on the later one
"""

import bisect
import hashlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .findings import Finding
from .inspection import Inspection
from .pixels import as_uint8
from .sources import Source
from .stream import in_order

__all__ = ["ORIENTATIONS", "Catalogue", "copy_findings", "find_copies", "oriented"]

ORIENTATIONS = (
    "as it is",
    "rotated by 90 degrees",
    "rotated by 180 degrees",
    "rotated by 270 degrees",
    "mirrored left to right",
    "mirrored left to right, then rotated by 90 degrees",
    "mirrored top to bottom",
    "mirrored left to right, then rotated by 270 degrees",
)
_BATCH = 128
Rows = Callable[[str, NDArray[np.int64]], NDArray[np.generic]]
"""(split, rows) -> patches as stored."""
Map = Callable[
    [Callable[[NDArray[np.int64]], NDArray[np.int8]], Sequence[NDArray[np.int64]]], Iterator[NDArray[np.int8]]
]
"""Like the built-in map, perhaps on several threads."""


def oriented(patch: NDArray[np.generic], k: int) -> NDArray[np.generic]:
    """A patch (96, 96, C) in orientation ORIENTATIONS[k]; rotations are anticlockwise."""
    mirrored = patch[:, ::-1] if k >= 4 else patch
    match k % 4:
        case 1:
            return mirrored.transpose(1, 0, 2)[::-1]
        case 2:
            return mirrored[::-1, ::-1]
        case 3:
            return mirrored.transpose(1, 0, 2)[:, ::-1]
    return mirrored


@dataclass(frozen=True)
class Catalogue:
    """All patches of all splits, one after the other, in the order of splits and rows."""

    names: list[str]
    starts: list[int]
    """(S + 1,): where each split begins."""
    digests: NDArray[np.uint64]
    folded: NDArray[np.uint64]
    exact: NDArray[np.bool_]
    plain: NDArray[np.bool_]
    labels: NDArray[np.int8]
    """(N,): 0, 1 or -1 for unknown."""

    @staticmethod
    def of(splits: Sequence[tuple[str, Inspection, NDArray[np.int8] | None]]) -> "Catalogue":
        """From (name, inspection, labels) of each split, in the order train, valid, test."""
        seen = Inspection.join(inspection for _, inspection, _ in splits)
        labels = [np.full(len(s), -1, np.int8) if given is None else given for _, s, given in splits]
        starts = list(itertools.accumulate((len(inspection) for _, inspection, _ in splits), initial=0))
        names = [name for name, _, _ in splits]
        return Catalogue(names, starts, seen.digests, seen.folded, seen.exact, seen.plain, np.concatenate(labels))

    def place(self, at: int) -> tuple[str, int]:
        """(split, row) of a patch."""
        split = bisect.bisect_right(self.starts, at) - 1
        return self.names[split], at - self.starts[split]


def find_copies(splits: Sequence[tuple[Source, Inspection]]) -> list[Finding]:
    """Findings about copies among the patches of all splits, given in the order train, valid, test; candidates are read again."""
    by_name = {str(source.name): source for source, _ in splits}
    catalogue = Catalogue.of([(source.name, seen, source.labels) for source, seen in splits])
    return copy_findings(catalogue, lambda split, rows: by_name[split].rows(rows), in_order)


def copy_findings(catalogue: Catalogue, rows: Rows, run: Map = map) -> list[Finding]:
    """Findings about copies, in the order of the patches they are on. `rows` reads candidates again."""
    exact = _same_pixels(catalogue, rows, run)
    classes = _same_folded(catalogue, exact, rows, run)
    found: list[tuple[int, Finding]] = []
    for members in exact:
        found += _exact_findings(catalogue, members)
    for groups in classes:
        if len(groups) > 1:
            found += _dihedral_findings(catalogue, groups)
        found += _conflicts(catalogue, groups)
    return [finding for _, finding in sorted(found, key=lambda pair: pair[0])]


Group = list[int]
"""Patches with the same pixels, in order."""


@dataclass(frozen=True)
class _Turned:
    """An exact group within a class of the same patch turned: how its pixels come from those of the class's first."""

    members: Group
    orientation: int


def _same_pixels(catalogue: Catalogue, rows: Rows, run: Map) -> list[Group]:
    """Groups of two and more patches with the same pixels."""
    candidates = _equal(catalogue.digests, np.flatnonzero(~catalogue.plain))
    pairs = [(group[0], other) for group in candidates for other in group[1:]]
    same = _compare(catalogue, pairs, rows, run, orientations=1)
    at, groups = 0, []
    for group in candidates:
        if (same[at : at + len(group) - 1] == 0).all():
            groups.append(group)
        else:  # a collision of digests: part them by another digest of the pixels
            groups += [g for g in _parted(catalogue, group, rows, canonical=False) if len(g) > 1]
        at += len(group) - 1
    return groups


def _same_folded(catalogue: Catalogue, exact: list[Group], rows: Rows, run: Map) -> list[list[_Turned]]:
    """Classes of exact groups that are the same patch turned; and every exact group of two and more as a class of its own."""
    of_first = {group[0]: group for group in exact}
    wanted = ~catalogue.plain & catalogue.exact
    wanted[[member for group in exact for member in group[1:]]] = False
    candidates = _equal(catalogue.folded, np.flatnonzero(wanted))
    pairs = [(group[0], other) for group in candidates for other in group[1:]]
    turned = _compare(catalogue, pairs, rows, run, orientations=8)
    at, classes, seen = 0, [], set[int]()
    for group in candidates:
        how = turned[at : at + len(group) - 1].tolist()
        at += len(group) - 1
        parts = [group] if min(how) >= 0 else _parted(catalogue, group, rows, canonical=True)
        for part in parts:
            if len(part) == 1:
                continue
            its = how
            if len(parts) > 1:
                its = _compare(catalogue, [(part[0], other) for other in part[1:]], rows, run, orientations=8).tolist()
            classes.append([_Turned(of_first.get(first, [first]), k) for first, k in zip(part, [0, *its], strict=True)])
            seen.update(part)
    classes += [[_Turned(group, 0)] for group in exact if group[0] not in seen]
    return classes


def _equal(digests: NDArray[np.uint64], among: NDArray[np.int64]) -> list[Group]:
    """Groups of two and more rows of `among` with equal digests, each in ascending order."""
    if len(among) < 2:
        return []
    chosen = digests[among]
    order = np.lexsort((among, chosen[:, 1], chosen[:, 0]))
    ordered = chosen[order]
    fresh = np.concatenate([[True], (ordered[1:] != ordered[:-1]).any(axis=1)])
    starts = np.append(np.flatnonzero(fresh), len(order))
    long = np.flatnonzero(np.diff(starts) > 1)
    return [among[order[starts[k] : starts[k + 1]]].tolist() for k in long]


def _compare(
    catalogue: Catalogue, pairs: list[tuple[int, int]], rows: Rows, run: Map, *, orientations: int
) -> NDArray[np.int8]:
    """(P,): for each pair, the first of so many orientations of its first patch that is its second; -1 if none is."""
    if not pairs:
        return np.zeros(0, np.int8)
    table = np.array(pairs, dtype=np.int64)
    batches = [table[k : k + _BATCH] for k in range(0, len(table), _BATCH)]

    def compare(batch: NDArray[np.int64]) -> NDArray[np.int8]:
        unique, where = np.unique(batch, return_inverse=True)
        patches = _read(catalogue, unique, rows)
        return np.array([_orientation(patches[i], patches[j], orientations) for i, j in where.reshape(-1, 2)], np.int8)

    return np.concatenate(list(run(compare, batches)))


def _orientation(first: NDArray[np.generic], second: NDArray[np.generic], orientations: int) -> int:
    for k in range(orientations):
        turned = oriented(first, k)
        if np.array_equal(turned[0], second[0]) and np.array_equal(turned, second):  # the first line settles most
            return k
    return -1


def _read(catalogue: Catalogue, at: NDArray[np.int64], rows: Rows) -> list[NDArray[np.uint8]]:
    """Patches as uint8, or as bytes where uint8 cannot hold their values. `at` ascends."""
    patches: list[NDArray[np.uint8]] = []
    for split, name in enumerate(catalogue.names):
        low, high = np.searchsorted(at, catalogue.starts[split : split + 2])
        if low == high:
            continue
        block = rows(name, at[low:high] - catalogue.starts[split])
        pixels, exact = as_uint8(block)
        patches += [
            p if ok else np.ascontiguousarray(b).view(np.uint8) for p, ok, b in zip(pixels, exact, block, strict=True)
        ]
    return patches


def _parted(catalogue: Catalogue, group: Group, rows: Rows, *, canonical: bool) -> list[Group]:
    """A group parted by SHA-256 of the pixels; `canonical`: by the least of the digests of the 8 orientations."""
    parts: dict[bytes, Group] = {}
    for start in range(0, len(group), _BATCH):
        some = group[start : start + _BATCH]
        for at, patch in zip(some, _read(catalogue, np.array(some), rows), strict=True):
            turned = (oriented(patch, k) for k in range(8 if canonical else 1))
            digest = min(hashlib.sha256(np.ascontiguousarray(p).data.cast("B")).digest() for p in turned)
            parts.setdefault(digest, []).append(at)
    return list(parts.values())


def _exact_findings(catalogue: Catalogue, members: Group) -> Iterator[tuple[int, Finding]]:
    first: dict[str, int] = {}
    for at in members:
        first.setdefault(catalogue.place(at)[0], at)
    in_splits = [catalogue.names.index(name) for name in first]
    for at in members:
        name, index = catalogue.place(at)
        if at != first[name]:
            other_row = catalogue.place(first[name])[1]
            detail = f"the same pixels as {name} {other_row}{_labels(catalogue, first[name], at)}"
            yield at, Finding("duplicate", "warning", name, index, detail, {"split": name, "index": other_row})
        beyond = [k for k in in_splits if k > catalogue.names.index(name)]
        if beyond:
            split, row = catalogue.place(first[catalogue.names[beyond[0]]])
            detail = f"the same pixels as {split} {row}: what is trained on must not be tested on"
            yield at, Finding("cross_split_duplicate", "error", name, index, detail, {"split": split, "index": row})


def _dihedral_findings(catalogue: Catalogue, groups: list[_Turned]) -> Iterator[tuple[int, Finding]]:
    """On the first of each exact group in each split, if a patch of another group of the class comes before it."""
    orientation = {at: group.orientation for group in groups for at in group.members}
    number = {at: k for k, group in enumerate(groups) for at in group.members}
    ordered = sorted(orientation)
    seen: set[tuple[int, str]] = set()
    for at in ordered:
        name, index = catalogue.place(at)
        if (number[at], name) in seen:
            continue
        seen.add((number[at], name))
        before = next((other for other in ordered if other < at and number[other] != number[at]), None)
        if before is None:
            continue
        split, row = catalogue.place(before)
        how = "turned"
        if orientation[before] == 0:
            how = ORIENTATIONS[orientation[at]]
        severity = "warning" if split == name else "error"
        detail = f"{split} {row} {how}{_labels(catalogue, before, at)}"
        yield at, Finding("duplicate_dihedral", severity, name, index, detail, {"split": split, "index": row})  # type: ignore[arg-type]


def _conflicts(catalogue: Catalogue, groups: list[_Turned]) -> Iterator[tuple[int, Finding]]:
    members = sorted(at for group in groups for at in group.members)
    first: dict[int, int] = {}
    for at in members:
        label = int(catalogue.labels[at])
        if label < 0:
            continue
        other = first.get(1 - label)
        if other is not None:
            name, index = catalogue.place(at)
            split, row = catalogue.place(other)
            detail = f"labelled {label}; {split} {row}, the same patch, is labelled {1 - label}"
            yield at, Finding("label_conflict", "error", name, index, detail, {"split": split, "index": row})
        first.setdefault(label, at)


def _labels(catalogue: Catalogue, one: int, other: int) -> str:
    a, b = int(catalogue.labels[one]), int(catalogue.labels[other])
    return f" (labels {a} and {b})" if a >= 0 and b >= 0 else ""
