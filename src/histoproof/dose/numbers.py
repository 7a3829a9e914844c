"""What a dose-response study says, from its cells: means, paired differences with intervals, and a verdict."""

import math
from collections.abc import Callable, Sequence
from statistics import fmean, stdev
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import bootstrap
from ..evaluate import Predictions

__all__ = ["LEAKS", "auc_many", "differences", "points", "verdict"]

LEAKS = ("cross_split_duplicate",)
"""Poisons that flatter the score on valid instead of harming it."""

Rows = Sequence[dict[str, Any]]
Floats = NDArray[np.float64]
Read = Callable[[dict[str, Any]], Predictions]


def points(
    rows: Rows, read: Read, *, groups: NDArray[np.str_] | None, replicates: int, seed: int
) -> list[dict[str, Any]]:
    """One point a curve and rate: the mean AUC over seeds, with a 95 % interval made as in `differences`."""
    out = []
    names = ("poison", "kind", "rate", "quarantine", "model")
    for key, members in _grouped(rows, names).items():
        scored = [row for row in members if row["auc"] is not None]
        if scored:
            values = [row["auc"] for row in scored]
            low, high = _interval(values, [(read(row),) for row in scored], groups, replicates, seed)
            found = {"n_seeds": len(values), "auc": fmean(values), "low": max(low, 0.0), "high": min(high, 1.0)}
            out.append({**dict(zip(names, key, strict=True)), **found})
    return out


def differences(
    rows: Rows, read: Read, *, groups: NDArray[np.str_] | None, replicates: int, seed: int
) -> list[dict[str, Any]]:
    """AUC with quarantine minus AUC without, by model, poison and rate, with a paired 95 % interval.

    Pairs are the two trainings of one seed, scored on the same valid patches. The variance has two parts: between patches (or
    groups, where known), by a bootstrap of the mean difference over seeds that draws the same patches for every training, and
    between seeds, the squared standard deviation over the number of seeds. Their sum gives a t interval whose degrees of
    freedom follow Welch and Satterthwaite. With one seed the second part is unknown: `low` and `high` then hold for that seed.
    """
    out = []
    for (model, poison, kind, rate), members in _grouped(rows, ("model", "poison", "kind", "rate")).items():
        cells = {(row["seed"], row["quarantine"]): row for row in members if row["auc"] is not None}
        seeds = sorted({s for s, _ in cells if {(s, "exclude"), (s, "include")} <= set(cells)})
        if not seeds or rate == 0:
            continue
        pairs = [(cells[s, "exclude"], cells[s, "include"]) for s in seeds]
        values = [a["auc"] - b["auc"] for a, b in pairs]
        same = all(a["run"] == b["run"] for a, b in pairs)
        found = [(read(a), read(b)) for a, b in pairs]
        interval = (0.0, 0.0) if same else _interval(values, found, groups, replicates, seed)
        out.append(
            {
                "model": model,
                "poison": poison,
                "kind": kind,
                "rate": rate,
                "seeds": seeds,
                "value": fmean(values),
                "low": interval[0],
                "high": interval[1],
                "n_planted": round(fmean(a["n_planted"] for a, _ in pairs)),
                "n_quarantined": round(fmean(a["n_quarantined"] for a, _ in pairs)),
                "blind": same,
                "verdict": verdict(kind, fmean(values), *interval, blind=same),
            }
        )
    return out


def verdict(kind: str, value: float, low: float, high: float, *, blind: bool = False) -> str:
    """blind: nothing was quarantined. earns, costs: the interval lies above, below 0. honest: a leak was kept from
    flattering the score. open: the interval holds 0."""
    if blind:
        return "blind"
    if low > 0:
        return "earns"
    if high < 0:
        return "honest" if kind in LEAKS else "costs"
    return "open"


def _interval(
    values: list[float],
    found: Sequence[tuple[Predictions, ...]],
    groups: NDArray[np.str_] | None,
    replicates: int,
    seed: int,
) -> tuple[float, float]:
    """The interval of the mean of `values`, one a seed: AUCs of single predictions, or differences of two."""
    first = found[0][0]
    for predictions in (p for together in found for p in together):
        assert np.array_equal(predictions.index, first.index), "all cells are scored on the same valid patches"
    units = bootstrap.number_units(None if groups is None else groups[first.index], len(first.index))
    drawn: list[float] = []
    for weights in bootstrap.resample(units, replicates, seed):
        areas = [[auc_many(p, weights) for p in together] for together in found]
        drawn += np.mean([a[0] - a[1] if len(a) == 2 else a[0] for a in areas], axis=0).tolist()
    kept = [value for value in drawn if math.isfinite(value)]
    between_patches = float(np.var(kept, ddof=1)) if len(kept) > 1 else 0.0
    between_seeds = stdev(values) ** 2 / len(values) if len(values) > 1 else 0.0
    total = between_patches + between_seeds
    if total == 0:
        return fmean(values), fmean(values)
    freedom = total**2 / (
        between_patches**2 / max(int(units.max()), 1)
        + (between_seeds**2 / (len(values) - 1) if len(values) > 1 else 0.0)
    )
    reach = bootstrap.t_quantile(0.975, max(1, int(freedom))) * math.sqrt(total)
    return fmean(values) - reach, fmean(values) + reach


def auc_many(found: Predictions, weights: Floats) -> Floats:
    """(R,) AUCs, ties counted half, under weights (R, N); NaN where one class has no weight. `metrics.auc`, many at a time."""
    order = np.argsort(-found.probability, kind="stable")
    ranked, positive = found.probability[order], found.label[order] == 1
    starts = np.flatnonzero(np.concatenate([[True], np.diff(ranked) != 0]))
    drawn = weights[:, order]
    tumour, normal = (np.add.reduceat(drawn * mask, starts, axis=1) for mask in (positive, ~positive))
    below = normal.sum(axis=1, keepdims=True) - np.cumsum(normal, axis=1) + normal / 2
    with np.errstate(invalid="ignore"):
        areas: Floats = (tumour * below).sum(axis=1) / (tumour.sum(axis=1) * normal.sum(axis=1))
    return areas


def _grouped(rows: Rows, names: tuple[str, ...]) -> dict[tuple[Any, ...], list[dict[str, Any]]]:
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in names), []).append(row)
    return groups
