"""Which patches get which fault: drawn from keys, before any pixel is written, so that no patch carries two."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ... import rng
from ...errors import DataError
from ..pcam import SourceSplit, SplitName, read_labels
from .spec import (
    BadLabel,
    ClassImbalance,
    Copy,
    CrossCopy,
    LabelFlip,
    NearCopy,
    NonInteger,
    OutOfRange,
    PatchPlant,
    PoisonSpec,
    SplitSwapped,
    Values,
    WholeFile,
)

__all__ = ["Change", "SplitPlan", "copy_plants", "make_plan", "take_sources"]

Ints = NDArray[np.int64]


@dataclass
class Change:
    """One patch to change: its plant, its key, and for copies which patch is copied and where its pixels wait."""

    plant: Any
    """A PatchPlant."""
    plant_key: int
    """The plant's key: equal plants have unequal ones."""
    key: int
    source: tuple[SplitName, int] | None = None
    slot: int | None = None
    detail: str = ""


@dataclass
class SplitPlan:
    """One split as it will be written. Rows are those of the new file."""

    name: SplitName
    source: SourceSplit
    """Where its patches come from: another split's files after split_swapped."""
    rows: Ints
    """(N,) the source's rows that are written, rising: all of them but for class_imbalance."""
    labels: NDArray[np.float64] | None
    """(N,) labels before poisoning."""
    dtype: str
    free: NDArray[np.bool_]
    """(N,) patches that no plant uses so far, neither as target nor as the source of a copy."""
    changes: dict[int, Change] = field(default_factory=dict)
    copies: int = 0
    """How many of the changes are copies."""

    @property
    def n(self) -> int:
        """Patches that are written."""
        return len(self.rows)


def make_plan(found: list[SourceSplit], spec: PoisonSpec) -> tuple[dict[SplitName, SplitPlan], list[str]]:
    """(plans by split with every target drawn, notes on what the spec implied). Raises DataError for what cannot be planted."""
    sources = _chosen(found, spec)
    for plant in spec.plant:
        for split in {getattr(plant, "split", None), getattr(plant, "source", None)} - {None, *sources}:
            raise DataError(
                f"{plant.kind}: there is no {split} split to poison",
                valid=", ".join(sources),
                next="correct the spec's split or from, or add the split's files",
            )
    plans, notes = {}, []
    for name, source in sources.items():
        dtype, note = _dtype(name, source, spec)
        notes += note
        labels = read_labels(source)
        rows = _kept_rows(name, source.n, labels, spec)
        kept = None if labels is None else labels[rows]
        plans[name] = SplitPlan(name, source, rows, kept, dtype, np.ones(len(rows), dtype=np.bool_))
    for plant, key in _keyed(spec):
        _draw_targets(plans[plant.split], plant, key)
    return plans, notes


def copy_plants(spec: PoisonSpec) -> Iterator[tuple[Copy | CrossCopy | NearCopy, int]]:
    """The plants that copy another patch, each with its key."""
    for plant, key in _keyed(spec):
        if isinstance(plant, Copy | CrossCopy | NearCopy):
            yield plant, key


def take_sources(plans: dict[SplitName, SplitPlan], plant: Copy | CrossCopy | NearCopy, key: int) -> Iterator[int]:
    """Rows that may be copied, in a random order: untouched, of the wanted label. Each becomes taken when it is drawn."""
    plan = plans[plant.source or plant.split]
    for row in rng.permutation(rng.key(key, "sources"), plan.n):
        if plan.free[row] and _has_label(plan, plant, int(row)):
            plan.free[row] = False
            yield int(row)
    raise DataError(
        f"{plan.name}: not enough patches to copy for {plant.kind}: every copy takes an untouched patch of its own"
        + ("" if plant.of == "any" else f", here a {plant.of} one"),
        valid="targets and copied patches together are at most all patches of the split",
        next="lower the rates or counts of the spec",
    )


def _chosen(found: list[SourceSplit], spec: PoisonSpec) -> dict[SplitName, SourceSplit]:
    sources = {s.name: s for s in found if spec.splits is None or s.name in spec.splits}
    missing = set(spec.splits or ()) - set(sources)
    if missing:
        raise DataError(f"there is no {', '.join(sorted(missing))} split", valid=", ".join(s.name for s in found))
    if any(isinstance(plant, SplitSwapped) for plant in spec.plant):
        if not {"valid", "test"} <= set(sources):
            raise DataError("split_swapped exchanges valid and test: both must be there", valid=", ".join(sources))
        sources["valid"], sources["test"] = sources["test"], sources["valid"]
    return sources


