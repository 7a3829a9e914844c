"""Is one model better than another on the same patches? Differences with intervals and p-values, of any score.

Throughout: `labels` (N,) are 0 or 1, `a` and `b` (N,) two models' probabilities of tumour for the same patches; a
difference is a - b; `groups` (N,) are patches that belong together, and a test that knows them treats them as one draw
each. A p-value is two-sided; a model is compared as it is, so nothing here is about training it again with another seed.

    paired_bootstrap   any score of `metrics`: both models are scored on the same resamples of patches or whole groups
    holm               the p-values of many comparisons, so that one false alarm among all is as rare as said
    compare_models     a champion against others: AUC by `delong`, accuracy by `mcnemar`, other scores by the bootstrap

In benchmarks/false_alarms.py the bootstrap's p-values were below 0.05 for 0.035-0.063 (100 and 300 patches) and 0.028-0.052
(500 in 40, 20, 10 groups) of 600 pairs of equal models, so to +-0.02: AUC, accuracy, F2, NLL.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from . import metrics
from .bootstrap import Floats, Interval, leave_one_out, number_units, resample, t_quantile, t_tails
from .delong import AucDifference, delong
from .errors import ConfigError
from .mcnemar import McNemar, mcnemar

__all__ = ["Comparison", "compare_models", "holm", "paired_bootstrap"]

_STILL = 1e-12


@dataclass(frozen=True)
class Comparison:
    """One score of two models: `difference` is a - b with its interval; None where undefined, and its `why` says so."""

    score: str
    method: str
    a: float | None
    b: float | None
    difference: Interval
    p_value: float | None
    p_holm: float | None = None
    """p_value after Holm's correction for all comparisons of the table; None outside a table."""
    detail: dict[str, float | int | None] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """A dict of all this, the interval as value, low, high (and why)."""
        names = ("score", "method", "a", "b", "p_value", "p_holm", "detail")
        return {**{n: getattr(self, n) for n in names}, "difference": self.difference.as_json()}


def compare_models(
    labels: ArrayLike,
    champion: ArrayLike,
    others: Mapping[str, ArrayLike],
    *,
    groups: ArrayLike | None = None,
    threshold: float = 0.5,
    thresholds: Mapping[str, float] | None = None,
    scores: Sequence[str] = ("f2",),
    replicates: int = 1000,
    level: float = 0.95,
    seed: int = 42,
) -> dict[str, list[Comparison]]:
    """Champion - other, for each of `others`: AUC, accuracy and each of `scores`; Holm's correction over all of them.

    `threshold` is the champion's, `thresholds` the others' where it is not 0.5.
    """
    table: dict[str, list[Comparison]] = {}
    for name, other in others.items():
        at = (threshold, (thresholds or {}).get(name, 0.5))
        boot = paired_bootstrap(
            labels, champion, other, groups=groups, thresholds=at, replicates=replicates, level=level, seed=seed
        )
        for score in scores:
            if score not in boot:
                raise ConfigError(f"there is no score {score!r}", valid=", ".join(boot))
        table[name] = [
            _auc_row(delong(labels, champion, other, groups=groups, level=level), groups),
            _accuracy_row(mcnemar(labels, champion, other, groups=groups, thresholds=at, level=level)),
            *(boot[score] for score in scores),
        ]
    adjusted = iter(holm([row.p_value for rows in table.values() for row in rows]))
    return {name: [replace(row, p_holm=next(adjusted)) for row in rows] for name, rows in table.items()}


