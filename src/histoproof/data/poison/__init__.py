"""A poisoned copy of official files, and its truth: what was planted, where.

The audit's precision and recall are measured against it. Pixels stream block by block; a patch carries at most one
planted fault, and what a copy is made of is itself untouched, so that the truth is exact.
"""

import csv
import io
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import astuple, fields
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np
from numpy.typing import NDArray

from ... import __version__, rng
from ...errors import DataError
from ...files import check_space, new_folder, write_json, write_text
from ...specfile import read_spec
from ..pcam import PATCH_SHAPE, SplitName, find_splits
from ..pixels import as_uint8
from ..truth import Truth
from . import faults
from .files import write_split
from .pixels import ROWS
from .plan import Change, SplitPlan, copy_plants, make_plan, take_sources
from .spec import Copy, CrossCopy, NearCopy, PoisonSpec, SplitSwapped

__all__ = ["TRUTH_COLUMNS", "poison", "read_poison_spec"]

TRUTH_COLUMNS = tuple(f.name for f in fields(Truth))
"""kind, split, index, other_split, other_index, detail."""
_PATCH_BYTES = int(np.prod(PATCH_SHAPE))

Plans = dict[SplitName, SplitPlan]


def read_poison_spec(path: Path) -> PoisonSpec:
    """A spec from a YAML file. Raises ConfigError naming line, key and what is valid."""
    return read_spec(path, PoisonSpec)


def poison(
    source: Path, out: Path, spec: Path | PoisonSpec, *, progress: Callable[[int, int], None] | None = None
) -> dict[str, Any]:
    """Write a copy of the official files in `source` with planted faults into the new folder `out`; whole or not at all.

    `spec` is a YAML file (docs/poison.md) or a PoisonSpec. Besides the files, `out` holds truth.csv (kind, split, index,
    other_split, other_index, detail: one line a planted fault, rows as in the copy) and poison.json (the resolved spec).
    Same spec and same source give the same arrays. A copy takes its source's label, a label_conflict the opposite one;
    rows of meta.csv stay where they are. Memory does not grow with the number of patches.

    Returns {"out", "truth", "seed", "splits": {split: {"n", "dtype", "planted"}}, "planted": {kind: n}, "notes"}. Raises
    ConfigError for the spec, DataError for files that cannot be read or faults they have no room for, OutputError for `out`.
    """
    resolved = read_poison_spec(spec) if isinstance(spec, Path) else spec
    plans, notes = make_plan(find_splits(source), resolved)
    check_space(out, _bytes_needed(plans))
    total, done = sum(plan.n + plan.copies for plan in plans.values()), 0

    def tick(patches: int) -> None:
        nonlocal done
        done += patches
        if progress:
            progress(done, total)

    with new_folder(out, what="poisoned copy") as folder:
        _make_copies(plans, resolved, folder, tick)
        truth: list[Truth] = []
        for plan in plans.values():
            with _waiting(folder, plan).open("rb") as copies:
                truth += write_split(plans, plan, resolved, folder, copies, tick)
            _waiting(folder, plan).unlink()
        truth += _swapped(plans, resolved)
        _write_truth(folder / "truth.csv", truth, list(plans))
        report = _report(out, plans, resolved, truth, notes)
        write_json(
            folder / "poison.json",
            {
                "histoproof": __version__,
                "source": str(source),
                "spec": resolved.model_dump(mode="json", by_alias=True),
                **{name: report[name] for name in ("splits", "planted", "notes")},
            },
        )
    return report


def _bytes_needed(plans: Plans) -> int:
    """What the files need at most, with the copies that wait beside them."""
    sizes = (plan.n * np.dtype(plan.dtype).itemsize + plan.copies for plan in plans.values())
    return int(sum(sizes) * _PATCH_BYTES * 1.02) + 1_000_000


def _waiting(folder: Path, plan: SplitPlan) -> Path:
    """Where the pixels of a split's copies wait to be written, one after the other."""
    return folder / f".copies-{plan.name}"


def _make_copies(plans: Plans, spec: PoisonSpec, folder: Path, tick: Callable[[int], None]) -> None:
    """Choose what each copy is made of, and put the copies' pixels aside."""
    with ExitStack() as stack:
        files = {name: stack.enter_context(_waiting(folder, plan).open("wb")) for name, plan in plans.items()}
        _fill(plans, spec, files, tick)


