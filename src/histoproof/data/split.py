"""Leakage-safe splitting: a store's patches dealt anew into parts or folds that no group and no copy crosses.

Nothing is moved: a partition is a small file in the store (see `partition`), and a config names it with data.partition.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import __version__, rng
from ..config import DEFAULT_GROUPS, GroupsConfig
from ..errors import DataError, SealedError
from ..files import read_lines, sha256_file
from . import balance
from .groups import pooled_labels
from .partition import check_name, part_rows, pool, write_partition
from .pcam import SPLITS, SplitName
from .store import Split, Store, open_store

__all__ = ["split"]

ROLES = SPLITS
"""Parts that fractions can be given for; train and valid must be."""
MOST_FOLDS = 1000
_PAIRS = ("duplicate", "duplicate_dihedral", "cross_split_duplicate", "label_conflict", "near_duplicate")
_BLANK = ("blackout", "washout")
_FAR = 0.05
"""A part is worth a warning when its fraction is this far from the one asked for, or a group this much larger than it."""


@dataclass(frozen=True)
class _Pool:
    """The patches to be dealt, in one numbering, with the group of each."""

    store: Store
    splits: tuple[Split, ...]
    labels: NDArray[np.uint8]
    usable: NDArray[np.int64]
    """Indices with a label and not in quarantine: they alone are balanced."""
    group: NDArray[np.int64]
    """(N,) the number of each patch's group, copies joined."""
    names: list[str]
    """Of each group: the label of its first patch."""


