"""Specs: small typed YAML files beside the config (what to poison, which study to run), with the same kind of messages.

A spec is a pydantic model; in lists of unions the key `kind` says which section an entry is.
"""

import difflib
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError

from .config import describe
from .errors import ConfigError
from .yamlfile import Lines, read_yaml

__all__ = ["SpecSection", "parse_spec", "read_spec"]


class SpecSection(BaseModel):
    """A section of a spec: no unknown keys, no conversions, nothing that is not finite."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        populate_by_name=True,
    )


Spec = TypeVar("Spec", bound=SpecSection)
_Key = tuple[str, ...]


def read_spec(path: Path, model: type[Spec]) -> Spec:
    """Read a YAML file as a `model`. Raises ConfigError naming file, line, key and what is valid."""
    content, lines = read_yaml(path)
    return parse_spec(content, model, path=path, lines=lines)


def parse_spec(content: Any, model: type[Spec], *, path: Path | None = None, lines: Lines | None = None) -> Spec:
    """A `model` from plain data. Raises ConfigError."""
    try:
        return model.model_validate(content)
    except ValidationError as e:
        problems = [_problem(error, content, model, path, lines or {}) for error in e.errors(include_url=False)]
        raise ConfigError("\n".join(dict.fromkeys(problems))) from None


def _problem(error: Any, content: Any, model: type[BaseModel], path: Path | None, lines: Lines) -> str:
    """One pydantic error in our words: place, key, bad value, what is valid."""
    key = _as_written(error["loc"], content)
    name = ".".join(key) or "the file"
    place = _place(key, path, lines)
    section = _section(key[:-1], content, model)
    if error["type"] == "extra_forbidden":
        valid = sorted(_schema(section)) if section else []
        near = difflib.get_close_matches(key[-1], valid, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]}?" if near else ""
        return f"{place}: there is no key {name}{hint} (valid here: {', '.join(valid)})"
    if error["type"] == "value_error":
        return f"{place}: {name}: {error['ctx']['error']}"
    if error["type"] == "missing":
        return f"{place}: the key {name} is missing (valid: {_valid(section, key)})"
    if error["type"] in {"union_tag_invalid", "union_tag_not_found"}:
        tags = [tag.strip(" '") for tag in error["ctx"].get("expected_tags", "").split(",")] if "ctx" in error else []
        given = error["input"].get("kind") if isinstance(error["input"], dict) else error["input"]
        near = difflib.get_close_matches(str(given), tags, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]}?" if near else ""
        valid_kinds = ", ".join(tag for tag in tags if tag) or "see docs/poison.md"
        return (
            f"{_place((*key, 'kind'), path, lines)}: {name}.kind = {given!r} is not valid{hint} (valid: {valid_kinds})"
        )
    return f"{place}: {name} = {_short(error['input'])} is not valid (valid: {_valid(section, key)})"


def _place(key: _Key, path: Path | None, lines: Lines) -> str:
    for length in range(len(key), 0, -1):
        if key[:length] in lines:
            return f"{path}:{lines[key[:length]]}"
    return str(path or "spec")


def _as_written(where: tuple[str | int, ...], content: Any) -> _Key:
    """pydantic puts a union's tag into the path (plant.0.nan.rate): keep only what the user wrote."""
    key: list[str] = []
    here = content
    for part in where:
        if isinstance(here, dict) and part not in here and here.get("kind") == part:
            continue
        key.append(str(part))
        here = here[part] if _holds(here, part) else None
    return tuple(key)


def _holds(value: Any, part: str | int) -> bool:
    return (isinstance(value, dict) and part in value) or (
        isinstance(value, list) and isinstance(part, int) and part < len(value)
    )


def _section(key: _Key, content: Any, model: type[BaseModel]) -> type[BaseModel] | None:
    """The section class that a path of keys leads to; None below a value."""
    annotation: Any = model
    here = content
    for part in key:
        here = here[int(part) if isinstance(here, list) else part] if here is not None else None
        found = _model_of(annotation, None)
        if found is not None:
            fields = {field.alias or name: field.annotation for name, field in found.model_fields.items()}
            annotation = fields.get(part)
        else:
            annotation = (get_args(annotation) or (None,))[-1]  # a list's entries, a dict's values
        if (chosen := _model_of(annotation, here)) is not None:
            annotation = chosen
    return _model_of(annotation, here)


def _model_of(annotation: Any, content: Any) -> type[BaseModel] | None:
    """The one model an annotation can be, by `kind` where there are several."""
    options = list(_models(annotation))
    if len(options) > 1 and isinstance(content, dict):
        options = [m for m in options if content.get("kind") in get_args(m.model_fields["kind"].annotation)]
    return options[0] if len(options) == 1 else None


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) in {Union, types.UnionType, Annotated}:
        for part in get_args(annotation):
            yield from _models(part)


def _schema(section: type[BaseModel]) -> dict[str, Any]:
    properties: dict[str, Any] = section.model_json_schema()["properties"]
    return properties


def _valid(section: type[BaseModel] | None, key: _Key) -> str:
    properties = _schema(section) if section else {}
    return describe(properties[key[-1]]) if key and key[-1] in properties else "see docs/poison.md"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
