"""Do two models differ in accuracy? McNemar's test: the patches that only one of the two gets right.

Where neither is better, such a patch is as likely to be a's as b's (McNemar, Psychometrika 12, 1947), if patches are drawn
one by one. Patches of a group go wrong together, so that the exact p-value is too small; Obuchowski (Stat. Med. 17,
1998) and Durkalski et al. (Stat. Med. 22, 2003) add up within groups first.

How often each called a difference that was not there (nominal 5 %; 4000 data sets a row, so to +-0.007; two equal models
that share half their noise and half of each group's shift; benchmarks/false_alarms.py):

    n     groups   exact    mid-p    Obuchowski   Durkalski
    100   none     0.030    0.045    -            -
    300   none     0.037    0.048    -            -
    500   40       0.086    0.099    0.043        0.046
    500   20       0.152    0.166    0.044        0.049
    500   10       0.240    0.261    0.022        0.037
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from . import metrics
from .bootstrap import Floats, Interval, number_units, t_quantile
from .errors import ConfigError

__all__ = ["McNemar", "mcnemar"]


@dataclass(frozen=True)
class McNemar:
    """Accuracy a - accuracy b, and the tests of it; what could not be had is None, and the interval's `why` says so."""

    method: str
    """Which of the tests `p_value` is."""
    a: float
    b: float
    difference: Interval
    p_value: float | None
    only_a: int
    """How many patches only a gets right."""
    only_b: int
    exact: float
    """p-value of the exact binomial test; too small where patches come in groups, as is `mid_p`."""
    mid_p: float
    durkalski: float | None
    """p-value over groups that weigh the same whatever their size; None without groups."""


def mcnemar(
    labels: ArrayLike,
    a: ArrayLike,
    b: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    thresholds: tuple[float, float] = (0.5, 0.5),
    level: float = 0.95,
) -> McNemar:
    """Compare the accuracy of probabilities `a` and `b` (N,), called at their `thresholds`, on the same patches.

    Without groups, `p_value` is the mid-p of the exact binomial test (Fagerland, Lydersen & Laake, BMC Med. Res. Methodol.
    13, 2013), and the interval Agresti & Min's (Stat. Med. 24, 2005): Wald's with 1/2 added to each of the four cells. With
    groups, `p_value` is Obuchowski's, (G - 1) / G (sum d)^2 / sum d^2 as chi-squared with d a group's only_a - only_b,
    and the interval the t interval, with G - 1 degrees of freedom, of the difference from the groups' sums.
    """
    if not 0 < level < 1:
        raise ConfigError(f"level is {level}", valid="a number between 0 and 1; 0.95 by default")
    table = [metrics.confusion(labels, p, t) for p, t in zip((a, b), thresholds, strict=True)]
    y = np.asarray(labels) == 1
    right = [(np.asarray(p) >= t) == y for p, t in zip((a, b), thresholds, strict=True)]
    n, units = len(y), number_units(groups, len(y))
    sign = right[0].astype(np.float64) - right[1]
    only_a, only_b, count = int((sign > 0).sum()), int((sign < 0).sum()), int(units.max()) + 1
    d, sizes = (np.bincount(units, w, minlength=count).astype(np.float64) for w in (sign, np.ones(n)))
    difference, (exact, mid_p) = (only_a - only_b) / n, _binomial(only_a, only_b)
    method = "McNemar, mid-p" if groups is None else f"McNemar over {count} groups (Obuchowski)"
    durkalski = None if groups is None or count < 2 else _chi_squared(d / sizes, 1.0)
    p_value = mid_p if groups is None else _chi_squared(d, (count - 1) / count)
    if only_a + only_b == 0:
        interval, p_value = Interval(difference, None, None, "no patch is right in one model only"), None
    elif n == 1 or count == 1:
        alone = f"one {'patch' if groups is None else 'group'} only: an interval needs two or more"
        interval, p_value = Interval(difference, None, None, alone), None
    elif p_value is None:
        why = "no group differs: in each, a and b alone are right equally often"
        interval = Interval(difference, None, None, why)
    elif groups is None:
        spread = math.sqrt(only_a + only_b + 1 - (only_a - only_b) ** 2 / (n + 2)) / (n + 2)
        interval = _wald(difference, difference * n / (n + 2), spread, math.inf, level)
    else:
        spread = math.sqrt(count / (count - 1) * math.fsum((d - difference * sizes) ** 2)) / n
        interval = _wald(difference, difference, spread, count - 1, level)
    accuracies = [(cells["tp"] + cells["tn"]) / n for cells in table]
    return McNemar(method, accuracies[0], accuracies[1], interval, p_value, only_a, only_b, exact, mid_p, durkalski)


def _wald(value: float, centre: float, spread: float, freedom: float, level: float) -> Interval:
    reach = t_quantile((1 + level) / 2, freedom) * spread
    return Interval(value, max(-1.0, min(value, centre - reach)), min(1.0, max(value, centre + reach)))


def _binomial(b: int, c: int) -> tuple[float, float]:
    """Exact and mid-p values of b and c out of b + c where both are as likely; in whole numbers, so without rounding."""
    n, k = b + c, min(b, c)
    term = total = 1
    for i in range(k):
        term = term * (n - i) // (i + 1)
        total += term
    whole = 2**n
    return min(1.0, 2 * total / whole), min(1.0, (2 * total - term) / whole)


def _chi_squared(d: Floats, factor: float) -> float | None:
    """P of factor (sum d)^2 / sum d^2 as chi-squared with one degree of freedom; None where no group differs."""
    squares = math.fsum(d**2)
    return None if squares == 0 else math.erfc(abs(math.fsum(d)) * math.sqrt(factor / squares / 2))
