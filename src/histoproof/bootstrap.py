"""Bootstrap intervals: resample patches, or whole groups of patches, and see how far a score moves.

A replicate draws as many units (patches, or groups with all their patches) as there are, with replacement, and is held
as how often each patch was drawn. Resampling whole groups keeps what ties their patches together (Field & Welsh,
Bootstrapping clustered data, J. R. Statist. Soc. B 69, 2007). Draws are keyed, see `rng`.

Over groups the interval is at least as wide as leaving out one group at a time says, see `logit_interval`.

How often the nominal 95 % intervals held the truth in simulation (benchmarks/coverage.py; 1000 replicates; two normal
distributions of scores, groups with their own shift and share of tumour; 800 data sets a row, so to +-0.015; the rows
without groups are 1600 of an earlier simulation, which the jackknife does not touch, so to +-0.01):

    n     groups                        AUC     AUC held (*)             other scores   ece held (percentile)
    2000  none                          0.955   0.954 (-,     0.950)     0.948-0.959    0.975 (0.401)
    500   none                          0.899   0.946 (-,     0.943)     0.935-0.959    0.976 (0.000)
    300   none                          0.993   0.939 (-,     0.901)     0.936-0.971    0.928 (0.000)
    500   40                            0.851   0.959 (0.950, 0.931)     0.944-0.969    0.988 (0.000)
    500   20                            0.851   0.948 (0.931, 0.879)     0.941-0.965    0.978 (0.000)
    500   10                            0.851   0.935 (0.920, 0.823)     0.930-0.964    0.978 (0.000)
    500   40, many of one class only    0.851   0.948 (0.934, 0.912)     0.943-0.965    0.971 (0.000)
    500   20, many of one class only    0.851   0.954 (0.944, 0.901)     0.941-0.960    0.969 (0.000)
    500   40, of uneven size            0.851   0.945 (0.927, 0.905)     0.934-0.954    0.970 (0.000)

(*) In brackets the bootstrap without the jackknife, and the plain percentile interval. With 10 groups, read 95 % as 93 %.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import rng
from .errors import ConfigError, DataError

__all__ = [
    "Interval",
    "leave_one_out",
    "logit_interval",
    "norm_interval",
    "number_units",
    "resample",
    "t_quantile",
    "t_tails",
]

_CELLS = 2**18  # weights held at once: 2 MiB an array, so that it stays in the cache
_STILL = 1e-12  # what moves less than this does not move

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Interval:
    """A score with its interval; what could not be had is None, and `why` says so in plain words."""

    value: float | None
    low: float | None
    high: float | None
    why: str | None = None

    def as_json(self) -> dict[str, float | str | None]:
        """A dict of value, low and high, and of why where something is missing."""
        row: dict[str, float | str | None] = {"value": self.value, "low": self.low, "high": self.high}
        return row if self.why is None else {**row, "why": self.why}


def number_units(groups: ArrayLike | None, n: int) -> Ints:
    """The number, from 0, of the unit that each of n patches is drawn with: its group, or itself without `groups`."""
    if groups is None:
        return np.arange(n, dtype=np.int64)
    names = np.asarray(groups)
    if names.shape != (n,):
        raise DataError(
            f"groups have shape {names.shape}", valid=f"one group for each of the {n} patches, shape ({n},)"
        )
    for index, name in enumerate(names.tolist()):
        if name is None or (isinstance(name, float) and math.isnan(name)):
            raise DataError(f"patch {index} has no group: {name}", valid="a name or a number for each patch")
    return np.unique(names, return_inverse=True)[1].astype(np.int64)


def resample(units: Ints, replicates: int, seed: int) -> Iterator[Floats]:
    """How often each patch occurs in each replicate: arrays (some replicates, N) of whole numbers, float64, in order.

    `units` (N,) numbers the unit of each patch from 0. Replicate r depends on (seed, r, number of units) only.
    """
    if replicates < 2:
        raise ConfigError(f"replicates is {replicates}", valid="a whole number >= 2; 1000 by default")
    count = int(units.max()) + 1
    key = rng.key(seed, "bootstrap")
    step = max(1, _CELLS // max(count, len(units)))
    for start in range(0, replicates, step):
        rows = np.arange(start, min(start + step, replicates), dtype=np.int64)
        drawn = (rng.uniform_at(key, rows, count) * count).astype(np.int64)  # u <= 1 - 2**-53, so always below count
        times = np.stack([np.bincount(row, minlength=count) for row in drawn]).astype(np.float64)
        yield times[:, units]


def leave_one_out(units: Ints) -> Iterator[Floats]:
    """The weights of every patch with each unit left out in turn: arrays (some units, N) of 0 and 1, float64, in order."""
    count = int(units.max()) + 1
    step = max(1, _CELLS // len(units))
    for start in range(0, count, step):
        left_out = np.arange(start, min(start + step, count), dtype=np.int64)
        yield (units[None, :] != left_out[:, None]).astype(np.float64)


def logit_interval(
    value: float,
    replicates: Floats,
    *,
    units: int,
    level: float = 0.95,
    top: float = 1.0,
    left_out: Floats | None = None,
) -> Interval:
    """The interval of a score in [0, top]: t interval on the logit scale with the bootstrap's standard error.

    logit(y) +- t sqrt(G / (G - 1)) se / (y (1 - y)) with y = value / top, se the standard deviation of `replicates`
    (R,) / top, G = `units`, how many units the score rests on, and t the quantile of Student's t with G - 1 degrees of
    freedom. Standard intervals on a transformed scale: Efron & Tibshirani, An Introduction to the Bootstrap (1993),
    chapters 12 and 13; t and sqrt(G / (G - 1)) undo the bootstrap's narrowness for few units (Hesterberg, What teachers
    should know about the bootstrap, Am. Statistician 69, 2015). It holds the value and stays inside the range.

    `left_out` (U,), the score with each unit left out in turn, is for groups, of which few may carry most of the score.
    The standard error is then at least the jackknife's, of the score's logit, and the degrees of freedom at most
    Satterthwaite's for it, 3 (sum d^2)^2 / sum d^4 with d what leaving out a group changes: fewer where few groups
    decide. The jackknife errs to the safe side (Efron & Stein, Ann. Statist. 9, 1981); for linear models it is the CR3
    of Bell & McCaffrey (Survey Methodology 28, 2002), who bring in Satterthwaite. NaN anywhere in it: not used.

    Replicates in which the score is undefined (NaN) are left out; if that is more than half, there is no interval.
    """
    kept = replicates[~np.isnan(replicates)] / top
    missing = len(replicates) - len(kept)
    if len(kept) < 2 or 2 * missing > len(replicates):
        return Interval(value, None, None, f"undefined in {missing} of {len(replicates)} bootstrap replicates")
    y, mean = value / top, math.fsum(kept) / len(kept)
    error = math.sqrt(math.fsum((kept - mean) ** 2) / (len(kept) - 1))
    if error < _STILL or not 0 < y < 1:
        return _unmoved(value, units, level, top)
    reach = _reach(units, level) * error / (y * (1 - y))
    if left_out is not None and not np.isnan(left_out).any():
        reach = max(reach, _jackknife_reach(y, left_out / top, error / (y * (1 - y)), units, level))
    centre = math.log(y / (1 - y))
    low, high = (top * _logistic(centre + sign * reach) for sign in (-1, 1))
    return Interval(value, min(low, value), max(high, value))


def norm_interval(value: float, gaps: Floats, replicates: Floats, *, units: int, level: float = 0.95) -> Interval:
    """The interval of value = sum(|gaps|), an expected calibration error, from `gaps` (B,) and `replicates` (R, B).

    Noise adds to a sum of absolute values, so replicates lie above the value and the value above the truth: the
    percentile interval of a calibrated model's error never holds the truth. So a test is inverted (Carpenter, Test
    inversion bootstrap confidence intervals, J. R. Statist. Soc. B 61, 1999): candidates for the truth are
    sum(|s * gaps|), s >= 0, the noise is `replicates` - `gaps`, and the interval holds the candidates under which the
    value seen is in no outer tail of sum(|s * gaps + noise|); tails as wide as in `logit_interval`. As the shape of the
    gaps is itself uncertain, the upper end is at least that of `logit_interval`, the safe side for a calibrated model.
    """
    noise = replicates - gaps
    if np.abs(noise).max() < _STILL:
        return _unmoved(value, units, level, 1.0)
    tail = NormalDist().cdf(-_reach(units, level))

    def seen(scale: float, q: float) -> float:
        return _quantile(np.abs(scale * gaps + noise).sum(axis=1), q)

    if value < _STILL:  # no shape to scale
        return Interval(value, 0.0, min(1.0, seen(0.0, 1 - tail)))
    low = value * _root(lambda scale: seen(scale, 1 - tail) - value, 1 / value)
    high = value * _root(lambda scale: seen(scale, tail) - value, 1 / value)
    usual = logit_interval(value, np.abs(replicates).sum(axis=1), units=units, level=level)
    return Interval(value, min(low, value), min(1.0, max(high, usual.high or 0.0)))


@lru_cache(maxsize=4096)
def t_quantile(p: float, freedom: float) -> float:
    """The quantile of Student's t, p in (0.5, 1), freedom >= 1; by bisection of `t_tails`' function."""
    if freedom > 1000:
        z = NormalDist().inv_cdf(p)
        return z + (z**3 + z) / (4 * freedom)
    angle = _root(lambda angle: _t_inside(angle, freedom) - (2 * p - 1), math.pi / 2)
    return math.sqrt(freedom) * math.tan(angle)


def t_tails(x: float, freedom: float) -> float:
    """P(|T| >= |x|) for Student's t, to 1e-15; infinite freedom: the normal distribution. Abramowitz & Stegun 26.7."""
    if freedom > 1000:  # 26.7.8
        z = abs(x) * (1 - 1 / (4 * freedom)) / math.sqrt(1 + x * x / (2 * freedom))
        return math.erfc(z / math.sqrt(2))
    return min(1.0, max(0.0, 1 - _t_inside(math.atan(abs(x) / math.sqrt(freedom)), freedom)))


