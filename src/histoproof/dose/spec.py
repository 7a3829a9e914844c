"""The typed spec of a dose-response study: which poisons, at which rates, for which models and seeds."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from ..config import load
from ..data.poison.spec import Plant, PoisonSpec
from ..errors import ConfigError
from ..specfile import SpecSection, parse_spec, read_spec

__all__ = ["Arm", "DoseSpec", "PoisonArm", "plant_of", "read_dose_spec"]

Rate = Annotated[float, Field(gt=0, le=1)]
Quarantine = Literal["exclude", "include"]


class Arm(SpecSection):
    """A model to train."""

    config: str
    """A config file, from the spec's folder."""
    set: list[str] = Field(default=[])
    """Overrides, e.g. train.epochs=6."""
    seeds: list[Annotated[int, Field(ge=0, lt=2**62)]] = Field(default=[42, 43, 44], min_length=1)
    """Seeds of training; each has its own poisoned patches."""
    poisons: list[str] | None = None
    """Names of the poisons this model is given; null: all."""
    rates: list[Rate] | None = None
    """Rates instead of the poisons' own; null: those."""
    seconds: Annotated[float, Field(gt=0)] | None = None
    """What one training takes, for the estimate; null: unknown until one was done."""


class PoisonArm(SpecSection):
    """A poison of the train split."""

    plant: dict[str, str | int | float | bool | list[int] | list[float]]
    """A fault of docs/poison.md without split, rate and count."""
    rates: list[Rate] = Field(min_length=1)
    """Shares of the train split."""


class DoseSpec(SpecSection):
    """Valid AUC against the rate of each poison in train, with and without quarantine."""

    seed: Annotated[int, Field(ge=0, lt=2**62)] = 1
    """Another seed, other patches poisoned."""
    models: dict[str, Arm] = Field(min_length=1)
    poisons: dict[str, PoisonArm] = Field(min_length=1)
    quarantine: list[Quarantine] = Field(default=["exclude", "include"], min_length=1)
    replicates: Annotated[int, Field(ge=100, le=100_000)] = 1000
    """Bootstrap replicates of the intervals."""

    @model_validator(mode="after")
    def _known(self) -> "DoseSpec":
        for name, arm in self.models.items():
            for poison in set(arm.poisons or ()) - set(self.poisons):
                raise ValueError(f"models.{name} names the poison {poison}; there are {', '.join(self.poisons)}")
        return self


def read_dose_spec(path: Path) -> DoseSpec:
    """Read and check a study: its own keys, every plant, every config. Config paths become absolute. Raises ConfigError."""
    spec = read_spec(path, DoseSpec)
    arms = {}
    for name, arm in spec.models.items():
        config = (path.parent / arm.config).absolute()
        load(config, arm.set)
        arms[name] = arm.model_copy(update={"config": str(config)})
    for name, poison in spec.poisons.items():
        try:
            plant_of(poison, poison.rates[0])
        except ConfigError as e:
            raise ConfigError(f"{path}: poisons.{name}: {e.problem}") from None
    return spec.model_copy(update={"models": arms})


def plant_of(poison: PoisonArm, rate: float) -> Plant:
    """The plant of one cell. Raises ConfigError."""
    content = {"plant": [{**poison.plant, "split": "train", "rate": rate}]}
    return parse_spec(content, PoisonSpec).plant[0]
