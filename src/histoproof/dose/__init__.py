"""Dose-response: valid AUC against the rate of each poison in train, with and without quarantine. Does it earn its keep?"""

import hashlib
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..compute import pick_device
from ..config import load
from ..data.groups import group_labels
from ..data.pcam import find_splits
from ..data.store import open_store
from ..errors import DataError, OutputError, writing
from ..evaluate import Predictions, load_predictions
from ..files import canonical, read_json, sha256_file, write_json
from ..provenance import environment
from ..runs import Run, locked
from .cells import Cell, build, done, grid, train_cell
from .numbers import differences, points
from .spec import DoseSpec, read_dose_spec

__all__ = ["dose", "in_words"]

_ROW = (
    "kind",
    "poison",
    "rate",
    "quarantine",
    "model",
    "seed",
    "auc",
    "low",
    "high",
    "n_planted",
    "n_quarantined",
    "run",
    "why",
)


def dose(
    spec: Path,
    data: Path,
    out: Path,
    *,
    keep: bool = False,
    say: Callable[[str], None] = lambda _: None,
    progress: Callable[..., None] | None = None,
) -> dict[str, Any]:
    """Run the study that `spec` describes on the official files in `data`, into the folder `out`, or go on with it.

    Each cell poisons train, packs, and trains a normal run in OUT/runs; valid stays clean, test is not read. Finished cells
    are skipped, a cut one is resumed. Poisoned copies, stores and all checkpoints but the best are deleted after use unless
    `keep`. `say` gets the estimate before anything starts, and a line a dataset.

    Writes OUT/dose.json and returns it: {"spec", "rows": [{kind, poison, rate, quarantine, model, seed, auc, low, high,
    n_planted, n_quarantined, run}], "points": means over seeds with intervals, "differences": AUC with quarantine less without, a
    paired 95 % interval and a verdict, "words", "environment"}; or {"status": "stopped", ...} when a signal asked it to stop.
    Where nothing was quarantined, both settings are one training. Raises ConfigError, DataError, OutputError.
    """
    study = read_dose_spec(spec)
    facts = _sources(data)
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    _check_place(out, facts)
    with locked(out):
        write_json(out / "study.json", {"data": facts})
        cells = grid(study, hashlib.sha256(canonical(facts["files"]).encode()).hexdigest())
        say(_estimate(study, out, cells))
        rows = _run_all(study, data, out, cells, keep, say, progress)
        if rows is None:
            finished = sum(done(out, cell) is not None for cell in cells)
            return {"status": "stopped", "out": str(out), "done": finished, "cells": len(cells)}
        return _conclude(study, spec, data, out, rows)


def _sources(data: Path) -> dict[str, Any]:
    """Which files the study is of, by their digests."""
    splits = {split.name: split for split in find_splits(data)}
    for name in ("train", "valid"):
        if name not in splits or splits[name].y is None:
            raise DataError(f"{data} holds no {name} split with labels", valid="train and valid, x and y")
    paths = [p for name in ("train", "valid") for p in (splits[name].x, splits[name].y, splits[name].meta) if p]
    return {"folder": str(data), "files": [{"name": p.name, "sha256": sha256_file(p)} for p in paths]}


def _check_place(out: Path, facts: dict[str, Any]) -> None:
    if (out / "study.json").is_file():
        if read_json(out / "study.json").get("data", {}).get("files") != facts["files"]:
            raise OutputError(f"{out} holds a study of other data", next="give another --out")
    elif any(path.name != ".lock" for path in out.iterdir()):
        raise OutputError(f"{out} holds other files", next="give a new folder with --out")


def _estimate(study: DoseSpec, out: Path, cells: Sequence[Cell]) -> str:
    """How many trainings are left, and how long they take: by the finished ones of this model, else by the spec."""
    left = [cell for cell in cells if done(out, cell) is None]
    parts, total, unknown = [], 0.0, False
    for model, arm in study.models.items():
        count = sum(cell.model == model for cell in left)
        measured = [r["seconds"] for cell in cells if cell.model == model and (r := done(out, cell)) is not None]
        seconds = fmean(measured) if measured else arm.seconds
        unknown |= seconds is None and count > 0
        total += count * (seconds or 0)
        each = (
            "an unknown time" if seconds is None else f"{seconds:.0f} s ({'measured' if measured else 'by the spec'})"
        )
        parts.append(f"{model}: {count} of {each}")
    copies = len({cell.dataset for cell in left})
    return (
        f"{len(left)} trainings left of {len(cells)} ({'; '.join(parts)}) on {copies} poisoned copies: "
        f"about {total / 60:.0f} minutes{' and what is unknown' if unknown else ''}, copying and packing aside; "
        "fewer where nothing is quarantined, as both settings are one training then"
    )


