"""Why two results differ, as far as what was recorded beside them tells: ranked, each with its evidence.

What differs in kind (hardware, data, settings, versions) has a fixed score; what differs in amount (others' load, clocks, quota)
is scored by how much of the change it would explain, and left out where it points the other way.
"""

import math
import statistics
from collections.abc import Callable, Sequence
from typing import Any

from .rows import IDENTITY

__all__ = ["causes"]

_LEAST = 0.02
"""A difference of amount below 2 % explains nothing."""
Content = dict[str, Any]
Found = dict[str, Any]


def causes(
    a: Content, b: Content, rows: Sequence[dict[str, Any]], ceilings: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """[{"cause", "evidence", "score" (0-1)}...], the likeliest first; [] where nothing that was recorded differs.

    `rows` and `ceilings` as `compare` has them, with "ratio" and "changed". Where no row changed, amounts have nothing to explain
    and only differences in kind are listed.
    """
    found = [*_hardware(a, b), *_subject(a, b), *_settings(a, b), *_threads(a, b, rows), *_software(a, b)]
    logs = [math.log(row["ratio"]["value"]) for row in rows if row["changed"]]
    observed = statistics.median(logs) if logs else 0.0
    if abs(observed) >= _LEAST:
        found += _amounts(a, b, rows, observed)
        found += _machine(ceilings, observed)
    return sorted(found, key=lambda one: -one["score"])


def _hardware(a: Content, b: Content) -> list[Found]:
    found = []
    for name, path in {
        "other CPU": ("cpu", "model"),
        "another number of cores": ("cpu", "available"),
        "other vector instructions": ("cpu", "capability"),
        "other GPU": ("gpu", "name"),
        "another amount of memory": ("memory_bytes",),
        "another node": ("slurm", "node"),
        "another partition": ("slurm", "partition"),
    }.items():
        one, other = (_at(content["environment"], *path) for content in (a, b))
        if one != other:
            score = 0.4 if name.startswith("another amount") else 0.8 if path[0] == "slurm" else 1.0
            found.append(_cause(name, f"{one} -> {other}", score))
    return found


def _subject(a: Content, b: Content) -> list[Found]:
    found = []
    for name, key in {
        "other patches": "store_sha256",
        "other files": "files_sha256",
        "other weights": "weights_sha256",
        "another split": "split",
    }.items():
        one, other = (content["subject"].get(key) for content in (a, b))
        if one != other:
            found.append(_cause(name, f"{_short(one)} -> {_short(other)}", 0.9))
    return found


def _settings(a: Content, b: Content) -> list[Found]:
    one, other = (_flat(content["subject"].get("settings") or {}) for content in (a, b))
    keys = [key for key in sorted({*one, *other}) if one.get(key) != other.get(key) and key != "data.store"]
    found = []
    if keys:
        told = ", ".join(f"{key} {_short(one.get(key))} -> {_short(other.get(key))}" for key in keys[:6])
        found.append(_cause("other settings", told + (", ..." if len(keys) > 6 else ""), 0.95))
    first, second = (content.get("effort") for content in (a, b))
    if first != second:
        found.append(_cause("another effort of measuring", f"{first} -> {second}", 0.3))
    return found


def _threads(a: Content, b: Content, rows: Sequence[dict[str, Any]]) -> list[Found]:
    pairs = {
        f"{one['threads']} -> {other['threads']}"
        for one, other in _pairs(a, b, rows)
        if one["threads"] != other["threads"]
    }
    return [_cause("other threads", "; ".join(sorted(pairs)), 0.9)] if pairs else []


def _software(a: Content, b: Content) -> list[Found]:
    found = []
    one, other = (content["environment"] for content in (a, b))
    versions = [
        f"{name} {_version(one, name)} -> {_version(other, name)}"
        for name in sorted({*(one.get("packages") or {}), *(other.get("packages") or {})})
        if _version(one, name) != _version(other, name)
    ]
    versions += [
        f"{key} {one.get(key)} -> {other.get(key)}"
        for key in ("histoproof", "python")
        if one.get(key) != other.get(key)
    ]
    if versions:
        found.append(_cause("other versions", ", ".join(versions), 0.7))
    if _at(one, "git", "commit") != _at(other, "git", "commit"):
        commits = (str(_at(env, "git", "commit"))[:10] for env in (one, other))
        found.append(_cause("another commit in the folder it ran in", " -> ".join(commits), 0.5))
    for name, key, score in (
        ("other numerical flags", "flags", 0.75),
        ("other environment variables", "variables", 0.75),
        ("another system", "platform", 0.4),
    ):
        if one.get(key) != other.get(key):
            found.append(_cause(name, _changes(one.get(key), other.get(key)), score))
    for name, key in (("another GPU driver", "driver"), ("another CUDA", "cuda"), ("another cuDNN", "cudnn")):
        if _at(one, "gpu", key) != _at(other, "gpu", key):
            found.append(_cause(name, f"{_at(one, 'gpu', key)} -> {_at(other, 'gpu', key)}", 0.6))
    return found


def _amounts(a: Content, b: Content, rows: Sequence[dict[str, Any]], observed: float) -> list[Found]:
    """What would make rows faster or slower, by how much: `speed` gives a number that a rate is in proportion to."""
    pairs = _pairs(a, b, [row for row in rows if row["changed"]])
    cores = [float(_at(content["environment"], "cpu", "available") or 1) for content in (a, b)]
    found = []
    for name, words, speed in _GAUGES:
        seen: list[tuple[float, float]] = []
        for one, other in pairs:
            values = [_speed(speed, row["conditions"], n) for row, n in ((one, cores[0]), (other, cores[1]))]
            if values[0] is not None and values[1] is not None:
                seen.append((values[0], values[1]))
        if not seen:
            continue
        first, second = (statistics.median(pair[i] for pair in seen) for i in (0, 1))
        if first <= 0 or second <= 0:
            continue
        found += _explained(name, words.format(first, second), math.log(second / first), observed)
    return found


def _machine(ceilings: Sequence[dict[str, Any]], observed: float) -> list[Found]:
    changed = [row for row in ceilings if row["changed"]]
    if not changed:
        return []
    expected = statistics.median(math.log(row["ratio"]["value"]) for row in ceilings)
    told = ", ".join(f"{row['name']} x {row['ratio']['value']:.2f}" for row in changed[:5])
    words = f"its ceilings, which use no code of ours, changed too: {told}"
    return _explained("the machine itself, or what else ran on it", words, expected, observed)


def _explained(name: str, evidence: str, expected: float, observed: float) -> list[Found]:
    """The cause, scored by the share of the observed change that it accounts for; none where it points the other way."""
    if abs(expected) < _LEAST or expected * observed < 0:
        return []
    return [_cause(name, evidence, 0.97 * min(expected / observed, observed / expected) ** 0.5)]


Speed = Callable[[dict[str, Any], float], float | None]


def _mid(name: str, scale: float = 1.0) -> Speed:
    def speed(conditions: dict[str, Any], _: float) -> float | None:
        value = _at(conditions, *name.split("."), "median")
        return None if value is None else float(value) * scale

    return speed


def _left(name: str) -> Speed:
    """What is left of 1 after a share."""

    def speed(conditions: dict[str, Any], _: float) -> float | None:
        value = _at(conditions, *name.split("."))
        return None if value is None else max(1 - float(value), 1e-3)

    return speed


def _free_cores(conditions: dict[str, Any], cores: float) -> float | None:
    """Cores that others leave, as the system or, where it cannot tell, the list of processes says."""
    others = _at(conditions, "busy_elsewhere_cores")
    others = _at(conditions, "other_processes", "cores") if others is None else others
    return None if others is None else max(cores - float(others), 0.05)


def _gpu_left(conditions: dict[str, Any], _: float) -> float | None:
    used = _at(conditions, "gpu", "utilisation_before", "median")
    return None if used is None else max(1 - float(used) / 100, 0.05)


_GAUGES: tuple[tuple[str, str, Speed], ...] = (
    ("others used the CPU", "cores left over by other processes {:.2f} -> {:.2f}", _free_cores),
    ("another machine took the CPU (steal)", "share of time not stolen {:.3f} -> {:.3f}", _left("steal_share")),
    ("the CPU quota throttled it", "share of periods not throttled {:.3f} -> {:.3f}", _left("throttled_share")),
    ("another CPU quota", "cores {:.2f} -> {:.2f}", lambda c, _: _at(c, "quota_cores")),
    ("memory was short", "share of time not stalled {:.3f} -> {:.3f}", _left("memory_stalled_share")),
    ("another CPU clock", "{:.0f} -> {:.0f} MHz", _mid("cpu_mhz")),
    ("another GPU clock", "{:.0f} -> {:.0f} MHz", _mid("gpu.sm_mhz")),
    ("others used the GPU", "share left before a turn {:.2f} -> {:.2f}", _gpu_left),
)
"""(cause, evidence, what a rate would be in proportion to)."""


def _speed(speed: Speed, conditions: dict[str, Any], cores: float) -> float | None:
    try:
        value = speed(conditions, cores)
        return None if value is None or not math.isfinite(float(value)) else float(value)
    except (TypeError, ValueError, OverflowError):
        return None


def _pairs(a: Content, b: Content, rows: Sequence[dict[str, Any]]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """The rows of both files that `rows` are of."""
    of_a, of_b = ({_key(row): row for row in content["rows"]} for content in (a, b))
    keys = dict.fromkeys(_key(row) for row in rows)
    return [(of_a[key], of_b[key]) for key in keys]


def _key(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row[part] for part in IDENTITY)


def _cause(name: str, evidence: str, score: float) -> Found:
    return {"cause": name, "evidence": evidence, "score": score}


def _at(content: Any, *path: str) -> Any:
    for part in path:
        content = content.get(part) if isinstance(content, dict) else None
    return content


def _flat(content: Any, prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    if not isinstance(content, dict):
        return {prefix.rstrip("."): content}
    for key, value in content.items():
        found |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found


def _changes(one: Any, other: Any) -> str:
    if not (isinstance(one, dict) and isinstance(other, dict)):
        return f"{one} -> {other}"
    keys = [key for key in sorted({*one, *other}) if one.get(key) != other.get(key)]
    return ", ".join(f"{key} {one.get(key)} -> {other.get(key)}" for key in keys)


def _version(environment: dict[str, Any], name: str) -> Any:
    return _at(environment, "packages", name, "version")


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 24 else text[:12]