def _fill(plans: Plans, spec: PoisonSpec, files: Mapping[SplitName, BinaryIO], tick: Callable[[int], None]) -> None:
    used = dict.fromkeys(files, 0)
    for plant, key in copy_plants(spec):
        plan, from_plan = plans[plant.split], plans[plant.source or plant.split]
        if (plan.labels is None) != (from_plan.labels is None):
            raise DataError(f"{plant.kind}: {plan.name} and {from_plan.name} must both have labels, or neither")
        open_targets = [target for target, change in plan.changes.items() if change.plant_key == key]
        sources = take_sources(plans, plant, key)
        while open_targets:  # a patch that cannot be copied (blank, say) leaves its target open for another round
            pairs = sorted((next(sources), target) for target in open_targets)
            open_targets = []
            for start in range(0, len(pairs), ROWS):
                part = pairs[start : start + ROWS]
                pixels = _read_rows(from_plan, [row for row, _ in part])
                for (row, target), patch in zip(part, pixels, strict=True):
                    change = plan.changes[target]
                    made = _copied(patch, plant, change.key)
                    if made is None:
                        open_targets.append(target)
                        continue
                    pixels_made, detail = made
                    files[plan.name].write(pixels_made.tobytes())
                    slot = used[plan.name]
                    plan.changes[target] = Change(plant, key, change.key, (from_plan.name, row), slot, detail)
                    used[plan.name] += 1
                    tick(1)


def _read_rows(plan: SplitPlan, rows: list[int]) -> NDArray[np.generic]:
    """Pixels of some rows (rising) of a split as it will be written, before poisoning."""
    with h5py.File(plan.source.x, "r") as file:
        try:
            found: NDArray[np.generic] = file["x"][plan.rows[rows]]
        except OSError as e:
            raise DataError(
                f"{plan.source.x}: patches {rows[0]} to {rows[-1]} cannot be read ({e})", next="fetch it again"
            ) from None
        return found


def _copied(
    patch: NDArray[np.generic], plant: Copy | CrossCopy | NearCopy, key: int
) -> tuple[NDArray[np.uint8], str] | None:
    """(the copy, what was done); None for a patch that proves nothing when copied: faulty, or equal to its own mirror image."""
    pixels, exact = as_uint8(patch[None])
    original = pixels[0]
    if not exact[0] or not faults.distinct(original):
        return None
    if isinstance(plant, NearCopy):
        made, detail = faults.near_copy(original, plant, key)
        return None if np.array_equal(made, original) else (made, detail)
    if plant.kind == "duplicate_dihedral":
        return faults.dihedral(original, 1 + int(rng.uniform(key, 1)[0] * 7))
    return original, "the label is the opposite" if plant.kind == "label_conflict" else ""


def _swapped(plans: Plans, spec: PoisonSpec) -> list[Truth]:
    if not any(isinstance(plant, SplitSwapped) for plant in spec.plant):
        return []
    return [
        Truth("split_swapped", a, None, b, None, f"the files of {b}")
        for a, b in (("valid", "test"), ("test", "valid"))
        if a in plans
    ]


def _write_truth(path: Path, truth: list[Truth], splits: list[SplitName]) -> None:
    order = {name: place for place, name in enumerate(splits)}
    rows = sorted(truth, key=lambda t: (order[t.split], -1 if t.index is None else t.index))  # type: ignore[index]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(TRUTH_COLUMNS)
    writer.writerows(["" if value is None else value for value in astuple(row)] for row in rows)
    write_text(path, text.getvalue())


def _report(out: Path, plans: Plans, spec: PoisonSpec, truth: list[Truth], notes: list[str]) -> dict[str, Any]:
    kinds = [row.kind for row in truth]
    return {
        "out": str(out),
        "truth": str(out / "truth.csv"),
        "seed": spec.seed,
        "splits": {
            name: {"n": plan.n, "dtype": plan.dtype, "planted": sum(row.split == name for row in truth)}
            for name, plan in plans.items()
        },
        "planted": {kind: kinds.count(kind) for kind in dict.fromkeys(kinds)},
        "notes": notes,
    }
