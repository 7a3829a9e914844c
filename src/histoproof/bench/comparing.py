"""`bench compare`: two results row by row and stage by stage, what changed beyond chance, and the likeliest cause.

The interval is of the ratio of medians, by a keyed percentile bootstrap of each file's samples (Efron & Tibshirani, An
Introduction to the Bootstrap, 1993). The test is Wilcoxon's rank sum (Mann & Whitney 1947), with Holm's correction over all of
it.
"""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import rng
from ..compare import holm
from .causes import causes
from .result import read_bench
from .rows import IDENTITY
from .words import name_of, number, scale_of

__all__ = ["MULTIPLICITY", "compare", "compare_words", "ratio_interval"]

_REPLICATES = 2000
_LEVEL = 0.05
MULTIPLICITY = (
    "changed: the 95 % interval of the ratio leaves out 1, and Wilcoxon's rank sum p is below 0.05 after Holm's correction over "
    "all rows and stages compared. Intervals themselves are not corrected. Samples of one run do not hold what differs "
    "from run to run: read changes of a few percent with care"
)


def compare(a: Path, b: Path) -> dict[str, Any]:
    """What changed from result `a` to result `b` (bench.json, or its folder), and why, as far as it was recorded.

    Returns {"identical", "a", "b": {"path", "kind", "bench_sha256", "started"}, "rows": [{"what", "model", "stage", "device",
    "batch_size", "precision", "variant", "a", "b", "ratio": {"value", "low", "high"}, "p_value", "p_holm", "changed": "faster" |
    "slower" | null}], "ceilings": the same by "name", "only_a", "only_b": [rows without a counterpart, with their status],
    "causes": [{"cause", "evidence", "score"}], "multiplicity"}. Raises DataError for what is no bench result.
    """
    contents = [read_bench(path) for path in (a, b)]
    first, second = contents
    rows, only_a, only_b = _joined(first, second)
    ceilings = [
        {"name": name, "unit": one["unit"], **_compared(one, second["ceilings"][name], f"ceiling {name}")}
        for name, one in first["ceilings"].items()
        if name in second["ceilings"] and second["ceilings"][name]["unit"] == one["unit"]
    ]
    for table in (rows, ceilings):  # ceilings are a family of their own: they say of the machine, not of the work
        for row, p in zip(table, holm([row["p_value"] for row in table]), strict=True):
            row["p_holm"], row["changed"] = p, _verdict(row["ratio"], p)
    identical = first["bench_sha256"] == second["bench_sha256"]
    return {
        "identical": identical,
        **{name: _about(path, one) for name, path, one in zip("ab", (a, b), contents, strict=True)},
        "rows": rows,
        "ceilings": ceilings,
        "only_a": only_a,
        "only_b": only_b,
        "causes": [] if identical or not rows else causes(first, second, rows, ceilings),
        "multiplicity": MULTIPLICITY,
    }


def compare_words(result: dict[str, Any]) -> list[str]:
    """The lines that the command prints; what no terminal should be sent, and a file may hold, is replaced."""
    return ["".join(c if c.isprintable() else "?" for c in line) for line in _lines(result)]


def _lines(result: dict[str, Any]) -> list[str]:
    if result["identical"]:
        return ["identical: both are the same measurement"]
    a, b, rows = result["a"], result["b"], result["rows"]
    lines = [f"A: {a['kind']} {a['path']}, {a['started']}", f"B: {b['kind']} {b['path']}, {b['started']}"]
    if not rows:
        other = "" if a["kind"] == b["kind"] else f": A is of bench {a['kind']}, B of bench {b['kind']}"
        lines.append(f"no row was measured in both{other}")
    changed = [row for row in rows if row["changed"]]
    if rows:
        lines.append(
            f"{len(changed)} of {len(rows)} rates changed ({len({_key(row) for row in rows})} rows, by stage):"
        )
    if len({row["changed"] for row in changed}) > 1:
        lines.append("they went both ways: no one cause explains all of them")
    lines += [_words(row) for row in sorted(changed, key=lambda row: -abs(math.log(row["ratio"]["value"])))]
    if rows and not changed:
        widest = max(rows, key=lambda row: abs(math.log(row["ratio"]["value"])))
        lines.append(f"none can be told from chance; the largest ratio: {_words(widest)}")
    machine = [row for row in result["ceilings"] if row["changed"]]
    lines += [f"the machine itself: {row['name']} {_ratio(row)}" for row in machine]
    for name in ("only_a", "only_b"):
        if result[name]:
            told = [f"{name_of(row)} ({row['status'].replace('_', ' ')})" for row in result[name]]
            few = ", ".join(told[:4]) + (", ..." if len(told) > 4 else "")
            lines.append(f"measured in {name[-1].upper()} only: {len(told)} rows: {few}")
    if rows:
        lines += [*_cause_words(result["causes"], bool(changed)), result["multiplicity"]]
    return lines


