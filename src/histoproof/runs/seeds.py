"""Seeds of one config together: mean, sd and t interval of a score over trainings that differ in nothing but the seed."""

import math
import statistics
from collections.abc import Sequence
from typing import Any

from ..bootstrap import t_quantile

__all__ = ["by_config", "scores_of", "spread"]


def by_config(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Finished runs that agree in config, data and primary score, whatever their seed, as one row each, in the order they came.

    Returns [{"group", "model", "primary", "runs", "seeds", "left_out": [{"run", "why"}...], "scores": {"auc": see `spread`,
    PRIMARY: the same}}...]. A seed counts once: its second training is no second draw, and is left out.
    """
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        if row["status"] == "finished" and row["group"] is not None:
            groups.setdefault(row["group"], []).append(row)
    return [_together(name, members) for name, members in groups.items()]


def _together(name: str, members: list[dict[str, Any]]) -> dict[str, Any]:
    first: dict[int, dict[str, Any]] = {}
    left_out = []
    for row in members:
        twin = first.setdefault(row["seed"], row)
        if twin is not row:
            same = "bit for bit" if twin["trail_sha256"] == row["trail_sha256"] else "with other bits"
            left_out.append({"run": row["run"], "why": f"seed {row['seed']} again, {same}: {twin['run']} counts"})
    counted = [first[seed] for seed in sorted(first)]
    return {
        "group": name,
        "model": members[0]["model"],
        "primary": members[0]["primary"],
        "runs": [row["run"] for row in counted],
        "seeds": [row["seed"] for row in counted],
        "left_out": left_out,
        "scores": scores_of([row["best"]["valid"] for row in counted], members[0]["primary"]),
    }


def scores_of(valid: Sequence[dict[str, Any]], primary: str) -> dict[str, dict[str, Any]]:
    """The spread of valid AUC and of the primary score over the best epochs' scores of several runs."""
    return {metric: spread([scores.get(metric) for scores in valid]) for metric in dict.fromkeys(("auc", primary))}


def spread(values: Sequence[float | None], level: float = 0.95) -> dict[str, Any]:
    """{"n", "mean", "sd", "low", "high"}, and "why" where something is missing.

    sd has n - 1 in its denominator; the interval is mean +- t sd / sqrt(n), t the quantile of Student's t with n - 1 degrees of
    freedom. It says how far another choice of seeds would move the mean; the patches are the same in every run, so it says
    nothing about other patches: for those see the run's own bootstrap intervals. It is not cut at 1. Values that are None
    (undefined in that run) are left out.
    """
    kept = [value for value in values if value is not None]
    n = len(kept)
    undefined = f"undefined in {len(values) - n} of {len(values)} runs" if n < len(values) else None
    row: dict[str, Any] = {"n": n, "mean": None, "sd": None, "low": None, "high": None}
    if n == 0:
        return row | {"why": undefined or "there are no runs"}
    row["mean"] = statistics.fmean(kept)
    if n == 1:
        return row | {"why": "; ".join(filter(None, (undefined, "one seed has no spread: train at least three")))}
    row["sd"] = statistics.stdev(kept)
    half = t_quantile((1 + level) / 2, n - 1) * row["sd"] / math.sqrt(n)
    row |= {"low": row["mean"] - half, "high": row["mean"] + half}
    return row | ({"why": undefined} if undefined else {})
