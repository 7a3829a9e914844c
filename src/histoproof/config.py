"""The experiment's configuration: one typed, strict YAML file. Every key, its unit and its range stand here.

`load` reads a file and --set overrides into a Config; `Config.as_dict` is the resolved form kept with the run.
Stages are handed their own section, never the whole.
"""

import difflib
import types
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from .errors import ConfigError
from .yamlfile import Lines, parse_value, read_yaml

__all__ = [
    "DEFAULT_GROUPS",
    "AugmentConfig",
    "CnnConfig",
    "Config",
    "ConstantConfig",
    "CosineConfig",
    "DataConfig",
    "EvaluateConfig",
    "GroupsConfig",
    "MlpConfig",
    "ModelConfig",
    "MonaiConfig",
    "OneCycleConfig",
    "OptimConfig",
    "PlateauConfig",
    "ScheduleConfig",
    "StepConfig",
    "TrainConfig",
    "describe",
    "identity",
    "load",
    "parse",
    "shipped_config",
]

Fraction = Annotated[float, Field(ge=0, le=1)]


class _Section(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


DEFAULT_GROUPS = "wsi"
"""The official meta column of the slide."""


class GroupsConfig(_Section):
    """Which column says what belongs together (slide, site, stain cluster), for intervals and slices."""

    column: Annotated[str, Field(min_length=1)] | None = DEFAULT_GROUPS
    """A column of the store's meta.csv, or of `csv`; null: patches stand alone, as they do where the store has no wsi."""
    csv: str | None = None
    """A CSV with one row a patch, in the split's order; `{split}` in the path is replaced by train, valid or test."""


class DataConfig(_Section):
    """Where the patches are and which of them are drawn."""

    store: Annotated[str, Field(min_length=1)] = "store"
    """Folder made by `histoproof data pack`."""
    sampling: Literal["natural", "balanced"] = "natural"
    """natural: every patch once an epoch. balanced: as many draws, half from each class."""
    standardize: Literal["none", "train"] = "none"
    """none: pixels / 255. train: then minus mean, over standard deviation, per channel, of the train split."""
    quarantine: Literal["exclude", "include"] = "exclude"
    """Whether quarantined patches are left out of training and scoring."""
    residency: Literal["auto", "disk", "ram", "device"] = "auto"
    """Where pixels are read from; changes speed, never results. auto: a GPU's memory if it fits,
    else disk (through the page cache)."""
    prefetch: Annotated[int, Field(ge=0, le=64)] | None = None
    """Batches prepared ahead by a thread of its own; 0: none. null: 4 for a GPU; on CPUs the next one, by the worker that has
    nothing to do. Changes speed, never results."""
    verify: bool = True
    """Digest the store's splits before training and refuse one that was changed after packing."""
    partition: Annotated[str, Field(min_length=1)] | None = None
    """A partition made by `histoproof data split`: its parts are train and valid then. null: the store's own splits."""
    fold: Annotated[int, Field(ge=0)] | None = None
    """Of a partition into folds, the one that is valid, from 0; the others are train."""

    @model_validator(mode="after")
    def _fold_of_something(self) -> "DataConfig":
        if self.fold is not None and self.partition is None:
            raise ValueError(
                f"fold = {self.fold} needs a partition: data.partition names one made by `histoproof data split`"
            )
        return self


class MlpConfig(_Section):
    """Multi-layer perceptron on the flattened pixels."""

    name: Literal["mlp"]
    hidden: Annotated[list[Annotated[int, Field(ge=1, le=65536)]], Field(max_length=16)] = [64, 32]
    """Units of each hidden layer; ReLU between."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.3
    """Share of each hidden layer's units set to 0 in a training step."""


class CnnConfig(_Section):
    """Our compact residual CNN: a stride-2 stem, one residual block of two 3x3 convolutions a stage, mean pooling."""

    name: Literal["cnn"]
    widths: Annotated[list[Annotated[int, Field(ge=1, le=4096)]], Field(min_length=1, max_length=5)] = [32, 64, 128]
    """Channels of each stage; every stage halves the resolution (stem: 48 px, then 24, 12, 6, 3, 2)."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the pooled features set to 0 in a training step."""


class MonaiConfig(_Section):
    """A standard architecture from MONAI, from random weights; needs `pip install histoproof[models]`."""

    name: Literal["densenet121", "resnet18"]


ModelConfig = Annotated[MlpConfig | CnnConfig | MonaiConfig, Field(discriminator="name")]


class AugmentConfig(_Section):
    """Random changes of training patches, keyed by (seed, epoch, patch index)."""

    d4: bool = False
    """One of the 8 rotations and flips of the square."""
    brightness: Fraction = 0.0
    """Shift drawn from +-this, in units of the full range."""
    contrast: Fraction = 0.0
    """Factor about mid-grey drawn from 1 +- this."""
    channel: Fraction = 0.0
    """Factor of each colour channel drawn from 1 +- this."""


class OptimConfig(_Section):
    """Optimizer."""

    name: Literal["sgd", "adamw"] = "sgd"
    lr: Annotated[float, Field(gt=0, le=10)] = 0.001
    """Learning rate per mean-loss step; the schedule multiplies it."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """SGD's momentum, or AdamW's beta1."""
    weight_decay: Annotated[float, Field(ge=0, le=10)] = 0.0
    """L2 penalty (sgd) or decoupled decay (adamw) of weights; biases and norms have none."""
    nesterov: bool = False
    """SGD only: look ahead along the momentum."""
    max_grad_norm: Annotated[float, Field(gt=0)] | None = 1.0
    """Gradients with a larger L2 norm are scaled down to it; null: never."""

    @model_validator(mode="after")
    def _consistent(self) -> "OptimConfig":
        if self.nesterov and not (self.name == "sgd" and self.momentum > 0):
            raise ValueError("nesterov = true needs name: sgd and a momentum > 0")
        return self


class ConstantConfig(_Section):
    """The learning rate stays."""

    name: Literal["constant"]


class StepConfig(_Section):
    """The learning rate is multiplied by `factor` every `every_epochs`."""

    name: Literal["step"]
    every_epochs: Annotated[int, Field(ge=1)] = 10
    """Epochs between two falls."""
    factor: Annotated[float, Field(gt=0, le=1)] = 0.1
    """What the learning rate is multiplied by."""


class CosineConfig(_Section):
    """Linear warm-up, then half a cosine down to `min_lr`."""

    name: Literal["cosine"]
    warmup_epochs: Annotated[float, Field(ge=0)] = 0.0
    """Epochs of linear rise; a fraction is allowed."""
    min_lr: Annotated[float, Field(ge=0)] = 0.0
    """Learning rate of the last step."""


class OneCycleConfig(_Section):
    """From lr / start_divisor up to lr, then down to lr / start_divisor / end_divisor, both along a cosine (Smith 2018)."""

    name: Literal["onecycle"]
    warmup: Annotated[float, Field(gt=0, lt=1)] = 0.3
    """Fraction of all steps that rise."""
    start_divisor: Annotated[float, Field(ge=1)] = 25.0
    """The first step's learning rate is optim.lr over this."""
    end_divisor: Annotated[float, Field(ge=1)] = 1e4
    """The last step's learning rate is the first's over this."""


class PlateauConfig(_Section):
    """The learning rate is multiplied by `factor` when valid loss has not fallen by a relative `threshold` for more than
    `patience` epochs (PyTorch's ReduceLROnPlateau, mode min, threshold mode rel)."""

    name: Literal["plateau"]
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """What the learning rate is multiplied by."""
    patience: Annotated[int, Field(ge=0)] = 2
    """Epochs without improvement that are waited for."""
    min_lr: Annotated[float, Field(ge=0)] = 1e-6
    """The learning rate never falls below it."""
    threshold: Annotated[float, Field(ge=0)] = 1e-4
    """An improvement is a valid loss below (1 - threshold) times the best."""


ScheduleConfig = Annotated[
    ConstantConfig | StepConfig | CosineConfig | OneCycleConfig | PlateauConfig, Field(discriminator="name")
]


class TrainConfig(_Section):
    """The loop: how long, on what, in which arithmetic, shared by how many."""

    epochs: Annotated[int, Field(ge=1, le=100_000)] = 5
    """Passes over the train split."""
    batch_size: Annotated[int, Field(ge=1, le=1_000_000)] = 64
    """Patches per step; at most as many as the train split has."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Arithmetic of the forward pass; weights are always float32."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: a GPU if there is one."""
    shards: Annotated[int, Field(ge=1, le=1024)] = 4
    """A batch is cut into this many parts, each computed alone with one thread and summed in a fixed order: so the number
    of workers cannot change the bits. 1 gives that up: bits then depend on the number of threads. An MLP whose first layer takes
    the pixels is computed for the whole batch instead, that layer in four fixed blocks."""
    workers: Annotated[int, Field(ge=1, le=1024)] | None = None
    """Threads that share the work; null: as many as there are cores, at most `shards`."""
    checkpoint_every_steps: Annotated[int, Field(ge=1)] | None = None
    """Also write checkpoints/last within an epoch, every so many steps; null: at each epoch's end."""
    weights_digest_every_steps: Annotated[int, Field(ge=1)] = 100
    """How often the trail holds a digest of all weights, besides each epoch's end."""


class EvaluateConfig(_Section):
    """How a model is scored."""

    primary: Literal["f2", "f1", "auc", "average_precision", "balanced_accuracy", "accuracy"] = "f2"
    """The metric a champion is chosen by."""
    best_by: Literal["auc", "f2", "f1", "average_precision", "loss"] = "auc"
    """The valid metric that decides which epoch is checkpoints/best."""
    threshold: Fraction = 0.5
    """A patch is called tumour when its probability is at least this."""
    tta: Literal["none", "d4"] = "none"
    """Test-time averaging of probabilities over the 8 rotations and flips."""
    batch_size: Annotated[int, Field(ge=1, le=65536)] = 128
    """Patches per forward pass."""
    bootstrap: Annotated[int, Field(ge=100, le=100_000)] = 1000
    """Bootstrap replicates of each interval."""
    groups: GroupsConfig = GroupsConfig()


class Config(_Section):
    """One experiment."""

    seed: Annotated[int, Field(ge=0, lt=2**63)] = 42
    data: DataConfig = DataConfig()
    model: ModelConfig
    augment: AugmentConfig = AugmentConfig()
    optim: OptimConfig = OptimConfig()
    schedule: ScheduleConfig = ConstantConfig(name="constant")
    train: TrainConfig = TrainConfig()
    evaluate: EvaluateConfig = EvaluateConfig()

    def as_dict(self) -> dict[str, Any]:
        """The resolved config: every key, no hidden default."""
        return self.model_dump(mode="json")

    def as_yaml(self) -> str:
        """The resolved config as YAML that `load` reads back to the same Config."""
        return yaml.safe_dump(self.as_dict(), sort_keys=False)


def identity(config: Config) -> dict[str, Any]:
    """Every key that can change a weight or which epoch is best: not where the store lies, how the work is shared out, nor how
    scores are told."""
    content = config.as_dict()
    for section, neutral in _NEUTRAL.items():
        for key in neutral:
            del content[section][key]
    for key in ("partition", "fold"):  # without one, an experiment is what it was before there were partitions
        if content["data"][key] is None:
            del content["data"][key]
    return content


_NEUTRAL = {
    "data": ("store", "residency", "prefetch", "verify"),
    "train": ("workers", "checkpoint_every_steps", "device"),
    "evaluate": ("primary", "tta", "bootstrap", "groups"),
}


def load(path: Path, overrides: Sequence[str] = ()) -> Config:
    """Read a config file with `key.path=value` overrides. Raises ConfigError naming file, line, key and what is valid."""
    content, lines = read_yaml(path)
    return parse(content, overrides, path=path, lines=lines)


def shipped_config(name: str) -> Path:
    """A config that comes with histoproof: from the package when installed from a wheel, else from the repository."""
    inside = Path(__file__).parent / "configs" / f"{name}.yaml"
    return inside if inside.is_file() else Path(__file__).parents[2] / "configs" / f"{name}.yaml"


def parse(
    content: dict[str, Any], overrides: Sequence[str] = (), *, path: Path | None = None, lines: Lines | None = None
) -> Config:
    """A Config from plain data, with `key.path=value` overrides."""
    origin = _Origin(path, lines or {}, {})
    for override in overrides:
        _override(content, override, origin)
    try:
        return Config.model_validate(content)
    except ValidationError as e:
        problems = list(dict.fromkeys(_problem(error, content, origin) for error in e.errors(include_url=False)))
        raise ConfigError("\n".join(problems), next="every key with its range: docs/config.md") from None


class _Origin:
    """Where a key came from: a line of the file, or a --set."""

    def __init__(self, path: Path | None, lines: Lines, sets: dict[tuple[str, ...], str]) -> None:
        self.path, self.lines, self.sets = path, lines, sets

    def of(self, key: tuple[str, ...]) -> str:
        """The place to look for `key`, or for the nearest section that holds it."""
        for length in range(len(key), 0, -1):
            if key[:length] in self.sets:
                return f"--set {self.sets[key[:length]]}"
            if key[:length] in self.lines:
                return f"{self.path}:{self.lines[key[:length]]}"
        return str(self.path or "config")


def _override(content: dict[str, Any], override: str, origin: _Origin) -> None:
    name, equals, text = override.partition("=")
    keys = tuple(name.strip().split("."))
    if not equals or not all(keys):
        raise ConfigError(f"--set {override!r} is not key=value", valid="e.g. --set optim.lr=0.01")
    section = content
    for key in keys[:-1]:
        if section.get(key) is None:
            section[key] = {}
        section = section[key]
        if not isinstance(section, dict):
            raise ConfigError(f"--set {override}: {key} is a value, not a section", valid="e.g. --set optim.lr=0.01")
    section[keys[-1]] = parse_value(text)
    origin.sets[keys] = override


def _problem(error: Any, content: dict[str, Any], origin: _Origin) -> str:
    """One pydantic error in our words: place, key, bad value, what is valid."""
    where = tuple(str(part) for part in error["loc"])
    key = _without_union_tags(where, content)
    name = ".".join(key)
    section = _section_of(key[:-1], content)
    if error["type"] == "extra_forbidden":
        valid = sorted(section.model_fields) if section else []
        near = difflib.get_close_matches(key[-1], valid, n=1, cutoff=0.5)
        hint = f"; did you mean {'.'.join((*key[:-1], near[0]))}?" if near else ""
        return f"{origin.of(key)}: there is no key {name}{hint} (valid here: {', '.join(valid)})"
    if error["type"] == "value_error":
        return f"{origin.of(key)}: {name}: {error['ctx']['error']}"
    if error["type"] == "missing":
        return f"{origin.of(key[:-1])}: the key {name} is missing (valid: {_valid(section, key[-1])})"
    if error["type"] in ("union_tag_invalid", "union_tag_not_found"):
        names = error["ctx"].get("expected_tags") or _union_names(section, key[-1])
        given = error["input"].get("name") if isinstance(error["input"], dict) else error["input"]
        return (
            f"{origin.of((*key, 'name'))}: {name}.name = {given!r} is not valid (valid: {names.replace(chr(39), '')})"
        )
    return f"{origin.of(key)}: {name} = {_short(error['input'])} is not valid (valid: {_valid(section, key[-1])})"


def _without_union_tags(where: tuple[str, ...], content: Any) -> tuple[str, ...]:
    """pydantic puts a union's tag into the path (model.mlp.hidden): keep only keys that the user wrote."""
    tagged = {("model",), ("schedule",)}
    return (
        where[:1] + where[2:]
        if where[:1] in tagged and len(where) > 1 and where[1] == _name(content, where[0])
        else where
    )


def _name(content: Any, section: str) -> str | None:
    value = content.get(section) if isinstance(content, dict) else None
    return value.get("name") if isinstance(value, dict) else None


def _section_of(key: tuple[str, ...], content: dict[str, Any]) -> type[BaseModel] | None:
    """The section class that a path of keys leads to; None below a value."""
    section: type[BaseModel] = Config
    for part in key:
        field = section.model_fields.get(part)
        options = list(_models(field.annotation)) if field else []
        if len(options) > 1:
            name = _name(content, part)
            options = [m for m in options if name in get_args(m.model_fields["name"].annotation)]
        if len(options) != 1:
            return None
        section = options[0]
    return section


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) in (Union, types.UnionType, Annotated):
        for part in get_args(annotation):
            yield from _models(part)