def ratio_interval(a: Sequence[float], b: Sequence[float], name: str, level: float = 0.95) -> tuple[float, float]:
    """The percentile interval of median(b) / median(a) over 2,000 bootstrap replicates; a function of the samples and `name`."""
    drawn = [_medians(np.asarray(found, np.float64), f"{name} {which}") for found, which in ((a, "a"), (b, "b"))]
    low, high = np.quantile(drawn[1] / drawn[0], [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _medians(samples: NDArray[np.float64], name: str) -> NDArray[np.float64]:
    step = max(1, (1 << 20) // len(samples))
    key = rng.key(0, "bench compare", name)
    found = []
    for start in range(0, _REPLICATES, step):
        replicates = np.arange(start, min(start + step, _REPLICATES), dtype=np.int64)
        places = (rng.uniform_at(key, replicates, len(samples)) * len(samples)).astype(np.int64)
        found.append(np.median(samples[places], axis=1))
    return np.concatenate(found)


def _compared(a: dict[str, Any], b: dict[str, Any], name: str) -> dict[str, Any]:
    value = b["median"] / a["median"]
    if min(len(a["samples"]), len(b["samples"])) < 2:
        ratio: dict[str, Any] = {"value": value, "low": None, "high": None}
        return {"a": a["median"], "b": b["median"], "ratio": ratio, "p_value": None}
    low, high = ratio_interval(a["samples"], b["samples"], name)
    ratio = {"value": value, "low": min(low, value), "high": max(high, value)}
    return {"a": a["median"], "b": b["median"], "ratio": ratio, "p_value": _p_value(a["samples"], b["samples"])}


def _p_value(a: Sequence[float], b: Sequence[float]) -> float:
    from scipy.stats import mannwhitneyu

    pooled = [*a, *b]
    if min(pooled) == max(pooled):
        return 1.0
    exact = len(set(pooled)) == len(pooled) and len(pooled) <= 200
    return float(mannwhitneyu(a, b, method="exact" if exact else "asymptotic").pvalue)


def _verdict(ratio: dict[str, Any], p: float | None) -> str | None:
    if p is None or p >= _LEVEL or ratio["low"] is None or ratio["low"] <= 1 <= ratio["high"]:
        return None
    return "faster" if ratio["value"] > 1 else "slower"


def _joined(
    a: dict[str, Any], b: dict[str, Any]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[dict[str, Any]]]:
    """(what both measured, rows of a that b has not, rows of b that a has not). A row that a file has twice counts once."""
    of_a, of_b = ({_key(row): row for row in content["rows"]} for content in (a, b))
    both, found = [key for key in of_a if key in of_b], []
    for key in both:
        for stage, one, other in _stages(of_a[key], of_b[key]):
            name = "|".join(map(str, (*key, stage)))
            named = {part: of_a[key][part] for part in IDENTITY}
            found.append({**named, "stage": stage, **_compared(one, other, name)})
    measured = {_key(row) for row in found}
    alone = [
        [_short(row) for key, row in mine.items() if key not in measured and (row["images_per_s"] or key not in other)]
        for mine, other in ((of_a, of_b), (of_b, of_a))
    ]
    return found, alone[0], alone[1]


def _stages(a: dict[str, Any], b: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    pairs = {"end_to_end": (a["images_per_s"], b["images_per_s"])}
    pairs |= {name: (found, b["stages"].get(name)) for name, found in a["stages"].items()}
    for name, (one, other) in pairs.items():
        if one is not None and other is not None:
            yield name, one, other


def _key(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row[part] for part in IDENTITY)


def _short(row: dict[str, Any]) -> dict[str, Any]:
    return {**{part: row[part] for part in IDENTITY}, "status": row["status"], "reason": row["reason"]}


def _about(path: Path, content: dict[str, Any]) -> dict[str, Any]:
    started = content["environment"].get("started")
    return {"path": str(path), "kind": content["kind"], "bench_sha256": content["bench_sha256"], "started": started}


def _words(row: dict[str, Any]) -> str:
    p = "" if row["p_holm"] is None else f", p {row['p_holm']:.2g}"
    changed = row["changed"] or "unchanged"
    return f"  {changed}: {name_of(row)}, {row['stage'].replace('_', ' ')}: {_ratio(row)}{p}"


def _ratio(row: dict[str, Any]) -> str:
    ratio = row["ratio"]
    between = "" if ratio["low"] is None else f" ({ratio['low']:.3f} to {ratio['high']:.3f})"
    factor, unit = scale_of(row.get("unit", "images/s"))
    return f"{number(row['a'] / factor)} -> {number(row['b'] / factor)} {unit}, x {ratio['value']:.3f}{between}"


def _cause_words(found: list[dict[str, Any]], changed: bool) -> list[str]:
    if not found:
        explains = " and would explain it: measure both again, in turn" if changed else ""
        return [f"nothing that was recorded differs{explains}"]
    head = "the likeliest causes:" if changed else "what differs nonetheless:"
    return [head, *(f"  {n}. {one['cause']}: {one['evidence']}" for n, one in enumerate(found, start=1))]
