"""Scores of a two-class classifier, each with a bootstrap interval; numpy only, no global randomness.

Throughout: `labels` (N,) are 0 or 1 (1: tumour), `probabilities` (N,) are float64 in [0, 1], that of tumour; a patch is
called tumour if probability >= threshold. TP, FP, TN, FN count patches. What is undefined is None, never 0 or NaN.

    auc                 P(a tumour patch scores above a normal one) + P(they tie) / 2, the area under the ROC curve by
                        mid-ranks (Hanley & McNeil, Radiology 143, 1982); needs both classes
    average_precision   sum of (R_k - R_k-1) P_k over the distinct probabilities, highest first; needs a tumour patch
    accuracy            (TP + TN) / N
    balanced_accuracy   (recall + specificity) / 2; needs both classes
    f1, f2              (1 + b^2) TP / ((1 + b^2) TP + b^2 FN + FP), b = 1, 2; needs a patch labelled or called tumour
    recall              TP / (TP + FN)
    precision           TP / (TP + FP)
    specificity         TN / (TN + FP)
    ece                 sum over 15 equal bins of n_b / N |mean probability - rate of tumour| (Naeini et al., AAAI 2015;
                        Guo et al., ICML 2017, take the called class instead); an edge belongs to the bin below it
    nll                 mean of -ln(probability of the label), clipped to [1e-7, 1 - 1e-7], so at most 16.12
    brier               mean of (probability - label)^2
    prevalence          (TP + FN) / N
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .bootstrap import Floats, Interval, Ints, leave_one_out, logit_interval, norm_interval, number_units, resample
from .errors import ConfigError, DataError

__all__ = [
    "Interval",
    "ReliabilityBin",
    "auc",
    "bases",
    "confusion",
    "precision_recall_curve",
    "reliability",
    "roc_curve",
    "score",
    "score_with_intervals",
    "scorer",
    "whys",
]

_CLIP = 1e-7
_BINS = 15
_WORST = -float(np.log1p(-(1 - _CLIP)))  # the highest nll, as it is computed


@dataclass(frozen=True)
class ReliabilityBin:
    """The patches with low < probability <= high (the first bin takes 0 too); None where there is none."""

    low: float
    high: float
    count: int
    mean_probability: float | None
    observed_rate: float | None


@dataclass(frozen=True)
class _Table:
    """Patches put together by probability, highest first: every score follows from the two counts of each row."""

    probabilities: Floats  # (K,), falling
    cells: Ints  # (N,): a patch's row, + K where the label is 1

    def tally(self, weights: Floats) -> tuple[Floats, Floats]:
        """How many tumour and how many normal patches each row holds, (R, K) each, under weights (R, N)."""
        k = len(self.probabilities)
        rows = [np.bincount(self.cells, weights=row, minlength=2 * k) for row in weights]
        counts = np.asarray(rows, dtype=np.float64)
        return counts[:, k:], counts[:, :k]


def score(labels: ArrayLike, probabilities: ArrayLike, *, threshold: float = 0.5) -> dict[str, float | None]:
    """The value of every metric, by name, in the order above; None where it is undefined."""
    y, p = _checked(labels, probabilities, threshold)
    values, _ = _scores(_table(y, p), np.ones((1, len(y))), threshold)
    return {name: _plain(value[0]) for name, value in values.items()}


def score_with_intervals(
    labels: ArrayLike,
    probabilities: ArrayLike,
    *,
    threshold: float = 0.5,
    groups: ArrayLike | None = None,
    replicates: int = 1000,
    level: float = 0.95,
    seed: int = 42,
) -> dict[str, Interval]:
    """Every metric of `score` with its bootstrap interval, over patches, or whole groups if `groups` (N,) is given.

    The interval is `bootstrap.logit_interval` (nll: as a share of its highest value), for ece `norm_interval`; what
    they cover is told there. It is about patches, or groups, drawn anew from where these came, with the model as it is.
    One seed gives the same draws everywhere; the last digits of nll and of the ends hang on the platform's logarithm.
    """
    y, p = _checked(labels, probabilities, threshold)
    if not 0 < level < 1:
        raise ConfigError(f"level is {level}", valid="a number between 0 and 1; 0.95 by default")
    units = number_units(groups, len(y))
    table = _table(y, p)
    values, gaps = _scores(table, np.ones((1, len(y))), threshold)
    point = {name: _plain(value[0]) for name, value in values.items()}
    undefined = whys(y, p >= threshold)
    if not units.any():
        alone = f"one {'patch' if groups is None else 'group'} only: an interval needs two or more"
        return {name: Interval(v, None, None, undefined[name] if v is None else alone) for name, v in point.items()}

    chunks = [_scores(table, weights, threshold) for weights in resample(units, replicates, seed)]
    rests = bases(y == 1, p >= threshold, units)
    apart: dict[str, Floats] = {}
    if groups is not None and units.max() < replicates:  # more groups than that need no correction
        parts = [_scores(table, weights, threshold)[0] for weights in leave_one_out(units)]
        apart = {name: np.concatenate([part[name] for part in parts]) for name in point}
    out = {}
    for name, value in point.items():
        if value is None:
            out[name] = Interval(None, None, None, undefined[name])
        elif name == "ece":
            drawn = np.concatenate([found for _, found in chunks])
            out[name] = norm_interval(value, gaps[0], drawn, units=rests[name], level=level)
        else:
            drawn, top = np.concatenate([found[name] for found, _ in chunks]), _WORST if name == "nll" else 1.0
            out[name] = logit_interval(value, drawn, units=rests[name], level=level, top=top, left_out=apart.get(name))
    return out


def scorer(
    labels: ArrayLike, probabilities: ArrayLike, *, threshold: float = 0.5
) -> Callable[[Floats], dict[str, Floats]]:
    """A function from weights (R, N), how often each patch counts, to every metric of `score`, (R,), NaN if undefined.

    For replicates of `bootstrap.resample`: one table of the patches serves all of them.
    """
    y, p = _checked(labels, probabilities, threshold)
    table = _table(y, p)
    return lambda weights: _scores(table, weights, threshold)[0]


def auc(labels: ArrayLike, probabilities: ArrayLike, weights: ArrayLike | None = None) -> float | None:
    """The area under the ROC curve, ties counted half; `weights` (N,) >= 0. None unless both classes have weight."""
    y, p = _checked(labels, probabilities)
    w = np.ones(len(y)) if weights is None else _vector(weights, "weights", len(y))
    if (bad := _first(~(np.isfinite(w) & (w >= 0)))) is not None:
        raise DataError(f"the weight of patch {bad} is {w[bad]}", valid="numbers >= 0")
    area, _ = _ranking(*_table(y, p).tally(w[None]))
    return _plain(area[0])


def confusion(labels: ArrayLike, probabilities: ArrayLike, threshold: float = 0.5) -> dict[str, int]:
    """The number of patches called rightly and wrongly: tp, fp, tn, fn."""
    y, p = _checked(labels, probabilities, threshold)
    true, called = y == 1, p >= threshold
    cells = {"tp": true & called, "fp": ~true & called, "tn": ~true & ~called, "fn": true & ~called}
    return {name: int(np.count_nonzero(cell)) for name, cell in cells.items()}


def roc_curve(
    labels: ArrayLike, probabilities: ArrayLike, *, drop_intermediate: bool = True
) -> tuple[Floats, Floats, Floats]:
    """False positive rates, true positive rates and thresholds, (T,) each, as scikit-learn's `roc_curve` gives them.

    Rates rise from 0 to 1 and thresholds fall from infinity, where nothing is called tumour. With `drop_intermediate`,
    points on a straight line between their neighbours are left out. DataError unless both classes are there.
    """
    tp, fp, thresholds = _cumulated(labels, probabilities, both=True)
    if drop_intermediate and len(tp) > 2:
        turns = (np.diff(tp, 2) != 0) | (np.diff(fp, 2) != 0)
        kept = np.flatnonzero(np.concatenate([[True], turns, [True]]))
        tp, fp, thresholds = tp[kept], fp[kept], thresholds[kept]
    tp, fp, thresholds = np.append(0.0, tp), np.append(0.0, fp), np.append(np.inf, thresholds)
    return fp / fp[-1], tp / tp[-1], thresholds


def precision_recall_curve(labels: ArrayLike, probabilities: ArrayLike) -> tuple[Floats, Floats, Floats]:
    """Precision, recall (T + 1,) and rising thresholds (T,), as scikit-learn's `precision_recall_curve` gives them.

    One point for each distinct probability, then the point precision 1, recall 0 that has no threshold. DataError
    unless a patch is labelled tumour.
    """
    tp, fp, thresholds = _cumulated(labels, probabilities, both=False)
    return np.append((tp / (tp + fp))[::-1], 1.0), np.append((tp / tp[-1])[::-1], 0.0), thresholds[::-1].copy()


def reliability(labels: ArrayLike, probabilities: ArrayLike, bins: int = _BINS) -> list[ReliabilityBin]:
    """What the reliability diagram shows: for each of `bins` equal bins the mean probability and the rate of tumour."""
    y, p = _checked(labels, probabilities)
    if bins < 1:
        raise ConfigError(f"bins is {bins}", valid="a whole number >= 1")
    edges, place = _binned(p, bins)
    table = []
    for b in range(bins):
        inside = place == b
        n = int(np.count_nonzero(inside))
        mean, rate = (float(p[inside].mean()), float(y[inside].mean())) if n else (None, None)
        table.append(ReliabilityBin(float(edges[b]), float(edges[b + 1]), n, mean, rate))
    return table


def _scores(table: _Table, weights: Floats, threshold: float) -> tuple[dict[str, Floats], Floats]:
    """Every metric, (R,) each with NaN where undefined, and the bins' gaps (R, bins), under whole weights (R, N)."""
    positive, negative = table.tally(weights)
    p, n, both = positive.sum(axis=1), negative.sum(axis=1), positive + negative
    called = int(np.count_nonzero(table.probabilities >= threshold))
    tp, fp = positive[:, :called].sum(axis=1), negative[:, :called].sum(axis=1)
    area, average = _ranking(positive, negative)
    clipped = np.clip(table.probabilities, _CLIP, 1 - _CLIP)
    loss = _total(-np.log(clipped) * positive - np.log1p(-clipped) * negative)
    squares = _total((1 - table.probabilities) ** 2 * positive + table.probabilities**2 * negative)
    _, place = _binned(table.probabilities, _BINS)
    distance = table.probabilities * both - positive
    gaps = np.stack([_total(distance[:, place == b]) for b in range(_BINS)], axis=1) / (p + n)[:, None]
    recall, specificity = _ratio(tp, p), _ratio(n - fp, n)
    values = {
        "auc": area,
        "average_precision": average,
        "accuracy": (tp + n - fp) / (p + n),
        "balanced_accuracy": (recall + specificity) / 2,
        "f1": _ratio(2 * tp, p + tp + fp),
        "f2": _ratio(5 * tp, 4 * p + tp + fp),
        "recall": recall,
        "precision": _ratio(tp, tp + fp),
        "specificity": specificity,
        "ece": _total(np.abs(gaps)),
        "nll": loss / (p + n),
        "brier": squares / (p + n),
        "prevalence": p / (p + n),
    }
    return values, gaps


