"""What a run left on disk, read once for the journal. Absent evidence is None: the page then says "not measured"."""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import ledger
from ..errors import DataError, HistoproofError
from ..evaluate import Predictions, load_predictions
from ..files import read_json, read_lines, sha256_file
from ..runs import Run, open_run
from ..spikes import spikes

__all__ = ["RunEvidence", "read_evidence"]


@dataclass(frozen=True)
class RunEvidence:
    """One run as its folder tells it."""

    path: Path
    config: dict[str, Any]
    config_text: str
    environment: dict[str, Any]
    summary: dict[str, Any] | None
    """None for a run that is not finished."""
    steps: dict[str, NDArray[np.float64]]
    """Columns step, loss, grad_norm, lr, epoch: one value a training step."""
    epochs: list[dict[str, Any]]
    evaluations: dict[str, dict[str, Any]]
    """By split: the JSON of `evaluate`."""
    predictions: dict[str, Predictions]
    seconds: float | None
    """Training and validation time of all epochs, over all starts; None before the first epoch ended."""
    warnings: list[str]
    manifest: dict[str, Any] | None
    """The store's manifest; None where the store is not on this machine."""
    openings: list[dict[str, Any]] | None
    """The ledger's lines; None where the store is not on this machine."""
    ledger_problem: str | None
    spikes: dict[str, Any] | None
    """What `spikes` finds; None where it cannot be had, and then `spikes_problem` says why."""
    spikes_problem: str | None
    files: tuple[Path, ...]
    """Every file that was read."""

    @property
    def name(self) -> str:
        """The run folder's name."""
        return self.path.name

    @property
    def store(self) -> Path:
        """Where the config says the store is."""
        return Path(self.config["data"]["store"])

    @property
    def command(self) -> str:
        """The command that trained it, quoted for a shell."""
        return shlex.join(self.environment.get("command", []))

    @property
    def largest_norm(self) -> tuple[float, int]:
        """(largest gradient norm before clipping, its step)."""
        at = int(np.nanargmax(self.steps["grad_norm"]))
        return float(self.steps["grad_norm"][at]), int(self.steps["step"][at])

    @property
    def spikes_command(self) -> str:
        """The command that finds the spikes."""
        return shlex.join(["histoproof", "spikes", str(self.path)])

    @property
    def ledger_path(self) -> Path:
        """Where the openings of the test split are written."""
        return ledger.path_of(self.store)


def read_evidence(path: Path) -> RunEvidence:
    """Read a run folder. Raises RunError if it is none, DataError if one of its files is damaged."""
    run = open_run(path)
    lines = read_lines(run.metrics)
    splits = [
        split for split in ("valid", "test") if run.evaluation(split).is_file() and run.predictions(split).is_file()
    ]
    config = run.load_config().as_dict()
    times = [event["seconds"] for event in read_lines(run.events) if "seconds" in event]
    summary = run.load_summary() if run.finished else None
    store = Path(config["data"]["store"])
    has_store = (store / "manifest.json").is_file()
    openings, problem = _ledger(store) if has_store else (None, None)
    found, spikes_problem = _spikes(path)
    return RunEvidence(
        path=path,
        config=config,
        config_text=run.config.read_text(encoding="utf-8").rstrip(),
        environment=read_json(run.environment),
        summary=summary,
        steps=_columns([line for line in lines if line["kind"] == "step"]),
        epochs=[line for line in lines if line["kind"] == "epoch"],
        evaluations={split: _evaluation(run, split) for split in splits},
        predictions={split: load_predictions(run.predictions(split)) for split in splits},
        seconds=sum(times) if times else None,
        warnings=summary["warnings"] if summary else [],
        manifest=read_json(store / "manifest.json") if has_store else None,
        openings=openings,
        ledger_problem=problem,
        spikes=found,
        spikes_problem=spikes_problem,
        files=_files(run, splits, store),
    )


def _evaluation(run: Run, split: str) -> dict[str, Any]:
    """A split's scores, held against the predictions beside them."""
    found: dict[str, Any] = read_json(run.evaluation(split))
    if found.get("predictions_sha256") != sha256_file(run.predictions(split)):
        raise DataError(
            f"{run.predictions(split)} is not what {run.evaluation(split).name} was scored from",
            next=f"score it again: `histoproof evaluate {run.path} --split {split}`",
        )
    return found


def _columns(lines: list[dict[str, Any]]) -> dict[str, NDArray[np.float64]]:
    names = ("step", "epoch", "loss", "grad_norm", "lr")
    # null in JSON (a norm that was not finite) becomes NaN, which plots leave out
    return {n: np.array([np.nan if line[n] is None else line[n] for line in lines], dtype=np.float64) for n in names}


def _ledger(store: Path) -> tuple[list[dict[str, Any]], str | None]:
    try:
        return ledger.openings(store), None
    except HistoproofError as e:
        return [], e.problem


def _spikes(path: Path) -> tuple[dict[str, Any] | None, str | None]:
    try:
        return spikes(path), None
    except HistoproofError as e:
        return None, e.problem


def _files(run: Run, splits: list[str], store: Path) -> tuple[Path, ...]:
    paths = [run.config, run.environment, run.metrics, run.trail, run.events, run.summary]
    paths += [path for split in splits for path in (run.evaluation(split), run.predictions(split))]
    paths += [store / "manifest.json", store / "findings.jsonl", ledger.path_of(store)]
    return tuple(path for path in paths if path.is_file())
