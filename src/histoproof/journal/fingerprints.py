"""Digests of every number in a file of evidence, so that a later check names the number that was changed.

journal.json keeps them: short (8 hexadecimal digits) because the file's whole SHA-256 stands beside them. They name what was
changed; that something was changed, the SHA-256 says.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from ..files import canonical
from ..runs.status import flattened

__all__ = ["changes", "fingerprint"]

_MOST_LINES, _MOST_KEYS, _MOST_SHOWN = 20_000, 4_000, 5


def fingerprint(path: Path) -> dict[str, Any]:
    """{"keys": {dotted key: digest}} of a JSON file, {"lines": [digest...]} of JSON lines; {} of others and of very long ones."""
    if path.suffix == ".json":
        keys = _keys(path)
        return {} if keys is None or len(keys) > _MOST_KEYS else {"keys": {k: _short(v) for k, v in keys.items()}}
    if path.suffix == ".jsonl":
        lines = path.read_bytes().splitlines()
        return {} if len(lines) > _MOST_LINES else {"lines": [hashlib.sha256(line).hexdigest()[:8] for line in lines]}
    return {}


def changes(path: Path, kept: dict[str, Any]) -> list[str]:
    """What is not as it was, in words, the first few; [] where `kept` cannot tell."""
    found: list[str] = []
    if "keys" in kept:
        now = _keys(path)
        if now is None:
            return [f"{path} is no JSON any more"]
        for key in dict.fromkeys([*kept["keys"], *now]):
            if key not in now:
                found.append(f"{path}: {key} is gone")
            elif kept["keys"].get(key) != _short(now[key]):
                found.append(f"{path}: {key} is {canonical(now[key])} now, and was not")
    elif "lines" in kept:
        lines = path.read_bytes().splitlines()
        if len(lines) != len(kept["lines"]):
            found.append(f"{path} has {len(lines)} lines now, and had {len(kept['lines'])}")
        for number, (line, digest) in enumerate(zip(lines, kept["lines"], strict=False), start=1):
            if hashlib.sha256(line).hexdigest()[:8] != digest:
                found.append(f"{path}:{number} is another line now: {line.decode(errors='replace')[:300]}")
    return found[:_MOST_SHOWN]


def _keys(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_bytes())
    except ValueError:
        return None
    return flattened(content) if isinstance(content, dict) else {"": content}


def _short(value: Any) -> str:
    return hashlib.sha256(canonical(value).encode()).hexdigest()[:8]