def _ranking(positive: Floats, negative: Floats) -> tuple[Floats, Floats]:
    """AUC and average precision (R,) from the counts of each row, highest probability first."""
    tp, fp = np.cumsum(positive, axis=1), np.cumsum(negative, axis=1)
    p, n = tp[:, -1], fp[:, -1]
    beaten = _total(positive * (n[:, None] - fp + negative / 2))
    precision = _ratio(tp, tp + fp, empty=0.0)
    return _ratio(beaten, p * n), _ratio(_total(positive * precision), p)


def _total(rows: Floats) -> Floats:
    """The sum of each row, added from left to right whatever the processor; 0 for an empty one."""
    return np.cumsum(rows, axis=1)[:, -1] if rows.shape[1] else np.zeros(len(rows))


def _ratio(over: Floats, under: Floats, empty: float = np.nan) -> Floats:
    return np.divide(over, under, out=np.full_like(over, empty), where=under != 0)


def _plain(value: np.float64) -> float | None:
    return None if np.isnan(value) else float(value)


def _table(labels: NDArray[np.uint8], probabilities: Floats) -> _Table:
    rising, row = np.unique(-probabilities, return_inverse=True)
    return _Table(np.abs(rising), row.astype(np.int64) + len(rising) * labels.astype(np.int64))


