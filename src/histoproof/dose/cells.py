"""The grid of a study: its cells, the poisoned stores they train on, and one training each, resumable."""

import hashlib
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ..config import identity, load
from ..data.pack import pack
from ..data.poison import poison
from ..data.poison.spec import PoisonSpec
from ..errors import TrainingError
from ..files import canonical, read_json, write_json
from ..runs import Run
from ..train import resume, train
from .spec import DoseSpec, plant_of

__all__ = ["Cell", "Dataset", "build", "done", "grid", "train_cell"]

Quarantine = Literal["exclude", "include"]
Progress = Callable[..., None]


@dataclass(frozen=True)
class Dataset:
    """One poisoned copy: of a poison ("clean": none), a rate and a seed."""

    poison: str
    rate: float
    seed: int

    @property
    def name(self) -> str:
        """The name of its folder."""
        return f"{self.poison}-{self.rate:g}-s{self.seed}"


@dataclass(frozen=True)
class Cell:
    """One training."""

    model: str
    dataset: Dataset
    quarantine: Quarantine
    digest: str
    """Of everything that decides its result: config, plant, seeds, data."""

    @property
    def name(self) -> str:
        """The name of its run folder and its result."""
        return f"{self.model}-{self.dataset.name}-{self.quarantine}-{self.digest[:10]}"


def grid(spec: DoseSpec, data_digest: str) -> list[Cell]:
    """Every cell, those on one dataset together, the clean ones first."""
    found = []
    for model, arm in spec.models.items():
        chosen = {name: spec.poisons[name] for name in arm.poisons or spec.poisons}
        doses = [("clean", 0.0)] + [(name, rate) for name, p in chosen.items() for rate in arm.rates or p.rates]
        for name, rate in doses:
            plant = plant_of(chosen[name], rate).model_dump(mode="json") if rate else None
            for seed in arm.seeds:
                for quarantine in spec.quarantine:
                    config = load(Path(arm.config), [*arm.set, f"seed={seed}", f"data.quarantine={quarantine}"])
                    facts = [identity(config), plant, spec.seed, seed, data_digest]
                    digest = hashlib.sha256(canonical(facts).encode()).hexdigest()
                    found.append(Cell(model, Dataset(name, rate, seed), quarantine, digest))
    order = list(dict.fromkeys(cell.dataset for cell in found))
    place = {dataset: n for n, dataset in enumerate(sorted(order, key=lambda d: d.rate > 0))}
    return sorted(found, key=lambda cell: place[cell.dataset])


def done(out: Path, cell: Cell) -> dict[str, Any] | None:
    """The result of a finished cell."""
    path = out / "cells" / f"{cell.name}.json"
    return read_json(path) if path.is_file() else None


def build(spec: DoseSpec, data: Path, out: Path, dataset: Dataset) -> tuple[Path, dict[str, Any]]:
    """(the store of a dataset, how much was planted and quarantined). Only train is poisoned; test is not even copied."""
    folder = out / "work" / dataset.name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    plants = [plant_of(spec.poisons[dataset.poison], dataset.rate)] if dataset.rate else []
    # Each seed of training has patches of its own; a higher rate poisons the same ones and more.
    seed = int.from_bytes(hashlib.sha256(f"{spec.seed}/{dataset.seed}".encode()).digest()[:7], "big")
    planted = poison(
        data,
        folder / "files",
        PoisonSpec(seed=seed, splits=["train", "valid"], compression="none", plant=plants),
    )
    packed = pack(folder / "files", folder / "store")
    shutil.rmtree(folder / "files")
    return folder / "store", {
        "kind": plants[0].kind if plants else "clean",
        "n_planted": planted["splits"]["train"]["planted"],
        "n_quarantined": packed["splits"]["train"]["quarantined"],
        "n_quarantined_valid": packed["splits"]["valid"]["quarantined"],
        "n": packed["splits"]["train"]["n"],
    }


def train_cell(
    spec: DoseSpec, out: Path, cell: Cell, store: Path, facts: dict[str, Any], *, keep: bool, progress: Progress | None
) -> dict[str, Any] | None:
    """Train a cell, or go on with it; its result is written into OUT/cells. None if a signal stopped it.

    A training whose loss is no longer finite is a result, too: its AUC is None, and `why` says so.
    """
    run, arm = Run(out / "runs" / cell.name), spec.models[cell.model]
    start = time.monotonic()
    why = None
    try:
        if (run.checkpoints / "last.safetensors").is_file():
            summary = resume(run.path, progress=progress)
        else:
            shutil.rmtree(run.path, ignore_errors=True)
            sets = [*arm.set, f"seed={cell.dataset.seed}", f"data.quarantine={cell.quarantine}", f"data.store={store}"]
            summary = train(Path(arm.config), sets, out=run.path, progress=progress)
    except TrainingError as e:
        if "diverged" not in e.problem:
            raise
        summary, why = {"status": "failed"}, e.problem
    if summary["status"] == "stopped":
        return None
    auc = summary["best"]["intervals"]["auc"] if why is None else {"value": None, "low": None, "high": None}
    result = {
        "model": cell.model,
        "poison": cell.dataset.poison,
        "rate": cell.dataset.rate,
        "seed": cell.dataset.seed,
        "quarantine": cell.quarantine,
        **facts,
        "auc": auc["value"],
        "low": auc["low"],
        "high": auc["high"],
        "why": why or auc.get("why"),
        "run": f"runs/{cell.name}",
        "seconds": round(time.monotonic() - start, 1),
    }
    if not keep and why is None:  # what a finished run needs no more
        for name in ("last", "previous"):
            for path in run.checkpoints.glob(f"{name}.*"):
                path.unlink()
    write_json(out / "cells" / f"{cell.name}.json", result)
    return result
