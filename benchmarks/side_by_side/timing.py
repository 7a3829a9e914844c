"""Side by side: in every round each task runs one block, so that the machine's drift falls on all of them."""

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

__all__ = ["Plan", "Task", "not_measured", "ratio", "row", "run_rounds", "say"]


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


def run_rounds(tasks: Sequence[Task], plan: Plan) -> dict[str, list[float]]:
    """Patches per second of each task, one sample a round. Two blocks before them warm up and say how many make
    `least_s`. The order turns round every time, so that none always follows the same one."""
    before = torch.get_num_threads()
    try:
        repeats = {}
        for task in tasks:
            torch.set_num_threads(task.threads)
            task.block()
            start = time.perf_counter()
            task.block()
            repeats[task.name] = max(1, round(plan.least_s / (time.perf_counter() - start)))
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


def row(task: Task, samples: list[float], unit: str = "patches/s") -> dict[str, Any]:
    """A measured row of a results file."""
    return {
        "name": task.name,
        "words": task.words,
        "unit": unit,
        "threads": task.threads,
        "n": len(samples),
        "median": statistics.median(samples),
        "low": min(samples),
        "high": max(samples),
        "samples": samples,
    }


def not_measured(name: str, words: str, reason: str) -> dict[str, Any]:
    """The row of what could not be measured."""
    return {"name": name, "words": words, "not_measured": reason}


def ratio(name: str, words: str, a: Sequence[float], b: Sequence[float], goal: float | None = None) -> dict[str, Any]:
    """a / b, round by round: what drifts with the machine cancels out. `goal` is what it should at least be."""
    samples = [x / y for x, y in zip(a, b, strict=True)]
    return {
        "name": name,
        "words": words,
        "n": len(samples),
        "median": statistics.median(samples),
        "low": min(samples),
        "high": max(samples),
        "samples": samples,
        "goal": goal,
    }


def say(text: str) -> None:
    """A word on how far it is, on a terminal only."""
    if sys.stderr.isatty():
        print(f"\r{text:60}", end="", file=sys.stderr, flush=True)
