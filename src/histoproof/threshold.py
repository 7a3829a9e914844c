"""From which probability on a patch is called tumour: a threshold chosen on valid by a stated rule of `rules`.

Only thresholds between two neighbouring probabilities differ in what they call, so the best is a plateau: low < threshold
<= high (and 0, if low is). Several plateaus may be equally good; then the widest is taken, of equally wide ones the lowest
(the more sensitive), and the threshold is its middle.

The best threshold of a sample is a shaky estimate: it settles with the cube root of n, for which the plain bootstrap has no
guarantee (Kim & Pollard, Ann. Statist. 18, 1990; Abrevaya & Huang, Econometrica 73, 2005). Its interval is the
percentile interval over resampled patches, or groups, widened for few of them as a t interval is (Hesterberg, Am.
Statistician 69, 2015). Read 95 % as 90 %: in benchmarks/thresholds.py (400 data sets a row, so to +-0.03) it held the best
threshold of all patches there could be, and the score that the rule is about was seen and corrected too good by

    n     groups   rule             held    seen     corrected
    200   none     F2               0.908   0.021    0.003
    200   none     recall >= 0.95   0.912   0.011    0.001
    200   none     cost 5 : 1       0.908   0.058    0.014
    800   20       F2               0.895   0.015    0.001
    800   20       recall >= 0.95   0.870   0.009    0.002

Scores at a threshold chosen on the same patches are a little too good. `corrected` is what to expect on new ones: the
.632 bootstrap (Efron, J. Am. Stat. Assoc. 78, 1983), 0.368 x what was seen + 0.632 x the mean score that each resample's
threshold has on the patches outside the resample. `optimism` is the difference.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import metrics
from .bootstrap import Floats, Interval, Ints, number_units, resample, t_quantile
from .rules import ExpectedCost, FBeta, Rule, check, cost, worth

__all__ = [
    "Choice",
    "PrecisionRecall",
    "choose_threshold",
    "precision_recall",
]

_TIE = 1e-12


@dataclass(frozen=True)
class Choice:
    """A threshold, how sure it is, and what it does; None where there is none, and the threshold's `why` says so."""

    rule: str
    threshold: Interval
    plateau: tuple[float, float] | None
    """(low, high): every threshold with low < threshold <= high calls the same patches, or does equally well."""
    chosen: dict[str, Interval]
    """Every score of `metrics` at the threshold, with intervals that take the threshold as given."""
    half: dict[str, Interval]
    """The same at 0.5."""
    corrected: dict[str, float | None]
    """What to expect on new patches of recall, specificity, precision, accuracy, F1, F2, the rule's F-beta, and cost where
    that is the rule."""
    optimism: dict[str, float | None]
    """What was seen on the patches that the threshold was chosen on, minus `corrected`."""

    def as_json(self) -> dict[str, Any]:
        """Plain dicts of all this."""
        scores = {w: {k: v.as_json() for k, v in getattr(self, w).items()} for w in ("chosen", "half")}
        return {**asdict(self), "threshold": self.threshold.as_json(), **scores}


@dataclass(frozen=True)
class PrecisionRecall:
    """The points of a precision-recall figure, and where some thresholds lie on it."""

    precision: Floats
    """(T + 1,)"""
    recall: Floats
    """(T + 1,)"""
    thresholds: Floats
    """(T,), rising; the last point, precision 1 and recall 0, has none."""
    marks: dict[str, tuple[float, float | None]]
    """(recall, precision) of each named threshold; precision is None where no patch is called."""


@dataclass(frozen=True)
class _Ladder:
    """Patches from the highest probability down: what the first k distinct probabilities call."""

    values: Floats  # (K,), falling
    order: Ints  # (N,)
    ends: Ints  # (K,): the last patch of each value in `order`
    labels: Floats  # (N,), in `order`

    def called(self, weights: Floats) -> tuple[Floats, Floats]:
        """True and false positives (R, K + 1) with none, one, ... all values called, under weights (R, N)."""
        sorted_, zero = weights[:, self.order], np.zeros((len(weights), 1))
        tp, fp = (np.cumsum(sorted_ * y, axis=1)[:, self.ends] for y in (self.labels, 1 - self.labels))
        return np.hstack([zero, tp]), np.hstack([zero, fp])


def choose_threshold(
    labels: ArrayLike,
    probabilities: ArrayLike,
    rule: Rule | None = None,
    *,
    groups: ArrayLike | None = None,
    replicates: int = 1000,
    level: float = 0.95,
    seed: int = 42,
) -> Choice:
    """The threshold that `rule` (F2 by default) picks for labels (N,) and probabilities (N,), and what comes with it."""
    rule = FBeta() if rule is None else rule
    check(rule)
    given: dict[str, Any] = {"groups": groups, "replicates": replicates, "level": level, "seed": seed}
    half = metrics.score_with_intervals(labels, probabilities, threshold=0.5, **given)
    y, p = np.asarray(labels, dtype=np.float64), np.asarray(probabilities, dtype=np.float64)
    if y.all() or not y.any():
        nothing = Interval(None, None, None, f"one class only: every label is {y[0]:g}")
        return Choice(str(rule), nothing, None, {}, half, {}, {})
    ladder, units = _ladder(y, p), number_units(groups, len(y))
    tp, fp = ladder.called(np.ones((1, len(y))))
    value, plateau = _pick(worth(rule, tp, fp)[0], ladder.values)
    chosen = metrics.score_with_intervals(labels, probabilities, threshold=value, **given)
    seen = {name: _plain(row) for name, row in _scores(rule, tp, fp, _steps(ladder, np.array([value]))).items()}
    if not units.any():
        alone = Interval(value, None, None, "one group only: an interval needs two or more")
        return Choice(str(rule), alone, plateau, chosen, half, dict.fromkeys(seen), dict.fromkeys(seen))
    drawn, outside = _resampled(rule, ladder, units, replicates, seed)
    tails = _tail(min(len(np.unique(units[y == k])) for k in (0, 1)), level)
    low, high = (float(q) for q in np.quantile(drawn, [tails, 1 - tails])) if len(drawn) else (math.nan, math.nan)
    threshold = Interval(value, min(low, value), max(high, value))
    if 2 * len(drawn) < replicates:
        missing = replicates - len(drawn)
        threshold = Interval(value, None, None, f"undefined in {missing} of {replicates} bootstrap replicates")
    corrected: dict[str, float | None] = {}
    for name, apparent in seen.items():
        new = _plain(outside[name])
        corrected[name] = None if apparent is None or new is None else 0.368 * apparent + 0.632 * new
    optimism = {k: None if (c := corrected[k]) is None or s is None else s - c for k, s in seen.items()}
    return Choice(str(rule), threshold, plateau, chosen, half, corrected, optimism)