def _dtype(name: SplitName, source: SourceSplit, spec: PoisonSpec) -> tuple[str, list[str]]:
    wanted = source.dtype if spec.dtype == "keep" else spec.dtype
    here = [plant for plant in spec.plant if getattr(plant, "split", None) == name]
    forcing = sorted({plant.kind for plant in here if isinstance(plant, Values | OutOfRange | NonInteger)})
    if wanted == "uint8" and forcing:
        return "float32", [f"{name}: written as float32, as uint8 cannot hold {', '.join(forcing)}"]
    if wanted == "uint8" and any(isinstance(plant, WholeFile) for plant in here):
        return "float32", []
    return wanted, []


def _kept_rows(name: SplitName, n: int, labels: NDArray[np.float64] | None, spec: PoisonSpec) -> Ints:
    """All rows, or those that class_imbalance leaves."""
    rows = np.arange(n, dtype=np.int64)
    plants = [plant for plant in spec.plant if isinstance(plant, ClassImbalance) and plant.split == name]
    if not plants:
        return rows
    if len(plants) > 1:
        raise DataError(f"{name}: class_imbalance is planted {len(plants)} times", valid="once a split")
    plant = plants[0]
    if labels is None:
        raise DataError(f"{name}: class_imbalance needs labels, and there is no y file")
    rare = labels == (1 if plant.of == "positive" else 0)
    keep = round(plant.ratio * int((~rare).sum()) / (1 - plant.ratio))
    if not 0 < keep < int(rare.sum()):
        raise DataError(
            f"{name}: {plant.of} patches are {rare.mean():.3f} of the split: a ratio of {plant.ratio:g} would leave {keep}",
            valid="a ratio below what is there, that leaves at least one patch",
        )
    key = rng.key(spec.seed, "poison", plant.kind, name)
    members = np.flatnonzero(rare)
    chosen = members[rng.permutation(key, len(members))[:keep]]
    return np.sort(np.concatenate([np.flatnonzero(~rare), chosen])).astype(np.int64)


def _keyed(spec: PoisonSpec) -> Iterator[tuple[Any, int]]:
    """The plants of single patches with their keys: of (seed, kind, split, how many like it came before), so that adding
    another plant changes no other key, and a higher rate changes the same patches and more."""
    seen: Counter[tuple[str, str]] = Counter()
    for plant in spec.plant:
        if isinstance(plant, PatchPlant):
            kind = str(getattr(plant, "kind", ""))
            yield plant, rng.key(spec.seed, "poison", kind, plant.split, seen[kind, plant.split])
            seen[kind, plant.split] += 1


def _draw_targets(plan: SplitPlan, plant: Any, key: int) -> None:
    copies = isinstance(plant, Copy | CrossCopy | NearCopy)
    labelled = isinstance(plant, LabelFlip | BadLabel) or plant.of != "any" or plant.kind == "label_conflict"
    if labelled and plan.labels is None:
        raise DataError(f"{plan.name}: {plant.kind} needs labels, and there is no y file")
    amount = plant.count if plant.count is not None else max(1, round(plant.rate * plan.n))
    order = rng.permutation(rng.key(key, "targets"), plan.n)
    allowed = plan.free[order]
    if not copies and labelled:
        allowed &= _right_label(plan, plant)[order]
    targets = order[allowed][:amount]
    if len(targets) < amount:
        raise DataError(
            f"{plan.name}: {plant.kind} is to change {amount} patches, but only {len(targets)} suitable ones of {plan.n} are "
            "untouched by the plants before it",
            valid="at most one fault a patch",
            next="lower the rates or counts of the spec",
        )
    plan.free[targets] = False
    for target in targets:
        plan.changes[int(target)] = Change(plant, key, rng.key(key, "patch", int(target)))
    plan.copies += amount if copies else 0


def _right_label(plan: SplitPlan, plant: Any) -> NDArray[np.bool_]:
    assert plan.labels is not None
    if plant.of == "any":
        known: NDArray[np.bool_] = (plan.labels == 0) | (plan.labels == 1)
        return known
    right: NDArray[np.bool_] = plan.labels == (1 if plant.of == "positive" else 0)
    return right


def _has_label(plan: SplitPlan, plant: Any, row: int) -> bool:
    if plan.labels is None:
        if plant.of != "any" or plant.kind == "label_conflict":
            raise DataError(f"{plan.name}: {plant.kind} needs the label of the patch copied, and there is no y file")
        return True
    return bool(_label_fits(float(plan.labels[row]), plant.of))


def _label_fits(label: float, of: str) -> bool:
    return label in ((0, 1) if of == "any" else (1,) if of == "positive" else (0,))
