"""Points of a space: their parts, their order, how many there are, and what they are to Optuna and to a config."""

import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..files import canonical
from .spec import Dimension, SpaceSpec, stepped, steps

__all__ = [
    "active",
    "corners",
    "distributions",
    "every_point",
    "from_optuna",
    "order",
    "overrides",
    "size",
    "to_optuna",
    "values",
]

Point = dict[str, Any]
"""{config key: value} of the keys that vary in it."""
_MOST_CORNERS = 4096
_MOST_STEPS = 100_000


def order(space: Mapping[str, Dimension]) -> list[str]:
    """The keys, each after those that its `when` names, otherwise as they were given."""
    done: list[str] = []
    while len(done) < len(space):
        done += [next(k for k in space if k not in done and set(space[k].when or ()) <= set(done))]
    return done


def active(dimension: Dimension, point: Point) -> bool:
    """Whether a key varies where the keys before it are as in `point`."""
    for key, wanted in (dimension.when or {}).items():
        if key not in point:
            return False
        value = point[key]
        if value != wanted and not (isinstance(wanted, list) and value in wanted):
            return False
    return True


def distributions(space: Mapping[str, Dimension]) -> dict[str, Any]:
    """Optuna's distribution of each key."""
    from optuna import distributions as d

    found: dict[str, Any] = {}
    for key, dimension in space.items():
        if dimension.choices is not None:
            found[key] = d.CategoricalDistribution([to_optuna(dimension, choice) for choice in dimension.choices])
            continue
        low, high = _ends(dimension)
        if dimension.whole:
            found[key] = d.IntDistribution(low, high, log=dimension.log, step=int(dimension.step or 1))
        else:
            found[key] = d.FloatDistribution(low, high, log=dimension.log, step=dimension.step)
    return found


def to_optuna(dimension: Dimension, value: Any) -> Any:
    """Optuna's categories are scalars: if any choice is a list or a section, each is its JSON."""
    return canonical(value) if _in_json(dimension) else value


def from_optuna(dimension: Dimension, value: Any) -> Any:
    """The config's value of Optuna's."""
    return json.loads(value) if _in_json(dimension) else value


def _in_json(dimension: Dimension) -> bool:
    return any(isinstance(choice, list | dict) for choice in dimension.choices or ())


def overrides(point: Point) -> list[str]:
    """A point as --set overrides."""
    return [f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in point.items()]


def values(dimension: Dimension) -> Sequence[Any] | None:
    """Every value of a dimension; None for a range that is continuous or as good as that."""
    if dimension.choices is not None:
        return dimension.choices
    low, high = _ends(dimension)
    if low == high:
        return [low]
    if dimension.whole:
        return range(low, high + 1, int(dimension.step or 1))
    if dimension.step is None or (high - low) / dimension.step > _MOST_STEPS:
        return None
    return [stepped(low, dimension.step, n) for n in range(steps(low, high, dimension.step) + 1)]


def _ends(dimension: Dimension) -> tuple[Any, Any]:
    """The lowest and the highest value that a range reaches."""
    low, high, step = dimension.low, dimension.high, dimension.step
    assert low is not None
    assert high is not None
    if dimension.whole:
        return int(low), int(high) - (int(high) - int(low)) % int(step or 1)
    if step is None:
        return low, high
    return low, stepped(low, step, steps(low, high, step))


def every_point(space: Mapping[str, Dimension]) -> Iterator[Point] | None:
    """Every point, the last key turning fastest; None if there is a continuous range."""
    known = {key: found for key, dimension in space.items() if (found := values(dimension)) is not None}
    return _product(space, known, order(space), {}) if len(known) == len(space) else None


def _product(
    space: Mapping[str, Dimension], known: Mapping[str, Sequence[Any]], keys: list[str], point: Point
) -> Iterator[Point]:
    if not keys:
        yield point
    elif active(space[keys[0]], point):
        for value in known[keys[0]]:
            yield from _product(space, known, keys[1:], {**point, keys[0]: value})
    else:
        yield from _product(space, known, keys[1:], point)


def size(spec: SpaceSpec, most: int) -> int | None:
    """How many points there are, counted up to `most`; None if there is no end of them."""
    points = every_point(spec.space)
    return None if points is None else sum(1 for _ in itertools.islice(points, most))


def corners(space: Mapping[str, Dimension]) -> Iterator[Point]:
    """Every combination of choices and of ends of ranges; where there are too many, every combination of each two keys."""
    ends = {key: _corner_values(dimension) for key, dimension in space.items()}
    keys = order(space)
    if math.prod(len(found) for found in ends.values()) <= _MOST_CORNERS:
        yield from _product(space, ends, keys, {})
        return
    for pair in itertools.combinations(keys, 2):
        needed = _conditions(space, pair)
        few = {key: found if key in needed else found[:1] for key, found in ends.items()}
        yield from itertools.islice(_product(space, few, keys, {}), _MOST_CORNERS)


def _conditions(space: Mapping[str, Dimension], keys: tuple[str, ...]) -> set[str]:
    """Keys, and those that decide whether they vary."""
    found: set[str] = set()
    waiting = list(keys)
    while waiting:
        key = waiting.pop()
        if key not in found:
            found.add(key)
            waiting += space[key].when or ()
    return found


def _corner_values(dimension: Dimension) -> list[Any]:
    return dimension.choices if dimension.choices is not None else list(dict.fromkeys(_ends(dimension)))