def precision_recall(labels: ArrayLike, probabilities: ArrayLike, marks: Mapping[str, float]) -> PrecisionRecall:
    """The curve of `metrics.precision_recall_curve` and the points of named thresholds, for a figure."""
    precision, recall, thresholds = metrics.precision_recall_curve(labels, probabilities)
    points = {}
    for name, threshold in marks.items():
        cells = metrics.confusion(labels, probabilities, threshold)
        called = cells["tp"] + cells["fp"]
        points[name] = (cells["tp"] / (cells["tp"] + cells["fn"]), cells["tp"] / called if called else None)
    return PrecisionRecall(precision, recall, thresholds, points)


def _resampled(
    rule: Rule, ladder: _Ladder, units: Ints, replicates: int, seed: int
) -> tuple[Floats, dict[str, Floats]]:
    """The thresholds of the resamples with both classes, and their scores (R,) on the patches outside them."""
    thresholds: list[Floats] = []
    outside: list[dict[str, Floats]] = []
    for weights in resample(units, replicates, seed):
        tp, fp = ladder.called(weights)
        kept = (tp[:, -1] > 0) & (fp[:, -1] > 0)
        found = np.array([_pick(row, ladder.values)[0] for row in worth(rule, tp[kept], fp[kept])])
        thresholds.append(found)
        outside.append(_scores(rule, *ladder.called((weights[kept] == 0).astype(np.float64)), _steps(ladder, found)))
    return np.concatenate(thresholds), {k: np.concatenate([part[k] for part in outside]) for k in outside[0]}


def _pick(worths: Floats, values: Floats) -> tuple[float, tuple[float, float]]:
    """The middle of the widest best plateau, and its ends, from worths (K + 1,) and values (K,), falling."""
    best = worths.max()
    tied = np.concatenate([[False], worths >= best - _TIE * max(1.0, abs(best)), [False]])
    starts, stops = np.flatnonzero(~tied[:-1] & tied[1:]), np.flatnonzero(tied[:-1] & ~tied[1:])  # runs of k
    top = 1.0 if values[0] < 1 else math.nextafter(1.0, 2.0)
    edges = np.concatenate([[top], values, [0.0]])
    highs, lows = edges[starts], edges[stops]
    widths = highs - lows
    run = int(np.flatnonzero(widths >= widths.max())[-1])
    low, high = float(lows[run]), float(highs[run])
    middle = (low + high) / 2
    return (middle if low < middle else high), (low, high)


def _tail(units: int, level: float) -> float:
    """The share left out at each end of a percentile interval over `units` of the rarer class (Hesterberg)."""
    g = max(units, 2)
    return NormalDist().cdf(-t_quantile((1 + level) / 2, g - 1) * math.sqrt(g / (g - 1)))


def _steps(ladder: _Ladder, thresholds: Floats) -> Ints:
    """How many distinct values each threshold calls."""
    return np.searchsorted(-ladder.values, -thresholds, side="right").astype(np.int64)


def _scores(rule: Rule, tp: Floats, fp: Floats, steps: Ints) -> dict[str, Floats]:
    """Scores (R,), NaN where undefined, of thresholds that call `steps` (R,) values, from counts (R, K + 1)."""
    rows = np.arange(len(steps))
    p, n, t, f = tp[:, -1], fp[:, -1], tp[rows, steps], fp[rows, steps]
    betas = dict.fromkeys((1.0, 2.0, rule.beta if isinstance(rule, FBeta) else 2.0))
    with np.errstate(invalid="ignore", divide="ignore"):
        found = {
            "recall": t / p,
            "specificity": 1 - f / n,
            "precision": t / (t + f),
            "accuracy": (t + n - f) / (p + n),
            **{f"f{b:g}": (1 + b**2) * t / (b**2 * p + t + f) for b in betas},
        }
        if isinstance(rule, ExpectedCost):
            found["cost"] = cost(rule, t, f, p, n)
    return found


def _plain(values: Floats) -> float | None:
    """The mean of those that are defined, None where none is."""
    kept = values[np.isfinite(values)]
    return float(kept.mean()) if len(kept) else None


def _ladder(labels: Floats, probabilities: Floats) -> _Ladder:
    order = np.argsort(-probabilities, kind="stable").astype(np.int64)
    falling = probabilities[order]
    ends: NDArray[np.int64] = np.append(np.flatnonzero(np.diff(falling)), len(falling) - 1).astype(np.int64)
    return _Ladder(falling[ends], order, ends, labels[order])
