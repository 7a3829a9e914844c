"""The files of a poisoned split: x, y and meta.csv, written block by block after a plan."""

import csv
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np
from numpy.typing import NDArray

from ... import rng
from ...errors import DataError
from ..pcam import SplitName, meta_columns, official_name, read_meta
from ..truth import Truth
from .pixels import write_x
from .plan import Change, SplitPlan
from .spec import (
    BadLabel,
    ClassImbalance,
    GroupOverlap,
    LabelFlip,
    LengthMismatch,
    PoisonSpec,
    Truncated,
    WholeFile,
    WrongShape,
)

__all__ = ["write_split"]

_TRUTH_KIND = {"label_flip": "label_suspect"}

Plans = dict[SplitName, SplitPlan]


def write_split(
    plans: Plans,
    plan: SplitPlan,
    spec: PoisonSpec,
    folder: Path,
    copies: BinaryIO,
    tick: Callable[[int], None],
) -> list[Truth]:
    """Write x, y and meta.csv of one split into `folder`; returns what was planted. `copies`: the pixels of its copies."""
    here = [plant for plant in spec.plant if getattr(plant, "split", None) == plan.name]
    truth = _of_whole_split(plan, spec, here)
    write_x(plan, spec, folder, copies, tick)
    if plan.source.y is not None:
        _write_y(plans, plan, here, folder)
    truth += _write_meta(plans, plan, spec, here, folder)
    for target, change in plan.changes.items():
        kind = _TRUTH_KIND.get(change.plant.kind, change.plant.kind)
        other_split, other_index = change.source or (None, None)
        truth.append(Truth(kind, plan.name, target, other_split, other_index, change.detail))
    for plant in here:
        if isinstance(plant, Truncated):
            truth.append(_truncate(plan, plant, folder))
    return truth


def _of_whole_split(plan: SplitPlan, spec: PoisonSpec, here: list[Any]) -> list[Truth]:
    found = []
    bloated = spec.dtype == "float32" and plan.source.dtype == "uint8"
    if bloated or any(isinstance(plant, WholeFile) for plant in here):
        found.append(Truth("dtype_bloat", plan.name, None, detail=f"{plan.dtype} where uint8 would do"))
    for plant in here:
        if isinstance(plant, ClassImbalance):
            detail = f"{plan.n} of {plan.source.n} patches left, {plant.of} ones {plant.ratio:g} of them"
            found.append(Truth(plant.kind, plan.name, None, detail=detail))
        elif isinstance(plant, LengthMismatch):
            found.append(Truth(plant.kind, plan.name, None, detail=f"the last {plant.by} labels are missing"))
        elif isinstance(plant, WrongShape):
            found.append(Truth(plant.kind, plan.name, None, detail=plant.how))
    return found


def _write_y(plans: Plans, plan: SplitPlan, here: list[Any], folder: Path) -> None:
    assert plan.source.y is not None
    with h5py.File(plan.source.y, "r") as file:
        y = file["y"]
        values = y[...][plan.rows]
        options = {"compression": y.compression, "compression_opts": y.compression_opts} if y.chunks else {}
    most = max((plant.value for plant in here if isinstance(plant, BadLabel)), default=0)
    if values.dtype.kind in "bi" and most > (1 if values.dtype.kind == "b" else np.iinfo(values.dtype).max):
        values = values.astype(np.uint8)
    flat = values.reshape(-1)
    for target, change in plan.changes.items():
        _poison_label(flat, target, change, plans)
    short = sum(plant.by for plant in here if isinstance(plant, LengthMismatch))
    if short >= len(values):
        raise DataError(f"{plan.name}: length_mismatch by {short} leaves no label of {len(values)}")
    with h5py.File(folder / official_name(plan.name, "y.h5"), "w") as file:
        file.create_dataset("y", data=values[: len(values) - short], **options)


def _poison_label(flat: NDArray[Any], target: int, change: Change, plans: Plans) -> None:
    plant = change.plant
    if change.source is not None:
        labels = plans[change.source[0]].labels
        assert labels is not None
        label = labels[change.source[1]]
        flat[target] = 1 - label if plant.kind == "label_conflict" else label
    elif isinstance(plant, LabelFlip):
        change.detail = f"label {flat[target]:g} became {1 - float(flat[target]):g}"
        flat[target] = 1 - float(flat[target])
    elif isinstance(plant, BadLabel):
        change.detail = f"label {flat[target]:g} became {plant.value}"
        flat[target] = plant.value


def _write_meta(plans: Plans, plan: SplitPlan, spec: PoisonSpec, here: list[Any], folder: Path) -> list[Truth]:
    """Copy meta.csv; byte by byte unless rows are left out or slides renamed."""
    renamed: dict[str, str] = {}
    truth = []
    for plant in here:
        if isinstance(plant, GroupOverlap):
            new = _renamed_slides(plans, plan, plant, rng.key(spec.seed, "poison", plant.kind, plan.name), renamed)
            renamed |= new
            for old, name in new.items():
                truth.append(Truth(plant.kind, plan.name, None, plant.source, None, f"wsi {old} became {name}"))
    if plan.source.meta is None:
        return truth
    path = folder / official_name(plan.name, "meta.csv")
    if not renamed and plan.n == plan.source.n:
        shutil.copyfile(plan.source.meta, path)
        return truth
    columns = meta_columns(plan.source.meta)
    kept = np.zeros(plan.source.n, dtype=np.bool_)
    kept[plan.rows] = True
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        for row, keep in zip(read_meta(plan.source.meta, plan.source.n), kept, strict=True):
            if keep:
                values = {**row, "wsi": renamed.get(row.get("wsi") or "", row.get("wsi"))} if renamed else row
                writer.writerow([values.get(column) or "" for column in columns])
    return truth


def _renamed_slides(
    plans: Plans, plan: SplitPlan, plant: GroupOverlap, key: int, taken: dict[str, str]
) -> dict[str, str]:
    """{a slide of the split: the slide of the other split that it is called from now on}."""
    mine, theirs = (sorted(_slides(p) - set(taken) - set(taken.values())) for p in (plan, plans[plant.source]))
    theirs = [name for name in theirs if name not in mine]
    if min(len(mine), len(theirs)) < plant.slides:
        raise DataError(
            f"group_overlap: {plan.name} has {len(mine)} slides (wsi) to rename, {plant.source} {len(theirs)} to name them after",
            valid=f"at least {plant.slides} each, in the meta.csv of both splits",
        )
    old = rng.permutation(rng.key(key, "old"), len(mine))[: plant.slides]
    new = rng.permutation(rng.key(key, "new"), len(theirs))[: plant.slides]
    return {mine[a]: theirs[b] for a, b in zip(old, new, strict=True)}


def _slides(plan: SplitPlan) -> set[str]:
    if plan.source.meta is None:
        raise DataError(f"group_overlap: the {plan.name} split has no meta.csv", next="leave group_overlap out")
    return {row["wsi"] for row in read_meta(plan.source.meta, plan.source.n) if row.get("wsi")}


def _truncate(plan: SplitPlan, plant: Truncated, folder: Path) -> Truth:
    path = folder / official_name(plan.name, "meta.csv" if plant.file == "meta" else f"{plant.file}.h5")  # type: ignore[arg-type]
    if not path.is_file():
        raise DataError(f"truncated_file: the {plan.name} split has no {path.name}")
    size = path.stat().st_size
    left = int(size * plant.at)
    with path.open("r+b") as file:
        file.truncate(left)
    return Truth(plant.kind, plan.name, None, detail=f"{path.name} cut to {left} of {size} bytes")