def _cumulated(labels: ArrayLike, probabilities: ArrayLike, *, both: bool) -> tuple[Floats, Floats, Floats]:
    """True and false positives at each distinct probability taken as threshold, highest first, and these thresholds."""
    y, p = _checked(labels, probabilities)
    why = whys(y, p >= 0)["auc" if both else "average_precision"]
    if (both and y.all()) or not y.any():
        raise DataError(f"this curve is undefined: {why}")
    table = _table(y, p)
    positive, negative = table.tally(np.ones((1, len(y))))
    return np.cumsum(positive[0]), np.cumsum(negative[0]), table.probabilities


def _binned(probabilities: Floats, bins: int) -> tuple[Floats, Ints]:
    edges = np.linspace(0.0, 1.0, bins + 1)
    return edges, np.searchsorted(edges[1:-1], probabilities).astype(np.int64)


def whys(labels: NDArray[np.uint8], called: NDArray[np.bool_]) -> dict[str, str]:
    """Why each metric that can be undefined is so, if it is: said of `labels` (N,) and the patches `called` tumour (N,)."""
    one = f"one class only: every label is {labels[0]}"
    said = dict.fromkeys(("auc", "balanced_accuracy"), one)
    said |= dict.fromkeys(("average_precision", "recall"), "no patch is labelled tumour")
    said |= dict.fromkeys(("f1", "f2"), "no patch is labelled or called tumour")
    return said | {"precision": "no patch is called tumour", "specificity": "no patch is labelled normal"}