def _t_inside(angle: float, freedom: float) -> float:
    """P(|T| < sqrt(freedom) tan(angle)); A. & S. 26.7.3-4, between whole degrees of freedom linear in 1 / freedom."""
    whole = math.floor(freedom)
    if whole != freedom:
        x, part = math.sqrt(freedom) * math.tan(angle), (whole + 1) * (1 - whole / freedom)
        low, high = (_t_inside(math.atan(x / math.sqrt(w)), w) for w in (whole, whole + 1))
        return (1 - part) * low + part * high
    odd = whole % 2
    cos, sin, total = math.cos(angle), math.sin(angle), 0.0
    term = cos if odd else 1.0
    for j in range(1 + odd, whole, 2):
        total += term
        term *= cos * cos * j / (j + 1)
    return 2 / math.pi * (angle + sin * total) if odd else sin * total


def _unmoved(value: float, units: int, level: float, top: float) -> Interval:
    """The interval where every replicate says the same (recall 1, AUC 1), which proves nothing.

    A kind of unit that none of `units` is may still be as frequent as f, (1 - f) ** units = (1 - level) / 2, and may
    move the score by that share of its range: from an end, the exact binomial interval (Clopper & Pearson 1934).
    """
    share = 1 - ((1 - level) / 2) ** (1 / max(units, 1))
    return Interval(value, max(0.0, value - share * top), min(max(top, value), value + share * top))


