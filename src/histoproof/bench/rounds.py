"""The stopwatch: every row has its turn in every round, in another order each time, so that drift falls on all of them alike."""

import gc
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from .. import rng
from ..errors import HistoproofError
from ..signals import StopRequest
from .conditions import Conditions, watched
from .measure import Effort, Estimate, Stage, Stopped, calibrated, estimate, sample
from .memory import PeakRam, guarded, out_of_memory, trim

__all__ = ["CPU", "Case", "Outcome", "Report", "run_cases"]

CPU = torch.device("cpu")
Status = Literal["measured", "out_of_memory", "not_measured", "interrupted"]
Report = Callable[[int, int, str], None]
"""Called with (turns done, turns in all, a few words)."""


@dataclass(frozen=True)
class Case:
    """One row to be measured, or one ceiling."""

    name: dict[str, Any]
    """What identifies the row: "what", "model", "device", "batch_size", "precision", "variant"; of a ceiling also "ceiling"."""
    open: Callable[[], AbstractContextManager[dict[str, Stage]]] | None
    """Sets up what is timed, for one turn; stages are timed in their order. None: it cannot be measured, `reason` says why."""
    device: torch.device = CPU
    reason: str | None = None
    threads: dict[str, int] | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    """What its ceiling is computed from."""

    def words(self) -> str:
        """It, for a progress bar."""
        return " ".join(str(value) for value in self.name.values() if value is not None)


@dataclass
class Outcome:
    """What was measured of a case."""

    case: Case
    status: Status | None = None
    """None: not all of it is measured yet."""
    reason: str | None = None
    samples: dict[str, list[float]] = field(default_factory=dict)
    """Work a second, by stage; the n-th of all stages are of the same turn."""
    iterations: dict[str, int] = field(default_factory=dict)
    conditions: Conditions = field(default_factory=Conditions)
    peak_ram: int | None = None
    ram_method: str | None = None
    peak_vram: int | None = None

    @property
    def taken(self) -> int:
        """Samples of each stage."""
        return min((len(found) for found in self.samples.values()), default=0)

    def estimate(self, stage: str) -> Estimate | None:
        """Of a stage; None where it has no sample."""
        found = self.samples.get(stage)
        return estimate(found) if found else None


def run_cases(
    cases: Sequence[Case], effort: Effort, stop: StopRequest, report: Report = lambda *_: None
) -> list[Outcome]:
    """Measure `cases`; those that a signal left unfinished are "interrupted" and keep the samples of whole turns.

    A case that runs out of memory, or that a HistoproofError ends, gets no further turn; the others go on.
    """
    outcomes = [Outcome(case) for case in cases]
    for outcome in outcomes:
        if outcome.case.open is None:
            outcome.status, outcome.reason = "not_measured", outcome.case.reason
    total, done = effort.rounds * len(cases), 0
    trim()
    gc.freeze()  # what is there already is not looked through again between turns: that takes 0.1 s
    try:
        for turn in range(effort.rounds):
            for place in rng.permutation(rng.key(0, "bench order", turn), len(cases)).tolist():
                done += 1
                if outcomes[place].status is None:
                    report(done, total, outcomes[place].case.words())
                    _turn(outcomes[place], effort, stop)
    except (Stopped, KeyboardInterrupt):
        pass
    finally:
        gc.unfreeze()
    for outcome in outcomes:
        if outcome.status is None:
            outcome.status = "interrupted"
            missing = effort.samples - outcome.taken
            outcome.reason = f"stopped by {stop.name or 'SIGINT'}: {missing} of {effort.samples} samples are missing"
    return outcomes


def _turn(outcome: Outcome, effort: Effort, stop: StopRequest) -> None:
    case = outcome.case
    count = min(effort.per_turn, effort.samples - outcome.taken)
    ram = PeakRam()
    trim()
    try:
        with watched(outcome.conditions, case.device), ram, guarded(case.device):
            found = _measured(case, outcome.iterations, count, effort, stop)
    except (MemoryError, RuntimeError, HistoproofError) as e:
        reason = out_of_memory(e)
        if reason is None and not isinstance(e, HistoproofError):
            raise
        outcome.status = "not_measured" if reason is None else "out_of_memory"
        outcome.reason = str(e) if reason is None else reason
    else:
        for name, rates in found.items():
            outcome.samples.setdefault(name, []).extend(rates)
        if outcome.taken >= effort.samples:
            outcome.status = "measured"
    outcome.peak_ram = max(filter(None, (outcome.peak_ram, ram.bytes)), default=None)
    outcome.ram_method = ram.method
    if case.device.type == "cuda":
        outcome.peak_vram = max(outcome.peak_vram or 0, torch.cuda.max_memory_allocated(case.device))
        if outcome.status == "out_of_memory":
            torch.cuda.empty_cache()


def _measured(
    case: Case, iterations: dict[str, int], count: int, effort: Effort, stop: StopRequest
) -> dict[str, list[float]]:
    """`count` samples of each stage. How many iterations make a sample is found in the first turn, and kept."""

    def wait() -> None:
        if case.device.type == "cuda":
            torch.cuda.synchronize(case.device)

    if case.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(case.device)
    if stop.requested:
        raise Stopped
    assert case.open is not None
    found: dict[str, list[float]] = {}
    seconds: dict[str, float] = {}
    with case.open() as stages:
        for name, stage in stages.items():
            if name not in iterations:
                iterations[name] = calibrated(stage, effort.seconds, wait, stop)
            settle = stage.settle if stage.steady is None else stage.steady(seconds)
            if settle:
                sample(stage, settle, wait, stop)
            pairs = [sample(stage, iterations[name], wait, stop) for _ in range(count)]
            found[name] = [work / took for work, took in pairs]
            seconds[name] = sum(took for _, took in pairs) / count / iterations[name]
    return found
