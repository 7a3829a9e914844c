"""CMA-ES without a memory: the strategy is played again from the study's scores whenever a point is wanted.

Optuna's own sampler keeps the strategy as a pickle within the journal, which whoever opens the study would load. Here nothing
is kept: generations are told again in order, which costs milliseconds and needs no trust.
Source: Hansen, The CMA Evolution Strategy: A Tutorial, arXiv:1604.00772, as implemented by the package cmaes.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import rng
from .space import Point
from .spec import Dimension, SpaceSpec, stepped, steps

__all__ = ["generation"]


def generation(spec: SpaceSpec, trials: Sequence[Any], direction: str, key: int) -> tuple[Point, int]:
    """Values of the ranges without `when`, and the generation they belong to. `trials`: one a point, in the points' order."""
    from cmaes import CMA

    ranges = {k: d for k, d in spec.space.items() if d.choices is None and d.when is None}
    strategy = CMA(
        mean=np.full(len(ranges), 0.5),
        sigma=1 / 6,
        bounds=np.tile([0.0, 1.0], (len(ranges), 1)),
        seed=rng.key(spec.seed, "cmaes") % 2**32,
        population_size=spec.sampler.population,
    )
    sign = 1.0 if direction == "minimize" else -1.0
    while not strategy.should_stop():
        told = [t for t in trials if t.user_attrs.get("generation") == strategy.generation and t.value is not None]
        if len(told) < strategy.population_size:
            break
        strategy.tell(
            [
                (np.array([_to_unit(d, t.params[k]) for k, d in ranges.items()]), sign * t.value)
                for t in told[: strategy.population_size]
            ]
        )
    strategy.reseed_rng(key % 2**32)
    x: NDArray[np.float64] = strategy.ask()
    return {k: _from_unit(d, float(u)) for (k, d), u in zip(ranges.items(), x, strict=True)}, strategy.generation


def _ends(dimension: Dimension) -> tuple[float, float]:
    """The range that 0 to 1 stand for; half a step more at either end, so that every step has the same room."""
    assert dimension.low is not None
    assert dimension.high is not None
    half = (dimension.step or (1.0 if dimension.whole else 0.0)) / 2
    if dimension.log:
        return math.log(max(dimension.low - half, dimension.low / 2)), math.log(dimension.high + half)
    return dimension.low - half, dimension.high + half


def _to_unit(dimension: Dimension, value: float) -> float:
    low, high = _ends(dimension)
    at = math.log(value) if dimension.log else value
    return (at - low) / (high - low) if high > low else 0.5


def _from_unit(dimension: Dimension, unit: float) -> float | int:
    low, high = _ends(dimension)
    value = low + unit * (high - low)
    value = math.exp(value) if dimension.log else value
    assert dimension.low is not None
    assert dimension.high is not None
    step = dimension.step or (1.0 if dimension.whole else None)
    if step is not None:
        last = steps(dimension.low, dimension.high, step)
        found = stepped(dimension.low, step, min(max(round((value - dimension.low) / step), 0), last))
        return int(found) if dimension.whole else found
    return min(max(value, dimension.low), dimension.high)
