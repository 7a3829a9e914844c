"""Conditions on runs, `key=value`, `key<value` and so on, and their order."""

import difflib
import re
from collections.abc import Callable, Sequence
from operator import eq, ge, gt, le, lt, ne
from typing import Any

from ..errors import ConfigError
from ..yamlfile import parse_value

__all__ = ["matching", "ordered", "value_of"]

_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {"<=": le, ">=": ge, "!=": ne, "<": lt, ">": gt, "=": eq}
_FIELDS = ("run", "name", "status", "seed", "model", "epochs", "steps", "primary", "started", "group")
_EXAMPLE = "e.g. optim.lr<0.01, model.name=cnn, auc>=0.9, status=finished"


def value_of(row: dict[str, Any], key: str) -> Any:
    """What a row says under `key`: one of its fields, a valid score of its best epoch, or a key of its config. None: nothing."""
    if key in _FIELDS:
        return row[key]
    scores = row["best"]["valid"] if row["best"] else {}
    return scores.get(key.removeprefix("valid."), row["config"].get(key))


def matching(rows: list[dict[str, Any]], where: Sequence[str]) -> list[dict[str, Any]]:
    """The rows for which every condition holds. Raises ConfigError for a condition that no run could be asked."""
    every = rows
    for text in where:
        key, compare, wanted = _parsed(text)
        _known(every, key)
        rows = [row for row in rows if _holds(value_of(row, key), compare, wanted, text)]
    return rows


def ordered(rows: list[dict[str, Any]], sort: str | None) -> list[dict[str, Any]]:
    """Rows in the order of a key, with a minus before it falling; those that say nothing under it come last."""
    if sort is None:
        return rows
    key = sort.removeprefix("-")
    _known(rows, key)
    having = [row for row in rows if value_of(row, key) is not None]
    rest = [row for row in rows if value_of(row, key) is None]
    numbers = all(_is_number(value_of(row, key)) for row in having)
    having.sort(
        key=lambda row: value_of(row, key) if numbers else str(value_of(row, key)), reverse=sort.startswith("-")
    )
    return having + rest


def _parsed(text: str) -> tuple[str, Callable[[Any, Any], bool], Any]:
    found = re.fullmatch(r"\s*([^<>=!\s]+)\s*(<=|>=|!=|<|>|=)\s*(.*?)\s*", text)
    if found is None:
        raise ConfigError(f"--where {text!r} is no condition", valid=f"KEY=VALUE, or with != < <= > >=; {_EXAMPLE}")
    key, operator, value = found.groups()
    return key, _OPERATORS[operator], parse_value(value)


def _holds(value: Any, compare: Callable[[Any, Any], bool], wanted: Any, text: str) -> bool:
    if compare in (eq, ne):
        same = type(value) is type(wanted) or (_is_number(value) and _is_number(wanted))
        return compare(value, wanted) if same else compare(str(value), str(wanted))
    if not _is_number(wanted):
        raise ConfigError(f"--where {text!r} compares with {wanted!r}", valid=f"a number after < <= > >=; {_EXAMPLE}")
    return _is_number(value) and compare(value, wanted)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _known(rows: list[dict[str, Any]], key: str) -> None:
    """Refuse a key that no run knows: a typing mistake must not read as "there are none"."""
    if key in _FIELDS or not rows:
        return
    scores = {name for row in rows if row["best"] for name in row["best"]["valid"]}
    keys = scores | {f"valid.{name}" for name in scores} | {name for row in rows for name in row["config"]}
    if key in keys:
        return
    ending = sorted(name for name in keys if name.endswith(f".{key}"))
    near = ending or difflib.get_close_matches(key, [*_FIELDS, *keys], n=1, cutoff=0.5)
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    raise ConfigError(
        f"no run here knows the key {key}{hint}",
        valid=f"{', '.join(_FIELDS)}; valid scores ({', '.join(sorted(scores)) or 'none yet'}); config keys such as optim.lr",
    )
