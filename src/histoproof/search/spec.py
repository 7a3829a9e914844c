"""The typed space of a search: which config keys vary over which values, how points are chosen, which trainings are cut short."""

from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from ..errors import ConfigError
from ..specfile import SpecSection, parse_spec
from ..yamlfile import Lines, read_yaml

__all__ = ["Dimension", "PrunerSpec", "SamplerSpec", "SpaceSpec", "minimised", "read_space", "stepped", "steps"]

Scalar = str | int | float | bool | None
Value = Scalar | list[Any] | dict[str, Any]
_FORBIDDEN = {
    "seed": "a seed is no choice: the best of many seeds is luck; `histoproof champion` trains the best point over several",
    "data.store": "a study is of one store",
}
_WAYS = ("workers", "device", "residency", "prefetch", "verify")


class Dimension(SpecSection):
    """What a config key may be: a range of numbers, or a list of choices."""

    low: float | None = None
    """Lowest number."""
    high: float | None = None
    """Highest number, which may be drawn too."""
    log: bool = False
    """Drawn evenly in the logarithm; for what spans powers of ten."""
    step: Annotated[float, Field(gt=0)] | None = None
    """Only low, low + step, low + 2 step, ...; whole numbers have step 1 by themselves."""
    whole: bool = Field(default=False, alias="int")
    """Whole numbers only."""
    choices: list[Value] | None = Field(default=None, min_length=1)
    """The values themselves: numbers, texts, null, lists such as [64, 32], or whole sections."""
    when: dict[str, Value] | None = None
    """{key: value, or list of values}: this key varies only where those keys have (one of) those values."""

    @model_validator(mode="after")
    def _range_or_choices(self) -> "Dimension":
        numbers = (self.low, self.high)
        if self.choices is not None:
            if numbers != (None, None) or self.log or self.step is not None or self.whole:
                raise ValueError("choices go without low, high, log, step and int")
            if len({repr(choice) for choice in self.choices}) < len(self.choices):
                raise ValueError(f"a choice is given twice in {self.choices}")
            return self
        if self.low is None or self.high is None:
            raise ValueError("give low and high, or choices")
        if self.low > self.high:
            raise ValueError(f"low = {self.low:g} is larger than high = {self.high:g}")
        if self.log and self.low <= 0:
            raise ValueError(f"log needs low > 0; it is {self.low:g}")
        if self.log and self.step is not None:
            raise ValueError("log and step exclude each other")
        if self.step is not None:
            last = stepped(self.low, self.step, steps(self.low, self.high, self.step))
            if (_exact(last) - _exact(self.low)) % _exact(self.step):
                raise ValueError(f"step = {self.step} has more digits than can be added up exactly: give fewer")
        if self.whole and any(value is not None and not value.is_integer() for value in (*numbers, self.step)):
            raise ValueError("int needs whole numbers as low, high and step")
        return self


def steps(low: float, high: float, step: float) -> int:
    """How many whole steps there are from low to high."""
    return int((_exact(high) - _exact(low)) // _exact(step))


def stepped(low: float, step: float, n: int) -> float:
    """low + n steps, in decimal numbers as they are written, as Optuna has it: 0.1 + 2 * 0.1 is 0.3."""
    return float(_exact(low) + n * _exact(step))


def _exact(value: float) -> Decimal:
    return Decimal(str(value))


class SamplerSpec(SpecSection):
    """How the next point is chosen."""

    name: Literal["tpe", "random", "grid", "cmaes"] = "tpe"
    """tpe: tree-structured Parzen estimator (Bergstra et al. 2011). cmaes: CMA-ES (Hansen 2016) over the ranges that have no
    `when`; the other keys at random."""
    startup: Annotated[int, Field(ge=1)] = 10
    """tpe: points drawn at random before the estimator begins."""
    population: Annotated[int, Field(ge=2)] | None = None
    """cmaes: points of a generation; null: 4 + 3 ln(dimensions)."""


class PrunerSpec(SpecSection):
    """Which trainings are ended early."""

    name: Literal["median", "hyperband", "none"] = "median"
    """median: worse than the median of finished trials at the same epoch. hyperband: Li et al. 2018, in epochs."""
    startup: Annotated[int, Field(ge=0)] = 5
    """median: finished trials before any is ended early."""
    warmup_epochs: Annotated[int, Field(ge=0)] = 1
    """median: epochs that every training has."""
    min_epochs: Annotated[int, Field(ge=1)] = 1
    """hyperband: epochs that every training has."""
    reduction: Annotated[int, Field(ge=2)] = 3
    """hyperband: one of so many goes on to so many times the epochs."""


class SpaceSpec(SpecSection):
    """A search space."""

    space: dict[str, Dimension] = Field(min_length=1)
    """Config key: what it may be."""
    sampler: SamplerSpec = SamplerSpec()
    pruner: PrunerSpec = PrunerSpec()
    metric: Literal["auc", "average_precision", "f2", "f1", "balanced_accuracy", "accuracy", "nll", "loss"] = "auc"
    """The valid score that is optimised, at the epoch that evaluate.best_by chooses."""
    seed: Annotated[int, Field(ge=0, lt=2**62)] = 42
    """Another seed, other points. The trainings have the config's seed."""

    @model_validator(mode="after")
    def _keys_go_together(self) -> "SpaceSpec":
        for key in self.space:
            _check_key(key, self.space)
        if circle := _in_circles(self.space):
            raise ValueError(f"the conditions of {' and '.join(circle)} lead back to themselves")
        return self


def _check_key(key: str, space: dict[str, Dimension]) -> None:
    if key in _FORBIDDEN:
        raise ValueError(f"space.{key} cannot be searched: {_FORBIDDEN[key]}")
    if key.rpartition(".")[2] in _WAYS:
        raise ValueError(f"space.{key} changes no result, only how the work is done: give it in the config")
    if inner := [other for other in space if other.startswith(f"{key}.")]:
        raise ValueError(f"space holds {key} and also {inner[0]}, which is a part of it")
    _check_when(key, space)


def _check_when(key: str, space: dict[str, Dimension]) -> None:
    condition = space[key].when
    if condition == {}:
        raise ValueError(f"space.{key}.when is empty: leave it out")
    for other, wanted in (condition or {}).items():
        choices = space[other].choices if other in space else None
        if choices is None:
            raise ValueError(f"space.{key}.when names {other}, which has no choices in this space")
        for value in wanted if isinstance(wanted, list) and wanted not in choices else [wanted]:
            if value not in choices:
                raise ValueError(
                    f"space.{key}.when: {other} is never {value!r} (its choices: {', '.join(map(str, choices))})"
                )


def _in_circles(space: dict[str, Dimension]) -> list[str]:
    """Keys whose conditions lead back to themselves."""
    left = dict(space)
    while free := [key for key, d in left.items() if not set(d.when or ()) & set(left)]:
        for key in free:
            del left[key]
    return list(left)


def minimised(metric: str) -> bool:
    """Whether a lower value of a metric is better."""
    return metric in ("nll", "loss")


def read_space(path: Path) -> tuple[SpaceSpec, Lines]:
    """A space file, and where its keys are. Raises ConfigError naming file, line, key and what is valid."""
    content, lines = read_yaml(path)
    spec = parse_spec(content, SpaceSpec, path=path, lines=lines)
    ranges = [key for key, d in spec.space.items() if d.choices is None and d.when is None]
    if spec.sampler.name == "cmaes" and len(ranges) < 2:
        raise ConfigError(
            f"{path}: the sampler cmaes needs two ranges of numbers or more without `when`; there are {len(ranges)}",
            next="use the sampler tpe",
        )
    return spec, lines
