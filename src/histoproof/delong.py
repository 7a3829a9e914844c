"""AUCs of models over the same patches, how they vary together, and a test of their difference; no resampling.

A patch's placement is the share of the other class that it is ranked right against, ties counted half; the mean over one
class is the AUC. Variances of placements give the covariance of AUCs (DeLong, DeLong & Clarke-Pearson, Biometrics 44,
1988), from one sort of each model's probabilities (as Sun & Xu, IEEE Signal Process. Lett. 21, 2014). Where patches come
in groups, placements are added up within groups first (Obuchowski, Biometrics 53, 1997), and tails are Student's t's:
degrees of freedom are one less than the groups with the rarer class, or Satterthwaite's for the groups' shares of the
difference if that is fewer (Obuchowski takes the normal distribution, which is for many groups).

How often the tests called a difference that was not there (nominal 5 %; 4000 data sets a row, so to +-0.007; two models of
AUC 0.90, or in groups 0.85, that share half their noise and half of each group's shift; benchmarks/false_alarms.py):

    n     groups   Obuchowski   DeLong
    100   none     -            0.045
    300   none     -            0.046
    500   40       0.047        0.127
    500   20       0.047        0.209
    500   10       0.049        0.324
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import metrics
from .bootstrap import Floats, Interval, number_units, t_quantile, t_tails
from .errors import ConfigError, DataError

__all__ = ["AucCovariance", "AucDifference", "auc_covariance", "delong"]

_STILL = 1e-12


@dataclass(frozen=True)
class AucCovariance:
    """AUCs of M models and their covariance; without it (`why`) where a class rests on fewer than two units."""

    aucs: Floats
    """(M,)"""
    covariance: Floats | None
    """(M, M)"""
    shares: Floats
    """(M, U): what each unit (patch or group) adds to the deviation of each AUC from its mean."""
    units: int
    """How many units the rarer class is in."""
    why: str | None = None


@dataclass(frozen=True)
class AucDifference:
    """AUC a - AUC b: standard error, interval, two-sided p-value; what could not be had is None, and `why` says so."""

    a: float | None
    b: float | None
    difference: Interval
    error: float | None
    p_value: float | None
    freedom: float
    """Degrees of freedom of the t distribution; infinite: the normal distribution."""


def auc_covariance(labels: ArrayLike, models: Sequence[ArrayLike], groups: ArrayLike | None = None) -> AucCovariance:
    """The AUCs of `models`, (N,) probabilities each, and their covariance. DataError unless both classes are there."""
    found = [metrics.auc(labels, p) for p in models]  # checks labels and probabilities
    if None in found:
        raise DataError(f"the AUC is undefined: one class only: every label is {np.asarray(labels)[0]:g}")
    y = np.asarray(labels) == 1
    units = number_units(groups, len(y))
    placed = np.stack([placements(y, np.asarray(p, dtype=np.float64)) for p in models])
    aucs = placed[:, y].mean(axis=1)
    count, m, n = int(units.max()) + 1, int(y.sum()), int((~y).sum())
    gone = placed - aucs[:, None]
    tumour = np.stack([np.bincount(units[y], row[y], minlength=count) for row in gone]) / m
    normal = np.stack([np.bincount(units[~y], row[~y], minlength=count) for row in gone]) / n
    p, q = len(np.unique(units[y])), len(np.unique(units[~y]))
    if min(p, q) < 2:
        kind, what = ("tumour" if p < 2 else "normal"), ("patch" if groups is None else "group")
        return AucCovariance(aucs, None, tumour + normal, min(p, q), f"one {what} with {kind} only: two or more needed")
    cross = tumour @ normal.T
    covariance = tumour @ tumour.T * p / (p - 1) + normal @ normal.T * q / (q - 1)
    covariance += (cross + cross.T) * count / (count - 1)
    return AucCovariance(aucs, covariance, tumour + normal, min(p, q))


def delong(
    labels: ArrayLike, a: ArrayLike, b: ArrayLike, *, groups: ArrayLike | None = None, level: float = 0.95
) -> AucDifference:
    """Do two models, `a` and `b` (N,), differ in AUC on the same patches? With `groups` (N,), over groups."""
    if not 0 < level < 1:
        raise ConfigError(f"level is {level}", valid="a number between 0 and 1; 0.95 by default")
    areas = [metrics.auc(labels, p) for p in (a, b)]
    if areas[0] is None or areas[1] is None:
        why = f"one class only: every label is {np.asarray(labels)[0]:g}"
        return AucDifference(None, None, Interval(None, None, None, why), None, None, math.inf)
    found = auc_covariance(labels, [a, b], groups)
    difference = areas[0] - areas[1]

    def undone(why: str) -> AucDifference:
        return AucDifference(areas[0], areas[1], Interval(difference, None, None, why), None, None, math.inf)

    if found.covariance is None:
        return undone(str(found.why))
    contrast = np.array([1.0, -1.0])
    variance, shares = float(contrast @ found.covariance @ contrast), contrast @ found.shares
    if variance < _STILL**2:
        same = np.abs(shares).max() < _STILL and abs(difference) < _STILL
        return undone(
            "both models place every patch alike" if same else "the placements' difference does not vary: no variance"
        )
    freedom = math.inf
    if groups is not None:
        satterthwaite = 3 * math.fsum(shares**2) ** 2 / math.fsum(shares**4)
        freedom = max(1.0, min(found.units - 1, satterthwaite))
    error = math.sqrt(variance)
    reach = t_quantile((1 + level) / 2, freedom) * error
    interval = Interval(difference, max(-1.0, difference - reach), min(1.0, difference + reach))
    return AucDifference(areas[0], areas[1], interval, error, t_tails(difference / error, freedom), freedom)


def placements(tumour: NDArray[np.bool_], probabilities: Floats) -> Floats:
    """For each patch (N,) the share of the other class that it is ranked right against, ties half."""
    values, place = np.unique(probabilities, return_inverse=True)
    out = np.empty(len(tumour))
    for mine, below in ((tumour, True), (~tumour, False)):
        others = np.bincount(place[~mine], minlength=len(values)).astype(np.float64)
        beaten = np.cumsum(others) - others / 2
        total = others.sum()
        share = beaten / total if below else (total - beaten) / total
        out[mine] = share[place[mine]]
    return out
