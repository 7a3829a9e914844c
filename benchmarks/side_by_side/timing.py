"""Side by side: in every round each task runs one block, so that the machine's drift falls on all of them."""

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

__all__ = [
    "Plan",
    "Task",
    "not_measured",
    "one_after_the_other",
    "ratio",
    "row",
    "rows_of",
    "run_rounds",
    "say",
    "summary",
]


@dataclass(frozen=True)
class Plan:
    """How much is measured."""

    rounds: int
    batch_size: int = 64
    least_s: float = 0.2
    """A block is repeated until it takes about this long."""


@dataclass(frozen=True)
class Task:
    """Something that is measured."""

    name: str
    words: str
    block: Callable[[], int]
    """Does a piece of work; how many patches it was."""
    threads: int
    """Threads inside torch's operations."""
    detail: str = ""
    """Which variant this process found the fastest."""


def run_rounds(tasks: Sequence[Task], plan: Plan) -> dict[str, list[float]]:
    """Patches per second of each task, one sample a round. Blocks before them warm up and say how many make
    `least_s`. The order turns round every time, so that none always follows the same one."""
    before = torch.get_num_threads()
    try:
        repeats = {}
        for task in tasks:
            torch.set_num_threads(task.threads)
            took = _seconds(task)
            if took < 2 * plan.least_s:  # it may have been the cold start that took so long
                took = _seconds(task)
            repeats[task.name] = max(1, round(plan.least_s / took))
        samples: dict[str, list[float]] = {task.name: [] for task in tasks}
        for number in range(plan.rounds):
            say(f"round {number + 1} of {plan.rounds}")
            for task in tasks if number % 2 == 0 else tasks[::-1]:
                torch.set_num_threads(task.threads)
                start = time.perf_counter()
                done = sum(task.block() for _ in range(repeats[task.name]))
                samples[task.name].append(done / (time.perf_counter() - start))
        return samples
    finally:
        torch.set_num_threads(before)


def _seconds(task: Task) -> float:
    start = time.perf_counter()
    task.block()
    return time.perf_counter() - start


def row(name: str, words: str, samples: Sequence[float], unit: str = "patches/s") -> dict[str, Any]:
    """A measured row of a results file."""
    return {"name": name, "words": words, "unit": unit, **summary(samples)}


def rows_of(tasks: Sequence[Task], samples: dict[str, list[float]]) -> list[dict[str, Any]]:
    """Each task's row."""
    rows = [row(task.name, task.words, samples[task.name]) for task in tasks]
    return [{**one, "details": [task.detail]} if task.detail else one for one, task in zip(rows, tasks, strict=True)]


def not_measured(name: str, words: str, reason: str) -> dict[str, Any]:
    """The row of what could not be measured."""
    return {"name": name, "words": words, "not_measured": reason}


def one_after_the_other(a: Sequence[float], b: Sequence[float]) -> list[float]:
    """The rate of doing both, from the rate of each, round by round."""
    return [1 / (1 / x + 1 / y) for x, y in zip(a, b, strict=True)]


def ratio(
    of: str, to: str, samples: dict[str, list[float]], *, goal: float | None = None, share: bool = False
) -> dict[str, Any]:
    """Row `of` over row `to`, round by round: what drifts with the machine cancels out. `goal` is what it should at least be;
    `share`: `to` is a ceiling."""
    values = [x / y for x, y in zip(samples[of], samples[to], strict=True)]
    return {"of": of, "to": to, "share": share, "goal": goal, **summary(values)}


def summary(samples: Sequence[float]) -> dict[str, Any]:
    """n, median, lowest, highest, and the samples themselves."""
    return {
        "n": len(samples),
        "median": statistics.median(samples),
        "low": min(samples),
        "high": max(samples),
        "samples": list(samples),
    }


def say(text: str) -> None:
    """A word on how far it is, on a terminal only."""
    if sys.stderr.isatty():
        print(f"\r{text:60}", end="", file=sys.stderr, flush=True)
