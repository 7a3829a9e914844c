"""Which point comes next: a function of the study's seed, the point's place, and, for tpe and cmaes, of the scores so far.

No sampler keeps state between two points, so it makes no difference which process asks.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import rng
from .cma import generation
from .points import latest, quiet, view
from .space import Point, active, distributions, every_point, from_optuna, order, to_optuna
from .spec import SpaceSpec

__all__ = ["GENERATION", "as_optuna", "propose"]

GENERATION = "generation"
"""User attribute: the generation of CMA-ES that a point belongs to."""
_ATTEMPTS = 20


def propose(spec: SpaceSpec, trials: Sequence[Any], direction: str) -> tuple[Point, dict[str, Any]] | None:
    """The next point as {config key: value}, and attributes to keep with it; None when every point was tried.

    `trials`: all of the study's, as Optuna gives them. No point is given twice.
    """
    points = latest(trials)
    place = len(points)
    tried = {_frozen(trial.params) for trial in points.values()}
    if spec.sampler.name == "grid":
        grid = list(every_point(spec.space) or ())
        turn = rng.permutation(rng.key(spec.seed, "grid"), len(grid))  # so that half a grid is spread over all of it
        return (grid[turn[place]], {}) if place < len(grid) else None
    for attempt in range(_ATTEMPTS):
        key = rng.key(spec.seed, "point", place, attempt)
        attributes: dict[str, Any] = {}
        fixed: Point = {}
        if spec.sampler.name == "cmaes":
            fixed, attributes[GENERATION] = generation(spec, list(points.values()), direction, key)
        point = _drawn(spec, trials, direction, key % 2**32, fixed)
        if _frozen(as_optuna(spec, point)) not in tried:
            return point, attributes
    every = every_point(spec.space)
    if every is None:  # twenty times what was tried already, of infinitely many: then so be it
        return point, attributes
    return next(((p, attributes) for p in every if _frozen(as_optuna(spec, p)) not in tried), None)


def _drawn(spec: SpaceSpec, trials: Sequence[Any], direction: str, seed: int, fixed: Point) -> Point:
    """A point from Optuna's sampler, freshly seeded."""
    from optuna.samplers import BaseSampler, RandomSampler, TPESampler

    known = distributions(spec.space)
    with quiet():
        sampler: BaseSampler = RandomSampler(seed=seed)
        if spec.sampler.name == "tpe":
            sampler = TPESampler(
                seed=seed, n_startup_trials=spec.sampler.startup, multivariate=False, constant_liar=True
            )
        asked = view(trials if spec.sampler.name == "tpe" else [], direction, sampler).ask()
        point: Point = {}
        for key in order(spec.space):
            if not active(spec.space[key], point):
                continue
            value = fixed[key] if key in fixed else _suggested(asked, key, known[key])
            point[key] = from_optuna(spec.space[key], value)
    return point


def _suggested(trial: Any, key: str, known: Any) -> Any:
    from optuna.distributions import CategoricalDistribution, IntDistribution

    if isinstance(known, CategoricalDistribution):
        return trial.suggest_categorical(key, known.choices)
    if isinstance(known, IntDistribution):
        return trial.suggest_int(key, known.low, known.high, step=known.step, log=known.log)
    return trial.suggest_float(key, known.low, known.high, step=known.step, log=known.log)


def as_optuna(spec: SpaceSpec, point: Point) -> Point:
    """A point in Optuna's values."""
    return {key: to_optuna(spec.space[key], value) for key, value in point.items()}


def _frozen(params: Point) -> frozenset[tuple[str, str]]:
    return frozenset((key, repr(np.asarray(value).item())) for key, value in params.items())