def bases(true: NDArray[np.bool_], called: NDArray[np.bool_], units: Ints) -> dict[str, int]:
    """How many of the `units` (N,) each metric rests on: those with a patch of its kind, of the rarer kind if about two.

    `true` and `called` (N,): labelled, and called, tumour. The degrees of freedom of an interval are one less.
    """
    p, n, c = (len(np.unique(units[kind])) for kind in (true, ~true, called))
    found = dict.fromkeys(("accuracy", "ece", "nll", "brier", "prevalence"), int(units.max()) + 1)
    found |= dict.fromkeys(("auc", "average_precision", "balanced_accuracy"), min(p, n))
    return found | {"f1": p, "f2": p, "recall": p, "specificity": n, "precision": c}


def _checked(labels: ArrayLike, probabilities: ArrayLike, threshold: float = 0.5) -> tuple[NDArray[np.uint8], Floats]:
    if np.isnan(threshold):
        raise ConfigError("threshold is nan", valid="a number; 0.5 by default")
    p = _vector(probabilities, "probabilities", None)
    y = _vector(labels, "labels", len(p))
    if not len(p):
        raise DataError("there are no patches to score: labels and probabilities are empty")
    if (bad := _first((y != 0) & (y != 1))) is not None:
        raise DataError(f"the label of patch {bad} is {y[bad]:g}", valid="0 (normal) or 1 (tumour)")
    if (bad := _first(~((p >= 0) & (p <= 1)))) is not None:
        raise DataError(f"the probability of patch {bad} is {p[bad]}", valid="numbers from 0 to 1")
    return y.astype(np.uint8), p


def _vector(values: ArrayLike, name: str, length: int | None) -> Floats:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1:
        raise DataError(f"{name} have shape {array.shape}", valid="one number for each patch, shape (N,)")
    if length is not None and len(array) != length:
        alone = min(len(array), length)
        raise DataError(f"{len(array)} {name} for {length} probabilities: index {alone} is without a partner")
    return array


def _first(bad: NDArray[np.bool_]) -> int | None:
    return int(np.argmax(bad)) if bad.any() else None