def _union_names(section: type[BaseModel] | None, key: str) -> str:
    models = _models(section.model_fields[key].annotation) if section else ()
    return ", ".join(name for m in models for name in get_args(m.model_fields["name"].annotation))


def _valid(section: type[BaseModel] | None, key: str) -> str:
    """The valid values of a key, from its own JSON schema, so that they cannot drift from the code."""
    if section is None or key not in section.model_fields:
        return "see docs/config.md"
    return describe(section.model_json_schema()["properties"][key])


def describe(schema: dict[str, Any]) -> str:
    """A JSON schema's values in words: "a number > 0 and <= 10", "one of sgd, adamw"."""
    if "anyOf" in schema:
        return " or ".join(describe(option) for option in schema["anyOf"])
    if "enum" in schema or "const" in schema:
        options = schema.get("enum", [schema.get("const")])
        return "one of " + ", ".join(map(str, options)) if len(options) > 1 else str(options[0])
    kind = schema.get("type")
    if kind == "null":
        return "null"
    if kind == "array":
        return f"a list of {describe(schema['items'])}".replace("of a whole number", "of whole numbers")
    if kind is None or kind == "object":
        return "a section with keys"
    words = {"integer": "a whole number", "number": "a number", "boolean": "true or false", "string": "text"}[kind]
    bounds = [
        f"{sign} {schema[name]}"
        for name, sign in (("exclusiveMinimum", ">"), ("minimum", ">="), ("exclusiveMaximum", "<"), ("maximum", "<="))
        if name in schema
    ]
    return " ".join([words, " and ".join(bounds)]).strip()


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