def _reach(units: int, level: float) -> float:
    """How many bootstrap standard errors an interval reaches to each side."""
    g = max(units, 2)
    return t_quantile((1 + level) / 2, g - 1) * math.sqrt(g / (g - 1))


def _jackknife_reach(y: float, left_out: Floats, error: float, units: int, level: float) -> float:
    """As `_reach` times `error`, the standard error of the logit of y, with what leaving out a unit at a time tells."""
    g = len(left_out)
    inside = (left_out > 0).all() and (left_out < 1).all()
    moves = np.log(left_out / (1 - left_out)) - math.log(y / (1 - y)) if inside else (left_out - y) / (y * (1 - y))
    squares = math.fsum(moves**2)
    if squares < _STILL**2:
        return 0.0
    freedom = max(1.0, min(units - 1, 3 * squares**2 / math.fsum(moves**4)))
    spread = max(math.sqrt(squares * (g - 1) / g), error * math.sqrt(g / (g - 1)))
    return t_quantile((1 + level) / 2, freedom) * spread


def _logistic(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x > -700 else 0.0


def _quantile(values: Floats, q: float) -> float:
    """The q-quantile at place q (R + 1) of the sorted values, between neighbours in proportion."""
    ordered = np.sort(values)
    place = min(max(q * (len(ordered) + 1) - 1, 0.0), len(ordered) - 1.0)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return float(ordered[below] + (place - below) * (ordered[above] - ordered[below]))


def _root(rising: Callable[[float], float], stop: float) -> float:
    """Where a rising function crosses zero in [0, stop], by bisection; an end where it does not."""
    low, high = 0.0, stop
    if rising(low) >= 0:
        return low
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if rising(middle) < 0 else (low, middle)
    return high