def paired_bootstrap(
    labels: ArrayLike,
    a: ArrayLike,
    b: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    thresholds: tuple[float, float] = (0.5, 0.5),
    replicates: int = 1000,
    level: float = 0.95,
    seed: int = 42,
) -> dict[str, Comparison]:
    """The difference in every score of `metrics`, by name: difference +- t times its bootstrap standard error.

    Standard error and degrees of freedom are those of `bootstrap.logit_interval`, on the scale of the difference; the
    p-value is the t test's, below 1 - level where the interval leaves out 0. ECE lies above its truth by noise in either
    model, which the difference cancels only where both are about as well calibrated. The draws are those of
    `metrics.score_with_intervals` for the same seed.
    """
    if not 0 < level < 1:
        raise ConfigError(f"level is {level}", valid="a number between 0 and 1; 0.95 by default")
    scored = [metrics.scorer(labels, p, threshold=t) for p, t in zip((a, b), thresholds, strict=True)]
    y = np.asarray(labels).astype(np.uint8)
    called = [np.asarray(p) >= t for p, t in zip((a, b), thresholds, strict=True)]
    units = number_units(groups, len(y))
    count, kind = int(units.max()) + 1, "patch" if groups is None else "group"
    point = [{k: float(v[0]) for k, v in function(np.ones((1, len(y)))).items()} for function in scored]
    whys = [metrics.whys(y, c) for c in called]
    bases = [metrics.bases(y == 1, c, units) for c in called]
    moved: dict[str, Floats] = {}
    apart: dict[str, Floats] = {}
    if count > 1:
        chunks = [(scored[0](w), scored[1](w)) for w in resample(units, replicates, seed)]
        moved = {k: np.concatenate([x[k] - z[k] for x, z in chunks]) for k in point[0]}
    if count > 1 and groups is not None and count <= replicates:
        chunks = [(scored[0](w), scored[1](w)) for w in leave_one_out(units)]
        apart = {k: np.concatenate([x[k] - z[k] for x, z in chunks]) for k in point[0]}
    method = f"paired bootstrap over {count} {'patches' if groups is None else 'groups'}"
    same = np.array_equal(np.asarray(a), np.asarray(b)) and thresholds[0] == thresholds[1]
    out = {}
    for name in point[0]:
        values = [None if math.isnan(p[name]) else p[name] for p in point]
        missing = [f"{x}: {why[name]}" for x, v, why in zip("ab", values, whys, strict=True) if v is None]
        difference = None if values[0] is None or values[1] is None else values[0] - values[1]
        interval, p_value = Interval(difference, None, None, "; ".join(missing)), None
        if difference is not None and same:
            interval = Interval(difference, None, None, "both models give every patch the same probability")
        elif difference is not None and count < 2:
            interval = Interval(difference, None, None, f"one {kind} only: an interval needs two or more")
        elif difference is not None:
            rests = min(base[name] for base in bases)
            interval, p_value = _tested(difference, moved[name], apart.get(name), rests, level)
        out[name] = Comparison(name, method, values[0], values[1], interval, p_value)
    return out


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """p-values adjusted for their number (Holm, Scand. J. Stat. 6, 1979), in the order given; None is no comparison.

    Whatever their dependence: below 0.05 for a true null hypothesis in at most 5 % of tables.
    """
    known = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    out: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for rank, (p, i) in enumerate(known):
        highest = max(highest, min(1.0, (len(known) - rank) * p))
        out[i] = highest
    return out


def _tested(
    value: float, moved: Floats, apart: Floats | None, rests: int, level: float
) -> tuple[Interval, float | None]:
    """The t interval and p-value of a difference from its replicates and what leaving out one group at a time does."""
    kept = moved[~np.isnan(moved)]
    missing = len(moved) - len(kept)
    if len(kept) < 2 or 2 * missing > len(moved):
        return Interval(value, None, None, f"undefined in {missing} of {len(moved)} bootstrap replicates"), None
    g, freedom = max(rests, 2), max(rests, 2) - 1.0
    error = float(kept.std(ddof=1)) * math.sqrt(g / (g - 1))
    if error < _STILL:
        return Interval(value, None, None, "the difference is the same in every bootstrap replicate"), None
    if apart is not None and not np.isnan(apart).any() and np.abs(apart - value).max() > _STILL:
        moves, count = apart - value, len(apart)
        squares = math.fsum(moves**2)
        error = max(error, math.sqrt(squares * (count - 1) / count))
        freedom = max(1.0, min(freedom, 3 * squares**2 / math.fsum(moves**4)))
    reach = t_quantile((1 + level) / 2, freedom) * error
    return Interval(value, value - reach, value + reach), t_tails(value / error, freedom)


def _auc_row(found: AucDifference, groups: ArrayLike | None) -> Comparison:
    method = "DeLong" if groups is None else f"Obuchowski over {len(np.unique(np.asarray(groups)))} groups"
    detail: dict[str, float | int | None] = {
        "variance": None if found.error is None else found.error**2,
        "freedom": found.freedom if math.isfinite(found.freedom) else None,
    }
    return Comparison("auc", method, found.a, found.b, found.difference, found.p_value, detail=detail)


def _accuracy_row(found: McNemar) -> Comparison:
    names = ("only_a", "only_b", "exact", "mid_p", "durkalski")
    detail = {name: getattr(found, name) for name in names}
    return Comparison("accuracy", found.method, found.a, found.b, found.difference, found.p_value, detail=detail)
