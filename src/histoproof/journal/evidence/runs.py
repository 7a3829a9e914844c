"""What a run left on disk, read once for the journal. Absent evidence is None: the page then says "not measured"."""

import math
import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import DataError, HistoproofError, RunError
from ...evaluate import Predictions, load_predictions
from ...experiment import config_digest
from ...files import read_json, read_lines, sha256_file
from ...metrics import score
from ...runs import Run, open_run, trail_end
from ...spikes import spikes

__all__ = ["RunEvidence", "read_run"]


@dataclass(frozen=True)
class RunEvidence:
    """One run as its folder tells it."""

    id: str
    """r1, r2, ...: names its parts on the page."""
    name: str
    """The run folder's name; with its parent's where another run of the page is called so."""
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
    """Training and validation time that was written down, over all starts (a kill loses what came since the last line); None
    before the first epoch ended."""
    warnings: list[str]
    problems: list[str]
    """Where the evidence contradicts itself: then its numbers prove nothing."""
    manifest: dict[str, Any] | None
    """The store's manifest; None where the store is not on this machine."""
    speeds: list[float]
    """Patches a second of each epoch, with validation and checkpoints in it."""
    spikes: dict[str, Any] | None
    """What `spikes` finds; None where it cannot be had, and then `spikes_problem` says why."""
    spikes_problem: str | None
    files: tuple[Path, ...]
    """Every file that was read."""

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


def read_run(path: Path, id_: str, name: str) -> RunEvidence:
    """Read a run folder. Raises RunError if it is none, DataError if one of its files is damaged."""
    run = open_run(path)
    try:
        return replace(_read(run, path), id=id_, name=name)
    except (KeyError, TypeError, AttributeError, IndexError, ValueError) as e:
        raise DataError(
            f"{path} holds damaged evidence: {type(e).__name__} {e}", next="train or evaluate it again"
        ) from e


def _read(run: Run, path: Path) -> RunEvidence:
    lines = read_lines(run.metrics)
    splits = [
        split for split in ("valid", "test") if run.evaluation(split).is_file() and run.predictions(split).is_file()
    ]
    config = run.load_config().as_dict()
    events = read_lines(run.events)
    times = [event["seconds"] for event in events if "seconds" in event]
    summary = run.load_summary() if run.finished else None
    store = Path(config["data"]["store"])
    has_store = (store / "manifest.json").is_file()
    found, spikes_problem = _spikes(path)
    return RunEvidence(
        id="",
        name=path.name,
        path=path,
        config=config,
        config_text=run.config.read_text(encoding="utf-8").rstrip(),
        environment=read_json(run.environment),
        summary=summary,
        steps=_columns([line for line in lines if line["kind"] == "step"]),
        epochs=[line for line in lines if line["kind"] == "epoch"],
        evaluations={split: read_json(run.evaluation(split)) for split in splits},
        predictions={split: load_predictions(run.predictions(split)) for split in splits},
        seconds=sum(times) if times else None,
        warnings=summary["warnings"] if summary else [],
        problems=_contradictions(run, summary, lines, splits),
        manifest=read_json(store / "manifest.json") if has_store else None,
        speeds=[e["patches"] / e["seconds"] for e in events if e["event"] == "epoch" and e["seconds"] > 0],
        spikes=found,
        spikes_problem=spikes_problem,
        files=_files(run, splits, store),
    )


def _contradictions(
    run: Run, summary: dict[str, Any] | None, lines: list[dict[str, Any]], splits: list[str]
) -> list[str]:
    """Hold the files against each other: trail and summary, metrics and trail, config and trail, scores and predictions."""
    problems: list[str] = []
    try:
        end = trail_end(run.trail)
    except RunError as e:
        return [e.problem]
    trail = read_lines(run.trail)
    if summary and end != summary["trail_sha256"]:
        problems.append(f"{run.trail} does not end in the trail_sha256 of summary.json")
    if trail and trail[0].get("config") != config_digest(run.load_config()):
        problems.append(f"{run.config} is not the config the run began with")
    steps = [line for line in lines if line["kind"] == "step"]
    problems += _unsworn(run, steps, trail[1:], whole=summary is not None)
    vouched = (summary or {}).get("metrics_sha256")  # runs of older versions have none
    if not problems and vouched is not None and sha256_file(run.metrics) != vouched:
        problems.append(f"{run.metrics} is not what {run.summary.name} vouches for")
    return problems + [problem for split in splits for problem in _wrong_scores(run, split, summary)]


def _unsworn(run: Run, steps: list[dict[str, Any]], trail: list[dict[str, Any]], *, whole: bool) -> list[str]:
    """The first step whose loss or learning rate is not what the trail vouches for."""
    if whole and len(steps) != len(trail):
        return [f"{run.metrics} has {len(steps)} steps, {run.trail.name} vouches for {len(trail)}"]
    for line, sworn in zip(steps, trail, strict=False):
        for name in ("step", "loss", "lr"):
            vouched = sworn[name] if name == "step" else float.fromhex(sworn[name])
            told = math.nan if line[name] is None else line[name]
            if told != vouched and not (math.isnan(told) and math.isnan(vouched)):
                return [
                    f"{run.metrics}: at step {sworn['step']}, {name} is {line[name]}; {run.trail.name} vouches for {vouched}"
                ]
    return []


def _wrong_scores(run: Run, split: str, summary: dict[str, Any] | None) -> list[str]:
    """Scores are computed again from the predictions, which their digest ties to them."""
    path, found = run.evaluation(split), read_json(run.evaluation(split))
    if found["predictions_sha256"] != sha256_file(run.predictions(split)):
        return [f"{run.predictions(split)} is not what {path} was scored from"]
    predictions = load_predictions(run.predictions(split))
    again = score(predictions.label, predictions.probability, threshold=found["threshold"])
    wrong = [(name, found["metrics"][name]["value"], value) for name, value in again.items()]
    problems = [f"{path}: {n} is {told}, the predictions give {value}" for n, told, value in wrong if told != value]
    if summary and found["weights_sha256"] != summary["best_weights_sha256"]:
        problems.append(f"{path} was scored with other weights than the run ended with")
    return problems


def _columns(lines: list[dict[str, Any]]) -> dict[str, NDArray[np.float64]]:
    names = ("step", "epoch", "loss", "grad_norm", "lr")
    # null in JSON (a norm that was not finite) becomes NaN, which plots leave out
    return {n: np.array([np.nan if line[n] is None else line[n] for line in lines], dtype=np.float64) for n in names}


def _spikes(path: Path) -> tuple[dict[str, Any] | None, str | None]:
    try:
        return spikes(path), None
    except HistoproofError as e:
        return None, e.problem


def _files(run: Run, splits: list[str], store: Path) -> tuple[Path, ...]:
    paths = [run.config, run.environment, run.metrics, run.trail, run.events, run.summary]
    paths += [path for split in splits for path in (run.evaluation(split), run.predictions(split))]
    name = run.load_config().data.partition
    if name is not None:
        paths.append(store / "partitions" / f"{name}.npy")
    return tuple(path for path in paths if path.is_file())
