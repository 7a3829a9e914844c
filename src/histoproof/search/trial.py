"""One trial: an ordinary run in the study's folder, judged after each epoch, begun anew or gone on with."""

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .. import checkpoint
from ..config import Config, identity, load
from ..errors import ConfigError, DataError, HistoproofError, RunError, TrainingError
from ..files import JsonLines, read_lines
from ..provenance import now
from ..runs import Run, is_locked, open_run
from ..signals import StopRequest
from ..train import resume, train
from .points import POINT, quiet, view
from .queue import Queue
from .space import from_optuna, overrides
from .spec import SpaceSpec

__all__ = ["Outcome", "pruner_of", "work"]

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Outcome:
    """How a trial ended: complete, pruned, failed, stopped, or lost to a process that took this one for dead."""

    state: str
    epochs: int
    value: float | None = None
    reason: str | None = None
    signal: str | None = None


def work(queue: Queue, trial: Any, base: Config, stop: StopRequest, progress: Progress | None) -> Outcome:
    """Train a claimed trial and tell what came of it; where a signal or the world outside cut it off, queue it again."""
    from optuna.trial import TrialState

    number: int = trial.number
    try:
        outcome = _train(queue, trial, base, stop, progress)
    except BaseException as e:
        with suppress(Exception), queue.study.lock():  # the reason for giving up is what counts
            queue.requeue(number, f"cut off: {type(e).__name__}")
        raise
    with queue.study.lock():
        if not queue.runs(number):
            return replace(outcome, state="stopped" if outcome.state == "stopped" else "lost")
        if outcome.state == "stopped":
            queue.requeue(number, f"stopped by {outcome.signal}")
            return outcome
        if outcome.reason is not None:
            queue.note(number, "reason", outcome.reason)
        queue.note(number, "epochs", outcome.epochs)
        states = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}
        queue.tell(number, states[outcome.state], outcome.value)
    _slim(Run(queue.study.trial(number)), outcome.state)
    return outcome


def _slim(run: Run, state: str) -> None:
    """Remove checkpoints that an ended trial needs no more: a study of large models would fill a disk with them. A complete trial
    keeps its best, a pruned one what `train --resume` goes on from."""
    for name in {"complete": ("last", "previous"), "pruned": ("previous",)}.get(state, ()):
        for path in run.checkpoints.glob(f"{name}.*"):
            path.unlink(missing_ok=True)


def _train(queue: Queue, trial: Any, base: Config, stop: StopRequest, progress: Progress | None) -> Outcome:
    study = queue.study
    point = {key: from_optuna(queue.spec.space[key], value) for key, value in trial.params.items()}
    chosen = [*_ways(base), *overrides(point)]
    run, watched = Run(study.trial(trial.number)), _passing_on(stop, progress)
    judge = _Judge(queue, trial.number)
    try:
        config = load(study.config, chosen)
        judge.epochs = config.train.epochs
        if not _can_go_on(run, config):
            _set_aside(run.path)
            return _outcome(train(study.config, chosen, out=run.path, progress=watched, judge=judge), queue.spec.metric)
        try:
            if judge.catch_up(run):
                return _outcome({"status": "pruned", "epochs": judge.epoch}, queue.spec.metric)
            return _outcome(resume(run.path, progress=watched, judge=judge), queue.spec.metric)
        except TrainingError:
            raise
        except (
            DataError,
            RunError,
            KeyError,
        ):  # damaged in a way that only going on shows: or every process would fail on it
            if is_locked(run.path):
                raise
            _set_aside(run.path)
            return _outcome(train(study.config, chosen, out=run.path, progress=watched, judge=judge), queue.spec.metric)
    except (TrainingError, ConfigError) as e:  # a config that only this point makes invalid: no corner did
        return Outcome("failed", judge.epoch, reason=e.problem)
    except (MemoryError, RuntimeError) as e:
        if isinstance(e, MemoryError) or "alloc" in str(
            e
        ):  # torch on a CPU: "DefaultCPUAllocator: can't allocate memory"
            return Outcome(
                "failed", judge.epoch, reason=f"the memory is too small: {(str(e) or 'no more').splitlines()[0]}"
            )
        raise


def _outcome(result: dict[str, Any], metric: str) -> Outcome:
    """What `train` returned, as a trial's end."""
    epochs = result["epochs"]
    if result["status"] == "stopped":
        return Outcome("stopped", epochs, signal=result["signal"])
    if result["status"] == "pruned":
        return Outcome("pruned", epochs, reason=f"pruned after epoch {epochs}")
    value = result["best"]["valid"].get(metric)
    if value is None:
        return Outcome("failed", epochs, reason=f"valid {metric} is undefined")
    return Outcome("complete", epochs, float(value))


