"""YAML as config files mean it: version 1.2 numbers and booleans, no duplicate keys, and the line of every key.

PyYAML follows YAML 1.1, where `1e-3` is a string and `no` is false; a config must mean what it says.
"""

import re
from pathlib import Path
from typing import Any

import yaml

from .errors import ConfigError

__all__ = ["Lines", "parse_value", "read_yaml"]

_MOST_NODES = 100_000

Lines = dict[tuple[str, ...], int]
"""Line (from 1) of each key, by its path, e.g. ("optim", "lr"): 12; an entry of a list by its place, e.g. ("plant", "0")."""


class _Loader(yaml.SafeLoader):
    """SafeLoader with the scalars of YAML 1.2's core schema."""


_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9]+", "-+0123456789"),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+.0123456789",
    ),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), list(_first))


# Base 10 always: YAML 1.1 reads 010 as 8.
_Loader.add_constructor("tag:yaml.org,2002:int", lambda _, node: int(node.value))


def read_yaml(path: Path) -> tuple[dict[str, Any], Lines]:
    """The mapping in a YAML file, and where its keys are. Raises ConfigError naming the file and the line."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"no such config: {path}", next="see configs/ for examples") from None
    except (OSError, UnicodeDecodeError) as e:
        raise ConfigError(f"cannot read {path}: {e}") from None
    try:
        root = yaml.compose(text, Loader=_Loader)
        if root is None:
            return {}, {}
        if not isinstance(root, yaml.MappingNode):
            raise ConfigError(f"{path}: the file holds no mapping", valid="lines of `key: value`")
        if _expanded(root, {}) > _MOST_NODES:
            raise ConfigError(
                f"{path}: its anchors and aliases unfold to more than {_MOST_NODES:,} values", valid="a file for people"
            )
        lines = _lines(root, (), path)
        return _value(text), lines
    except yaml.MarkedYAMLError as e:
        where = f":{e.problem_mark.line + 1}" if e.problem_mark else ""
        raise ConfigError(f"{path}{where}: not valid YAML: {e.problem}") from None
    except (yaml.YAMLError, RecursionError, ValueError) as e:
        raise ConfigError(f"{path}: not valid YAML: {' '.join(str(e).split())}") from None


def parse_value(text: str) -> Any:
    """The value of `--set key=TEXT`, read as YAML; what is not valid YAML is the text itself."""
    try:
        return _value(text)
    except (yaml.YAMLError, RecursionError, ValueError):  # ValueError: a whole number of thousands of digits
        return text


def _value(text: str) -> Any:
    loader = _Loader(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


def _expanded(node: yaml.Node, known: dict[int, int]) -> int:
    """How many nodes there are when every alias is unfolded; each is counted once, so that a bomb does not go off here."""
    if not isinstance(node, yaml.CollectionNode):
        return 1
    if id(node) not in known:
        known[id(node)] = _MOST_NODES + 1  # a node that holds itself
        inner = [part for pair in node.value for part in pair] if isinstance(node, yaml.MappingNode) else node.value
        known[id(node)] = min(1 + sum(_expanded(part, known) for part in inner), _MOST_NODES + 1)
    return known[id(node)]


def _lines(node: yaml.MappingNode, path: tuple[str, ...], file: Path) -> Lines:
    found: Lines = {}
    for key_node, value_node in node.value:
        here = (*path, str(key_node.value))
        line = key_node.start_mark.line + 1
        if here in found:
            raise ConfigError(f"{file}:{line}: {'.'.join(here)} is given twice; first on line {found[here]}")
        found[here] = line
        if isinstance(value_node, yaml.MappingNode):
            found |= _lines(value_node, here, file)
        elif isinstance(value_node, yaml.SequenceNode):
            for place, entry in enumerate(value_node.value):
                found[*here, str(place)] = entry.start_mark.line + 1
                if isinstance(entry, yaml.MappingNode):
                    found |= _lines(entry, (*here, str(place)), file)
    return found
