"""A space held against the config and the patches before anything is trained."""

import copy
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..config import Config, load, parse
from ..errors import ConfigError
from ..experiment import Setup, prepare
from ..yamlfile import Lines, read_yaml
from .space import corners, every_point, overrides, size, values
from .spec import SpaceSpec

__all__ = ["base_config", "check_space_on"]

_MOST_GRID = 100_000


def base_config(path: Path, sets: Sequence[str]) -> Config:
    """The config that a study varies, with paths that hold in any folder. Raises ConfigError."""
    config = load(path, sets)
    data = config.data.model_copy(update={"store": str(Path(config.data.store).absolute())})
    groups = config.evaluate.groups
    if groups.csv is not None:
        groups = groups.model_copy(update={"csv": str(Path(groups.csv).absolute())})
    return config.model_copy(update={"data": data, "evaluate": config.evaluate.model_copy(update={"groups": groups})})


def check_space_on(path: Path, sets: Sequence[str], file: Path, spec: SpaceSpec, lines: Lines) -> Setup:
    """Read the config at every corner of the space, and hold batch sizes and labels against the store.

    Returns the base experiment, set up. Raises ConfigError naming the space's line, DataError where the store cannot be used.
    """
    if spec.sampler.name == "grid" and every_point(spec.space) is None:
        key = next(key for key, dimension in spec.space.items() if values(dimension) is None)
        raise ConfigError(
            f"{_place(file, lines, key)}: a grid needs choices, int or a step; {key} is a continuous range",
            next=f"give {key} a step or choices, or use the sampler random",
        )
    if spec.sampler.name == "grid" and (size(spec, _MOST_GRID + 1) or 0) > _MOST_GRID:
        raise ConfigError(f"{file}: a grid of more than {_MOST_GRID:,} points", next="use the sampler random or tpe")
    _check_keys(file, spec, lines)
    content, config_lines = read_yaml(path)
    searched = [tuple(key.split(".")) for key in spec.space]
    kept = {place: n for place, n in config_lines.items() if not any(place[: len(key)] == key for key in searched)}
    batch_sizes = set()
    for point in corners(spec.space):
        try:
            chosen = [*sets, *overrides(point)]
            batch_sizes.add(parse(copy.deepcopy(content), chosen, path=path, lines=kept).train.batch_size)
        except ConfigError as e:
            raise _told(e, file, lines) from None
    setup = prepare(base_config(path, sets))
    for batch_size in sorted(batch_sizes):
        try:
            replace(setup.sampler, batch_size=batch_size)
        except ConfigError as e:
            raise ConfigError(f"{_place(file, lines, 'train.batch_size')}: {e.problem}", valid=e.valid) from None
    labels = setup.valid.labels
    if spec.metric != "loss" and labels is not None and len(set(labels[setup.valid_rows].tolist())) < 2:
        raise ConfigError(
            f"every usable valid patch has one label: {spec.metric} cannot tell points apart",
            next="use data with both classes in valid, or metric: loss",
        )
    return setup


def _check_keys(file: Path, spec: SpaceSpec, lines: Lines) -> None:
    for key in spec.space:
        if not re.fullmatch(r"[A-Za-z_0-9]+(\.[A-Za-z_0-9]+)*", key):
            raise ConfigError(f"{_place(file, lines, key)}: {key!r} is no config key", valid="e.g. optim.lr")


def _place(file: Path, lines: Lines, key: str) -> str:
    line = lines.get(("space", key))
    return f"{file}:{line}" if line else str(file)


def _told(error: ConfigError, file: Path, lines: Lines) -> ConfigError:
    """A config's error, with the space's line where it is the space's fault."""
    told = []
    for line in error.problem.splitlines():
        found = re.match(r"--set ([^=]+)=.*?: (?=there is no key|the key|\S+ = |\S+: )", line)
        place = _place(file, lines, found[1]) if found and ("space", found[1]) in lines else None
        text = line[found.end() :] if found and place else line
        whole = "whole number" in text and re.search(r" = -?\d+\.\d+ is not valid", text)
        told.append(f"{place}: {text}" + ("; add `int: true`" if whole else "") if place else line)
    return ConfigError("\n".join(told), next=error.next)