def _run_all(
    study: DoseSpec,
    data: Path,
    out: Path,
    cells: Sequence[Cell],
    keep: bool,
    say: Callable[[str], None],
    progress: Callable[..., None] | None,
) -> list[dict[str, Any]] | None:
    rows: list[dict[str, Any]] = []
    for number, dataset in enumerate(dict.fromkeys(cell.dataset for cell in cells), start=1):
        mine = [cell for cell in cells if cell.dataset == dataset]
        if all(done(out, cell) for cell in mine):
            rows += [result for cell in mine if (result := done(out, cell))]
            continue
        say(f"copy {number} of {len({cell.dataset for cell in cells})}: {dataset.name}")
        store, facts = build(study, data, out, dataset)
        for cell in mine:
            result = done(out, cell) or _shared(out, cell, mine, facts)
            if result is None:
                result = train_cell(study, out, cell, store, facts, keep=keep, progress=progress)
            if result is None:
                return None
            _keep_groups(study, out, cell, store)
            rows.append(result)
        if not keep:
            shutil.rmtree(out / "work" / dataset.name)
    if not keep:
        shutil.rmtree(out / "work", ignore_errors=True)
    return rows


def _shared(out: Path, cell: Cell, mine: Sequence[Cell], facts: dict[str, Any]) -> dict[str, Any] | None:
    """Where nothing was quarantined, to exclude and to include is the same training: the other's result, if there is one."""
    if facts["n_quarantined"] or facts["n_quarantined_valid"]:
        return None
    others = (done(out, other) for other in mine if other.model == cell.model and other != cell)
    found = next((result for result in others if result), None)
    if found is not None:
        found = {**found, "quarantine": cell.quarantine}
        write_json(out / "cells" / f"{cell.name}.json", found)
    return found


def _keep_groups(study: DoseSpec, out: Path, cell: Cell, store: Path) -> None:
    """The groups of valid, for the intervals; the store will be gone by then."""
    path = out / "groups" / f"{cell.model}.json"
    if not path.is_file():
        arm = study.models[cell.model]
        found = group_labels(open_store(store), "valid", load(Path(arm.config), arm.set).evaluate.groups)
        write_json(path, None if found is None else found.tolist())


def _conclude(study: DoseSpec, spec: Path, data: Path, out: Path, rows: list[dict[str, Any]]) -> dict[str, Any]:
    compared, drawn = [], []
    for model in study.models:
        groups = read_json(out / "groups" / f"{model}.json")
        named: NDArray[np.str_] | None = None if groups is None else np.array(groups, dtype=np.str_)
        mine = [row for row in rows if row["model"] == model]
        read = _reader(out)
        drawn += points(mine, read, groups=named, replicates=study.replicates, seed=study.seed)
        compared += differences(mine, read, groups=named, replicates=study.replicates, seed=study.seed)
    for row in compared:
        row["words"] = in_words(row)
    device = pick_device(load(Path(next(iter(study.models.values())).config)).train.device)
    result = {
        "status": "finished",
        "out": str(out),
        "data": str(data),
        "spec_file": str(spec),
        "spec": study.model_dump(mode="json"),
        "rows": [{name: row[name] for name in _ROW} for row in rows],
        "points": drawn,
        "differences": compared,
        "environment": environment(device.type),
    }
    write_json(out / "dose.json", result)
    return result


def _reader(out: Path) -> Callable[[dict[str, Any]], Predictions]:
    kept: dict[str, Predictions] = {}

    def read(row: dict[str, Any]) -> Predictions:
        if row["run"] not in kept:
            kept[row["run"]] = load_predictions(Run(out / row["run"]).predictions("valid"))
        return kept[row["run"]]

    return read


def in_words(row: dict[str, Any]) -> str:
    """The verdict on one poison and rate, as a sentence."""
    head = f"{row['model']}, {row['poison']} at {row['rate']:.1%}"
    number = f"{row['value']:+.4f} ({row['low']:+.4f} to {row['high']:+.4f})"
    seeds = f"{len(row['seeds'])} seed{'s' if len(row['seeds']) > 1 else ''}"
    said = {
        "earns": f"the quarantine earns its keep: AUC {number}",
        "costs": f"the quarantine costs: AUC {number}",
        "honest": f"without quarantine the leak flatters the score: AUC {number}; the lower one is the honest one",
        "open": f"no difference can be shown: AUC {number}",
        "blind": f"nothing of the {row['n_planted']} planted was quarantined: it makes no difference",
    }
    return f"{head}: {said[row['verdict']]} ({seeds})"
