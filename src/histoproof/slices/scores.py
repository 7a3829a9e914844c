"""Scores of many slices and of their rests under the same bootstrap draws, so that gaps have intervals too.

Every replicate of `bootstrap.resample` is used for all slices. Sums over a slice are taken once; those over its rest are what
is left of the sums over all. The AUC of a rest follows from the pairs within the slice, across, and in all, so no slice costs
more than its own patches."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .. import bootstrap, metrics
from ..bootstrap import Interval
from .cut import Slice

__all__ = ["SCORES", "Scored", "score_slices"]

Floats = NDArray[np.float64]

SCORES = ("accuracy", "cross_auc", "auc", "recall", "specificity", "bias", "ece")
"""As in `metrics`, and two more. `cross_auc`, 0 to 1: the mean of two AUC, of the slice's tumour patches among all normal ones
and of its normal patches among all tumour ones, so that it sees a slice whose scores are shifted, as the AUC inside the slice
does not (BPSN and BNSP of Borkan et al., WWW 2019 companion, doi:10.1145/3308560.3317593). `bias`: mean probability less rate
of tumour, -1 to 1."""
_BINS = 15
_STILL = 1e-12
_ECE_GAP = "the error of calibration grows as patches get fewer, so those of a slice and of its rest cannot be compared: see bias"


@dataclass(frozen=True)
class Scored:
    """One slice."""

    n: int
    positive: int
    groups: int | None
    """How many groups it touches; None where patches stand alone."""
    scores: dict[str, Interval]
    rest: dict[str, float | None]
    gaps: dict[str, Interval]
    """The slice's score less its rest's."""


@dataclass(frozen=True)
class _Part:
    """A slice inside its universe, whose patches rise in probability."""

    places: NDArray[np.int64]
    low: NDArray[np.int64]
    """(n,) where, in the slice, the patches begin that are tied with each."""
    high: NDArray[np.int64]
    """And where they end."""
    called: int
    """Where those begin that are called tumour."""
    bins: NDArray[np.int64]
    """(16,) where each bin of the calibration error begins, and the last one ends."""


def score_slices(
    slices: Sequence[Slice],
    labels: NDArray[np.uint8],
    probabilities: Floats,
    *,
    threshold: float,
    groups: NDArray[np.str_] | None,
    replicates: int,
    seed: int,
    level: float = 0.95,
) -> list[Scored]:
    """Every score of each slice with its interval, those of its rest, and their gaps with theirs.

    Intervals of scores are `bootstrap.logit_interval` and, for ece, `norm_interval`, as for a whole split; of bias and of gaps
    they are t intervals with the bootstrap's standard error (over groups at least the jackknife's). What is undefined is None,
    with why."""
    out: dict[int, Scored] = {}
    for universe in {one.universe.tobytes(): one.universe for one in slices}.values():
        mine = [k for k, one in enumerate(slices) if np.array_equal(one.universe, universe)]
        order = np.flatnonzero(universe)
        order = order[np.argsort(probabilities[order], kind="stable")]
        units = bootstrap.number_units(None if groups is None else groups, len(labels))
        judge = _Judge(labels[order], probabilities[order], threshold, order)
        parts = [judge.part(slices[k].members[order]) for k in mine]
        point = judge.under([np.ones((1, len(labels)))], parts)
        several = units.max() > 0
        drawn = judge.under(bootstrap.resample(units, replicates, seed), parts) if several else None
        few = groups is not None and 0 < units.max() < replicates
        apart = judge.under(bootstrap.leave_one_out(units), parts) if few else None
        for number, k in enumerate(mine):
            inside = order[parts[number].places]
            rest = order[~slices[k].members[order]]
            draws = [None if x is None else x[number] for x in (point, drawn, apart)]
            out[k] = _concluded(draws, labels, probabilities, threshold, units, inside, rest, groups is not None, level)
    return [out[k] for k in range(len(slices))]


class _Judge:
    """The patches of a universe in the order of their probability, and what does not depend on weights."""

    def __init__(
        self, labels: NDArray[np.uint8], probabilities: Floats, threshold: float, order: NDArray[np.int64]
    ) -> None:
        self.order = order
        self.positive = (labels == 1).astype(np.float64)
        self.probabilities = probabilities
        self.threshold = threshold
        self.bin = np.searchsorted(np.linspace(0.0, 1.0, _BINS + 1)[1:-1], probabilities)
        self.whole = self.part(np.ones(len(labels), dtype=np.bool_))

    def part(self, members: NDArray[np.bool_]) -> _Part:
        """A slice from its members (N,)."""
        places = np.flatnonzero(members)
        values = self.probabilities[places]
        low, high = (np.searchsorted(values, values, side="left"), np.searchsorted(values, values, side="right"))
        bins = np.searchsorted(self.bin[places], np.arange(_BINS + 1))
        return _Part(places, low, high, int(np.searchsorted(values, self.threshold)), bins)

    def under(self, weights: Iterable[Floats], parts: Sequence[_Part]) -> list[tuple[Floats, Floats, Floats]]:
        """For each part: scores (R, K) of the slice and of the rest, NaN where undefined, and the slice's calibration gaps (R,
        15)."""
        kept: list[list[tuple[Floats, Floats, Floats]]] = [[] for _ in parts]
        for chunk in weights:
            w = np.ascontiguousarray(chunk[:, self.order].T)  # (n, R): a slice's rows then lie together
            tumour = w * self.positive[:, None]
            normal = w - tumour
            sums, below = self._sums(
                self.whole, w, tumour, normal
            )  # below: normal patches that each ranks above, ties half
            above = tumour.sum(axis=0) - _lower(_running(tumour), self.whole)
            pairs = np.einsum("nr,nr->r", tumour, below)
            for number, part in enumerate(parts):
                at = part.places
                mine, t = w[at], tumour[at]
                n = mine - t
                totals, beaten = self._sums(part, mine, t, n)
                up, down = np.einsum("nr,nr->r", t, below[at]), np.einsum("nr,nr->r", n, above[at])
                within = np.einsum("nr,nr->r", t, beaten)
                scores = _scores(totals, within, up, down, sums)
                rest = _scores(sums - totals, pairs - up - down + within, pairs - up, pairs - down, sums)
                size = np.maximum(totals[:, 0] + totals[:, 1], _STILL)
                kept[number].append((scores, rest, totals[:, 4:] / size[:, None]))
        return [tuple(np.concatenate(x) for x in zip(*chunks, strict=True)) for chunks in kept]  # type: ignore[misc]

    def _sums(self, part: _Part, w: Floats, tumour: Floats, normal: Floats) -> tuple[Floats, Floats]:
        """((R, 19) tumour, normal, and of each those called rightly, and the calibration gaps of 15 bins; (n, R) the normal
        patches below each)."""
        t, n, p = _running(tumour), _running(normal), _running(w * self.probabilities[part.places, None])
        gaps = np.diff(p[part.bins] - t[part.bins], axis=0)
        return np.vstack([t[-1], n[-1], t[-1] - t[part.called], n[part.called], gaps]).T, _lower(n, part)


def _running(weights: Floats) -> Floats:
    """(n + 1, R) sums of the first 0, 1, ... n rows."""
    out = np.zeros((len(weights) + 1, weights.shape[1]))
    np.cumsum(weights, axis=0, out=out[1:])
    return out


def _lower(running: Floats, part: _Part) -> Floats:
    """(n, R) what lies below each patch in the order of probability, and half of what is tied with it."""
    return np.asarray((running[part.low] + running[part.high]) / 2, dtype=np.float64)


def _scores(sums: Floats, pairs: Floats, up: Floats, down: Floats, whole: Floats) -> Floats:
    """(R, K) in the order of SCORES. `pairs`: of its normal and tumour patches, how many are in order; `up`, `down`: of its
    tumour patches and all normal ones, and of its normal ones and all tumour ones; `whole`: the sums over all."""
    p, n, tp, tn = (np.rint(sums[:, k]) for k in range(4))
    all_p, all_n = np.rint(whole[:, 0]), np.rint(whole[:, 1])
    gaps = sums[:, 4:]

    def over(a: Floats, b: Floats) -> Floats:
        return np.divide(a, b, out=np.full_like(a, np.nan), where=b > 0)

    found = {
        "accuracy": over(tp + tn, p + n),
        "cross_auc": np.clip((over(up, p * all_n) + over(down, n * all_p)) / 2, 0, 1),
        "auc": np.clip(over(pairs, p * n), 0, 1),
        "recall": over(tp, p),
        "specificity": over(tn, n),
        "bias": over(gaps.sum(axis=1), p + n),
        "ece": over(np.abs(gaps).sum(axis=1), p + n),
    }
    return np.column_stack([found[name] for name in SCORES])


def _concluded(
    draws: list[tuple[Floats, Floats, Floats] | None],
    labels: NDArray[np.uint8],
    probabilities: Floats,
    threshold: float,
    units: NDArray[np.int64],
    inside: NDArray[np.int64],
    rest: NDArray[np.int64],
    grouped: bool,
    level: float,
) -> Scored:
    point, drawn, apart = draws
    assert point is not None
    mine, theirs = (
        np.unique(units[rows], return_inverse=True)[1] if grouped else np.arange(len(rows)) for rows in (inside, rest)
    )
    bases, rest_bases = (
        _bases(labels[rows], probabilities[rows] >= threshold, own) for rows, own in ((inside, mine), (rest, theirs))
    )
    why = _whys(labels[inside], bases, grouped, drawn is None)
    why_rest = {name: f"in the rest: {text}" for name, text in _whys(labels[rest], rest_bases, grouped, False).items()}
    scores, gaps, rests = {}, {}, {}
    for k, name in enumerate(SCORES):
        value, other = (None if np.isnan(x[0, k]) else float(x[0, k]) for x in point[:2])
        rests[name] = other
        left_out = None if apart is None else apart[0][:, k]
        if value is None or name in why or drawn is None:
            scores[name] = Interval(value, None, None, why[name])
        elif name == "ece":
            scores[name] = bootstrap.norm_interval(value, point[2][0], drawn[2], units=bases[name], level=level)
        elif name == "bias":
            scores[name] = _t_interval(value, drawn[0][:, k], left_out, bases[name], level)
        else:
            found = bootstrap.logit_interval(value, drawn[0][:, k], units=bases[name], level=level, left_out=left_out)
            scores[name] = found
        if name == "ece":
            gaps[name] = Interval(None, None, None, _ECE_GAP)
        elif value is None or other is None:
            gaps[name] = Interval(None, None, None, why.get(name) or why_rest.get(name) or "undefined")
        elif drawn is None or name in why or name in why_rest:
            gaps[name] = Interval(value - other, None, None, why.get(name) or why_rest[name])
        else:
            moved = None if apart is None else apart[0][:, k] - apart[1][:, k]
            fewest = min(bases[name], rest_bases[name])
            gaps[name] = _t_interval(value - other, drawn[0][:, k] - drawn[1][:, k], moved, fewest, level)
    groups = int(mine.max()) + 1 if grouped else None
    return Scored(len(inside), int((labels[inside] == 1).sum()), groups, scores, rests, gaps)


def _bases(labels: NDArray[np.uint8], called: NDArray[np.bool_], units: NDArray[np.int64]) -> dict[str, int]:
    """How many units each score rests on, as `metrics.bases`."""
    found = metrics.bases(labels == 1, called, units)
    return {**found, "bias": found["accuracy"], "cross_auc": found["auc"]}


def _whys(labels: NDArray[np.uint8], bases: dict[str, int], grouped: bool, alone: bool) -> dict[str, str]:
    """Why a score, or its interval, cannot be had."""
    positive = int((labels == 1).sum())
    said = {}
    if positive == 0:
        said = {"recall": "recall undefined (0 positives)"}
    elif positive == len(labels):
        said = {"specificity": "specificity undefined (0 negatives)"}
    if said:
        lacking = "positives" if positive == 0 else "negatives"
        said |= dict.fromkeys(("auc", "cross_auc"), f"AUC undefined (0 {lacking})")
    unit = "group" if grouped else "patch"
    for name in SCORES:
        if name not in said and (alone or bases[name] < 2):
            said[name] = f"it rests on one {unit} only: an interval needs two or more"
    return said


def _t_interval(value: float, drawn: Floats, left_out: Floats | None, units: int, level: float) -> Interval:
    """value -+ t sqrt(G / (G - 1)) se, cut to -1 and 1; over groups se is at least the jackknife's."""
    kept = drawn[~np.isnan(drawn)]
    missing = len(drawn) - len(kept)
    if len(kept) < 2 or 2 * missing > len(drawn):
        return Interval(value, None, None, f"undefined in {missing} of {len(drawn)} bootstrap replicates")
    error = float(kept.std(ddof=1)) * math.sqrt(units / (units - 1))
    if left_out is not None and not np.isnan(left_out).any():
        g = len(left_out)
        error = max(error, math.sqrt(float(((left_out - value) ** 2).sum()) * (g - 1) / g))
    if error < _STILL:
        return Interval(value, None, None, "no bootstrap replicate says anything else: too few errors to tell")
    reach = bootstrap.t_quantile((1 + level) / 2, units - 1) * error
    return Interval(value, max(-1.0, value - reach), min(1.0, value + reach))