def _ways(config: Config) -> list[str]:
    """How this process does the work, and where its store lies: no result hangs on it, so each process may have its own."""
    ways = {
        **{f"data.{key}": getattr(config.data, key) for key in ("store", "residency", "prefetch", "verify")},
        **{f"train.{key}": getattr(config.train, key) for key in ("workers", "checkpoint_every_steps", "device")},
    }
    return overrides(ways)


def _can_go_on(run: Run, config: Config) -> bool:
    """Whether a folder holds this very training, and nobody writes to it."""
    try:
        there = open_run(run.path).load_config()
        run.environments()
        if is_locked(run.path) or identity(there) != identity(config) or not Path(there.data.store).is_dir():
            return False
        if not run.finished:
            checkpoint.load_latest(run.checkpoints, set_aside=False)
        else:
            run.load_summary()
    except (HistoproofError, OSError, KeyError, TypeError, ValueError):
        return False
    return True


def _set_aside(path: Path) -> None:
    """A folder that cannot be gone on with is kept under a name that no listing shows."""
    for number in range(1, 1000):
        aside = path.with_name(f".{path.name}.unusable-{number}")
        if path.exists() and not aside.exists():
            path.rename(aside)
            return


def _passing_on(stop: StopRequest, progress: Progress | None) -> Progress:
    """Progress that hands a signal on to the training, if it came before the training looked out for signals itself."""
    told = False

    def report(done: int, total: int, words: str) -> None:
        nonlocal told
        if stop.name is not None and not told:
            told = True
            os.kill(os.getpid(), signal.Signals[stop.name])
        if progress:
            progress(done, total, words)

    return report


class _Judge:
    """Reports a trial's valid score after each epoch, each once, and says whether to end it there."""

    def __init__(self, queue: Queue, number: int) -> None:
        self.queue, self.number = queue, number
        self.epochs = 0
        """Of the whole training."""
        self.epoch = 0
        """The last epoch that was reported."""

    def __call__(self, epoch: int, valid: dict[str, Any]) -> bool:
        """Whether training should end after this epoch (from 1) with these valid scores."""
        if not self.queue.runs(self.number):
            return True  # it was given to another: what we train is nobody's
        self._report(epoch, valid)
        return self._ended()

    def catch_up(self, run: Run) -> bool:
        """Of a run that goes on: report what nobody did of what its checkpoint holds, and decide what nobody decided.

        Where the decision is to end it, that is written into the run's events.
        """
        found, _ = checkpoint.load_latest(run.checkpoints, set_aside=False)
        at = found.state["position"] if found else {"epoch": 0, "step": 0, "step_in_epoch": 0}
        for line in read_lines(run.metrics):
            if line["kind"] == "epoch" and (run.finished or line["epoch"] <= at["epoch"]):
                self._report(line["epoch"], line["valid"])
        if run.finished or self.epoch == 0 or at["step_in_epoch"] or not self._ended():
            return False
        events = JsonLines(run.events)
        events.append({"event": "pruned", "epoch": self.epoch, "step": at["step"], "time": now()})
        events.close()
        return True

    def _report(self, epoch: int, valid: dict[str, Any]) -> None:
        self.epoch = epoch
        value = valid.get(self.queue.spec.metric)
        if value is not None and epoch not in self.queue.trials()[self.number].intermediate_values:
            self.queue.storage.set_trial_intermediate_value(self.queue.id_of(self.number), epoch, float(value))

    def _ended(self) -> bool:
        """What the pruner says of the last reported epoch."""
        if self.epoch >= self.epochs or self.queue.spec.pruner.name == "none":
            return False
        trials = self.queue.trials()
        place = trials[self.number].user_attrs[POINT]
        with quiet():
            study = view(trials, self.queue.direction)
            ended = pruner_of(self.queue.spec, self.epochs).prune(study, study.get_trials(deepcopy=False)[place])
        if ended:
            self.queue.note(self.number, "pruned_at", self.epoch)
        for key, value in study.get_trials(deepcopy=False)[place].system_attrs.items():
            if key not in trials[self.number].system_attrs:  # hyperband keeps its rungs there
                self.queue.storage.set_trial_system_attr(self.queue.id_of(self.number), key, value)
        return bool(ended)


def pruner_of(spec: SpaceSpec, epochs: int) -> Any:
    """Optuna's pruner; it has no state that the trials do not hold. `epochs`: of a whole training."""
    from optuna.pruners import HyperbandPruner, MedianPruner

    if spec.pruner.name == "median":
        return MedianPruner(n_startup_trials=spec.pruner.startup, n_warmup_steps=spec.pruner.warmup_epochs)
    length: Any = spec.space.get("train.epochs")
    most = epochs if length is None else int(max(length.choices or [length.high]))
    return HyperbandPruner(
        min_resource=min(spec.pruner.min_epochs, most), max_resource=most, reduction_factor=spec.pruner.reduction
    )
