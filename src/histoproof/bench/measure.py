"""A rate, and how far it can be trusted: timed samples, their median, an interval that assumes nothing of their distribution.

The interval is of order statistics: of n independent samples, the median lies between the k-th smallest and the k-th largest
unless fewer than k fall on one side of it, which has probability 2 P(Binomial(n, 1/2) < k) (David & Nagaraja, Order Statistics,
2003, 7.1). k is the largest for which that is at most 1 - level; below 6 samples there is none at 95 %.
"""

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..signals import StopRequest

__all__ = ["METHOD", "Effort", "Estimate", "Stage", "Stopped", "calibrated", "estimate", "median_rank", "sample"]

METHOD = "median of all samples; 95 % interval of the median from order statistics (null below 6 samples)"
_MOST_ITERATIONS = 1 << 20


class Stopped(Exception):  # noqa: N818 (no error)
    """A signal asked for an end; what was measured before is kept."""


@dataclass(frozen=True)
class Effort:
    """How much is measured."""

    samples: int = 12
    """Of each stage of each row."""
    seconds: float = 0.15
    """Least length of a sample; one iteration where that takes longer."""
    per_turn: int = 2
    """Samples a row takes before the next has its turn."""

    @property
    def rounds(self) -> int:
        """How often every row has its turn."""
        return -(-self.samples // self.per_turn)

    def with_samples(self, samples: int | None) -> "Effort":
        """The same with another number of samples; None: as it is."""
        return self if samples is None else replace(self, samples=samples)


@dataclass(frozen=True)
class Stage:
    """Something to be timed."""

    run: Callable[[int], float]
    """Does so many iterations, and returns the work done, e.g. in patches."""
    settle: int = 1
    """Iterations before a sample counts, in each turn: until caches and queues are as in the middle of work."""
    steady: Callable[[dict[str, float]], int] | None = None
    """Iterations to settle with, told the seconds an iteration of each stage before took; default: `settle`."""


@dataclass(frozen=True)
class Estimate:
    """The median of `samples`, and its interval; None where the samples are too few for one."""

    median: float
    low: float | None
    high: float | None
    samples: tuple[float, ...]

    def as_json(self) -> dict[str, Any]:
        """As bench.json holds it."""
        return {"median": self.median, "low": self.low, "high": self.high, "samples": list(self.samples)}


def median_rank(n: int, level: float = 0.95) -> int | None:
    """k, from 1: the interval goes from the k-th smallest to the k-th largest of n samples; None where they are too few."""
    tail, term, k = 0.0, 0.5**n if n < 1000 else math.exp(-n * math.log(2)), 0
    if term == 0.0:  # thousands of samples: the normal approximation is exact to a rank
        return max(1, math.floor((n - statistics.NormalDist().inv_cdf((1 + level) / 2) * math.sqrt(n)) / 2))
    while 2 * (tail + term) <= 1 - level:
        tail, k = tail + term, k + 1
        term *= (n - k + 1) / k
    return k or None


def estimate(samples: Sequence[float], level: float = 0.95) -> Estimate:
    """Median and interval of at least one sample."""
    ordered, k = sorted(samples), median_rank(len(samples), level)
    low, high = (None, None) if k is None else (ordered[k - 1], ordered[-k])
    return Estimate(statistics.median(ordered), low, high, tuple(samples))


def sample(stage: Stage, iterations: int, wait: Callable[[], None], stop: StopRequest) -> tuple[float, float]:
    """(work, seconds) of so many iterations; `wait` returns when the device has done all it was given. Raises Stopped."""
    if stop.requested:
        raise Stopped
    wait()
    start = time.perf_counter()
    work = stage.run(iterations)
    wait()
    return work, max(time.perf_counter() - start, 1e-9)


def calibrated(stage: Stage, seconds: float, wait: Callable[[], None], stop: StopRequest) -> int:
    """How many iterations take about `seconds`; warms up on the way, as nothing it times is kept."""
    iterations = 1
    sample(stage, 1, wait, stop)
    while True:
        _, took = sample(stage, iterations, wait, stop)
        wanted = math.ceil(iterations * seconds / took)
        if took >= seconds / 2 or iterations >= _MOST_ITERATIONS:
            return min(max(wanted, 1), _MOST_ITERATIONS)
        iterations = min(max(wanted, iterations + 1), 10 * iterations)