def split(
    store: Path,
    *,
    groups: str | None = None,
    fractions: Mapping[str, float] | None = None,
    folds: int | None = None,
    name: str | None = None,
    seed: int = 42,
    pooled: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Deal a store's patches into `fractions`, e.g. {"train": 0.8, "valid": 0.2} (a "test" may be among them), or into `folds`
    (2 to 1000), so that no group is in two parts and every part has its share of both classes; write it into the store as
    partition `name` (default: fractions, or folds-K).

    `groups` is a column of the store's meta.csv or CSV:COLUMN ({split} in the path stands for each split; without it the CSV
    holds the rows of all, in order); without it, wsi where the store knows it, else every patch alone. Patches that are copies,
    exact, rotated or flipped, and pairs that findings.jsonl names, are joined before. `pooled` names the splits that are dealt:
    those of train and valid that the store has, unless given. Fractions are met as nearly as whole groups allow. The same
    store, groups and seed give the same partition.

    Returns {"store", "name", "kind", "seed", "groups", "copies", "from", "parts": {part: {"n", "fraction", "positive",
    "groups"}}, "warnings", "file", "sha256"}; a fold's part is what it validates on. Raises DataError, SealedError where test is
    to be pooled, OutputError where the store cannot be written to.
    """
    asked = _asked(fractions, folds)
    opened = open_store(store)
    kind = "fractions" if fractions is not None else "folds"
    name = name if name is not None else "fractions" if fractions is not None else f"folds-{folds}"
    check_name(opened, name)
    splits = _splits(opened, pooled)
    labels, config, described = _groups(opened, splits, groups)
    found, copies = _pool(opened, splits, labels)
    parts = _deal(found, asked, kind, seed)
    described["n"] = len(np.unique(found.group[found.usable]))
    counted = _count(found, asked, parts)
    warnings = _warnings(found, asked, counted, config, kind)
    record = {
        "kind": kind,
        "seed": seed,
        "histoproof": __version__,
        "groups": described,
        "copies": copies,
        "from": [s.name for s in splits],
        "n": [len(s) for s in splits],
        "asked": asked,
        "parts": counted,
        "warnings": warnings,
    }
    entry = write_partition(opened, name, parts, record)
    return {"store": str(store), "name": name, **entry}


def _asked(fractions: Mapping[str, float] | None, count: int | None) -> dict[str, float]:
    """{part: fraction} of what was asked for; folds are numbered. Raises DataError."""
    if (fractions is None) == (count is None):
        raise DataError(
            "either fractions or folds must be given, and not both",
            valid="--fractions train=0.8,valid=0.2 or --folds 5",
        )
    if count is not None:
        if not 2 <= count <= MOST_FOLDS:
            raise DataError(f"{count} folds cannot be made", valid=f"2 to {MOST_FOLDS}")
        return {str(fold): 1 / count for fold in range(count)}
    assert fractions is not None
    valid = "train and valid, and test if you like, each over 0, together 1: --fractions train=0.8,valid=0.2"
    unknown = [role for role in fractions if role not in ROLES]
    if unknown:
        raise DataError(f"there is no part {', '.join(unknown)}", valid=valid)
    missing = [role for role in ("train", "valid") if role not in fractions]
    if missing:
        raise DataError(f"no fraction was given for {' and '.join(missing)}", valid=valid)
    bad = [f"{role}={value:g}" for role, value in fractions.items() if not (math.isfinite(value) and value > 0)]
    if bad:
        raise DataError(f"{', '.join(bad)} is no fraction", valid=valid)
    if abs(sum(fractions.values()) - 1) > 1e-6:
        raise DataError(f"the fractions add up to {sum(fractions.values()):g}", valid=valid)
    return {role: float(fractions[role]) for role in ROLES if role in fractions}


def _splits(store: Store, names: Sequence[str] | None) -> tuple[Split, ...]:
    if names is not None and "test" in names:
        raise SealedError(
            "the test split is sealed: it is never dealt among train and valid",
            valid="train, valid, or both",
            next="for a test part of their patches: --fractions train=0.7,valid=0.15,test=0.15",
        )
    if names is not None and (not names or set(names) - {"train", "valid"}):
        raise DataError(f"cannot pool {', '.join(names) or 'nothing'}", valid="train, valid, or both")
    found = [
        store.split(name)
        for name in SPLITS[:2]
        if (names is None and name in store.splits) or (names is not None and name in names)
    ]
    labelled = [s for s in found if s.labels is not None]
    without = [s.name for s in found if s.labels is None]
    if not labelled or (names is not None and without):
        raise DataError(
            f"{store.path}: {'there is neither train nor valid' if not found else f'{without[0]} has no labels'}",
            valid="splits with labels",
        )
    return tuple(labelled)


def _groups(
    store: Store, splits: Sequence[Split], text: str | None
) -> tuple[NDArray[np.str_] | None, GroupsConfig, dict[str, Any]]:
    """(labels (N,) or None for patches that stand alone, where they come from, the same for the manifest)."""
    names: list[SplitName] = [s.name for s in splits]
    columns = store.columns()
    if text is None:
        found = [store.meta(name, DEFAULT_GROUPS) for name in names]
        usable = all(labels is not None and (labels != "").all() for labels in found)
        config = GroupsConfig(column=DEFAULT_GROUPS if usable else None)
    elif text in columns:
        config = GroupsConfig(column=text)
    elif ":" in text and all(text.rpartition(":")[::2]):
        path, _, column = text.rpartition(":")
        config = GroupsConfig(column=column, csv=path)
    else:
        hint = f"for a column of a CSV: --groups {text if text.endswith('.csv') else 'FILE.csv'}:COLUMN"
        raise DataError(
            f"the store {store.path} knows no column {text!r}",
            valid=", ".join(columns) or "its meta.csv has no columns",
            next=hint,
        )
    labels = None if config.column is None else pooled_labels(store, names, config)
    if config.column is not None and (labels is None or (labels == "").any()):
        lacking = next(n for n in names if (values := store.meta(n, config.column)) is None or (values == "").any())
        raise DataError(
            f"not every patch of {lacking} has a {config.column} in {store.path / 'meta.csv'}",
            valid="a group for every patch",
            next="give a CSV:COLUMN, or leave that split out with --from",
        )
    files = [] if config.csv is None else [Path(config.csv.replace("{split}", n)) for n in names]
    digests = {str(path): sha256_file(path) for path in dict.fromkeys(files)}
    return labels, config, {"column": config.column, "csv": config.csv, "csv_sha256": digests or None}


def _pool(store: Store, splits: tuple[Split, ...], labels: NDArray[np.str_] | None) -> tuple[_Pool, dict[str, int]]:
    """The patches with their groups, copies joined; and how much was joined."""
    _, targets, quarantined = pool(splits)
    usable = part_rows(targets, quarantined, "exclude")
    if not len(usable):
        raise DataError(f"{store.path} has no patch with a label outside quarantine", next="read its findings.jsonl")
    if labels is None:
        group = np.arange(len(targets), dtype=np.int64)
    else:
        group = np.unique(labels, return_inverse=True)[1].astype(np.int64)
    pairs = _copies(store, splits)
    before = len(np.unique(group))
    group = _joined(group, pairs)
    first = np.unique(group, return_index=True)[1]
    names = [str(index) for index in first] if labels is None else [str(labels[index]) for index in first]
    joined = before - (int(group.max()) + 1)
    return _Pool(store, splits, targets, usable, group, names), {
        "pairs": len(pairs),
        "groups_joined": joined,
    }


def _copies(store: Store, splits: Sequence[Split]) -> NDArray[np.int64]:
    """(M, 2) pooled indices of the copies that packing found. Black and white patches tie nothing together: they are alike on
    every slide, and would join all of them."""
    starts = np.cumsum([0, *(len(s) for s in splits)]).tolist()
    offsets: dict[str, int] = {s.name: start for s, start in zip(splits, starts, strict=False)}
    path = store.path / "findings.jsonl"
    if not path.is_file():
        raise DataError(f"{path} is missing: it says which patches are copies", next="pack the official files again")
    empty: set[int] = set()
    named: set[tuple[int, int]] = set()
    try:
        for line in read_lines(path):
            ends = [line, line.get("other") or {"split": None}]
            if any(end["split"] not in offsets for end in ends[: 1 if line["kind"] in _BLANK else 2]):
                continue
            if line["kind"] in _BLANK:
                empty.add(offsets[line["split"]] + line["index"])
            elif line["kind"] in _PAIRS:
                one, other = sorted(offsets[end["split"]] + end["index"] for end in ends)
                named.add((one, other))
    except (KeyError, TypeError, AttributeError) as e:
        raise DataError(f"{path} is damaged: {type(e).__name__} {e}", next="pack the official files again") from None
    pairs = np.array([pair for pair in sorted(named) if not empty & set(pair)], dtype=np.int64).reshape(-1, 2)
    if pairs.size and not (pairs.min() >= 0 and pairs.max() < starts[-1]):
        raise DataError(f"{path} names a patch that there is not", next="pack the official files again")
    return pairs


def _joined(group: NDArray[np.int64], pairs: NDArray[np.int64]) -> NDArray[np.int64]:
    """(N,) groups numbered anew, those joined that a pair (M, 2) of patches ties together."""
    parent = np.arange(int(group.max()) + 1)

    def root(of: int) -> int:
        while parent[of] != of:
            parent[of] = parent[parent[of]]
            of = int(parent[of])
        return of

    for a, b in group[pairs].tolist():
        one, other = sorted((root(a), root(b)))
        parent[other] = one
    roots = np.array([root(of) for of in range(len(parent))], dtype=np.int64)
    return np.unique(roots[group], return_inverse=True)[1].astype(np.int64)


def _deal(found: _Pool, asked: Mapping[str, float], kind: str, seed: int) -> NDArray[np.uint16]:
    """(N,) the part of every pooled patch, also of those that cannot be used now. Raises DataError where it cannot be done."""
    counts = np.zeros((len(found.names), 2), dtype=np.int64)
    np.add.at(counts, (found.group[found.usable], found.labels[found.usable].astype(np.int64)), 1)
    active = np.flatnonzero(counts.sum(axis=1) > 0)
    what = "fold" if kind == "folds" else "part"
    if len(active) < len(asked):
        raise DataError(
            f"{len(active)} groups cannot be dealt into {len(asked)} {what}s: no group is ever cut",
            valid=f"at most {len(active)} {what}s" if len(active) > 1 else "two groups at least",
        )
    for label, word in enumerate(("normal", "tumour")):
        having = int((counts[:, label] > 0).sum())
        if having < len(asked):
            raise DataError(
                f"a {what} would be without {word} patches (label {label}): {having} of {len(active)} groups hold any, "
                f"and {len(asked)} {what}s need one each",
                valid=f"at most {having} {what}s with these groups" if having > 1 else "data where both classes occur",
                next="use fewer, or groups that are smaller",
            )
    shares = np.array(list(asked.values()))
    # A group of unusable patches alone goes anywhere: with data.quarantine: include it must be somewhere.
    dealt = np.searchsorted(np.cumsum(shares)[:-1], rng.uniform(rng.key(seed, "unusable"), len(counts)), side="right")
    dealt[active] = (
        balance.folds(counts[active], len(asked), seed)
        if kind == "folds"
        else balance.deal(counts[active], shares, seed)
    )
    return dealt[found.group].astype(np.uint16)


def _count(found: _Pool, asked: Mapping[str, float], parts: NDArray[np.uint16]) -> dict[str, Any]:
    """Of each part, over usable patches: how many, which fraction, how many positive, how many groups."""
    counted = {}
    for number, part in enumerate(asked):
        rows = found.usable[parts[found.usable] == number]
        counted[part] = {
            "n": len(rows),
            "fraction": len(rows) / len(found.usable),
            "positive": int(found.labels[rows].sum()),
            "groups": len(np.unique(found.group[rows])),
        }
    return counted


def _warnings(
    found: _Pool, asked: Mapping[str, float], counted: Mapping[str, Any], config: GroupsConfig, kind: str
) -> list[str]:
    warnings = []
    if config.column is None:
        warnings.append(
            "slides are unknown: patches of one slide may stand on both sides, so leakage by slide cannot be excluded. "
            "Where slides or sites are known, name them with --groups"
        )
    sizes = np.bincount(found.group[found.usable], minlength=len(found.names)) / len(found.usable)
    largest, least = int(sizes.argmax()), min(asked.values())
    if sizes[largest] > least:
        warnings.append(
            f"the group {found.names[largest]} holds {sizes[largest]:.1%} of the patches, more than the {least:.1%} "
            "that a part was to have"
        )
    far = [part for part, fraction in asked.items() if abs(counted[part]["fraction"] - fraction) > _FAR]
    what = "fold " if kind == "folds" else ""
    warnings += [
        f"{what}{part} has {counted[part]['fraction']:.1%} of the patches, asked for were {asked[part]:.1%}: "
        "groups are kept whole"
        for part in far
    ]
    total = int(found.labels[found.usable].sum()) / len(found.usable)
    for part, count in counted.items():
        share = count["positive"] / count["n"]
        if abs(share - total) > _FAR:
            warnings.append(f"{what}{part} is {share:.1%} positive, all patches together {total:.1%}")
    return warnings
