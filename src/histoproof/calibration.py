"""Temperature scaling: one number by which a model's logits are divided so that its probabilities mean what they say.

A temperature T above 1 makes probabilities less extreme, below 1 more; the order of the patches, so every AUC, and which
are called at 0.5 stay as they are (Guo et al., On calibration of modern neural networks, ICML 2017). T is fitted on
valid, by the mean negative log-likelihood, which is convex in 1 / T: the one zero of its derivative, by bisection in double
precision, so no start, step or seed changes it.

Throughout: `labels` (N,) are 0 or 1, `logits` (N,) finite float64, that of tumour, `groups` (N,) patches that belong
together. Scores of calibrated patches that T was fitted on are a little too good; `calibrate` also fits T without each
fold of patches, or groups, in turn and scores the fold with it: `cross_fitted`.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import metrics, rng
from .bootstrap import Floats, Interval, Ints, logit_interval, number_units, resample, t_quantile
from .errors import ConfigError, DataError

__all__ = [
    "Calibration",
    "ReliabilityPoint",
    "apply_temperature",
    "calibrate",
    "fit_temperature",
    "logit",
    "reliability",
]

COLDEST, HOTTEST = 0.01, 100.0
"""The temperatures between which one is looked for: where every patch is on its side (separable), colder is always better."""
_FOLDS = 5
_CLIP = 1e-12
_SCORES = ("ece", "nll", "brier", "auc")


@dataclass(frozen=True)
class Calibration:
    """What temperature scaling did on the patches it was fitted on."""

    temperature: Interval
    """value, and the interval of where it would settle with ever more patches, or groups; `why` where it is at an end."""
    before: dict[str, Interval]
    """ece, nll, brier, auc of the logits as they are."""
    after: dict[str, Interval]
    """The same of the logits divided by the temperature."""
    cross_fitted: dict[str, float | None]
    """ece, nll, brier of patches whose own fold was left out of the fit; empty where there are too few for folds."""

    def as_json(self) -> dict[str, object]:
        """Plain dicts of all this."""
        scores = {w: {k: v.as_json() for k, v in getattr(self, w).items()} for w in ("before", "after")}
        return {"temperature": self.temperature.as_json(), **scores, "cross_fitted": self.cross_fitted}


@dataclass(frozen=True)
class ReliabilityPoint:
    """A point of the reliability diagram: patches with low < probability <= high (the first bin takes 0 too)."""

    low: float
    high: float
    count: int
    mean_probability: float | None
    """None in an empty bin."""
    observed: Interval
    """The rate of tumour among them, with its interval."""


def fit_temperature(
    labels: ArrayLike, logits: ArrayLike, *, groups: ArrayLike | None = None, level: float = 0.95
) -> Interval:
    """The temperature of least mean negative log-likelihood; at an end of its range without an interval, and `why`.

    The interval is a t interval of ln T with the sandwich variance of the patches' (groups') derivatives (White,
    Econometrica 50, 1982), one degree of freedom less than there are patches (groups).
    """
    if not 0 < level < 1:
        raise ConfigError(f"level is {level}", valid="a number between 0 and 1; 0.95 by default")
    y, z = _checked(labels, logits)
    units, signed = number_units(groups, len(y)), np.where(y == 1, z, -z)
    temperature, why = _fit(signed)
    return Interval(temperature, None, None, why) if why else _interval(signed, temperature, units, level)


def calibrate(
    labels: ArrayLike,
    logits: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    replicates: int = 1000,
    level: float = 0.95,
    seed: int = 42,
) -> Calibration:
    """Fit a temperature and score probabilities before and after, with `metrics.score_with_intervals`."""
    y, z = _checked(labels, logits)
    temperature = fit_temperature(y, z, groups=groups, level=level)
    assert temperature.value is not None

    def scored(logits: Floats) -> dict[str, Interval]:
        found = metrics.score_with_intervals(
            y, _sigmoid(logits), groups=groups, replicates=replicates, level=level, seed=seed
        )
        return {name: found[name] for name in _SCORES}

    units = number_units(groups, len(y))
    return Calibration(temperature, scored(z), scored(z / temperature.value), _cross_fitted(y, z, units, seed))


def apply_temperature(probabilities: ArrayLike, temperature: float) -> Floats:
    """Probabilities (N,) with their logits divided by `temperature`; 1 leaves them as they are, to the last bit.

    Logits are taken of probabilities clipped to [1e-12, 1 - 1e-12]; from logits at hand, divide those instead.
    """
    if not (temperature > 0 and math.isfinite(temperature)):
        raise ConfigError(f"temperature is {temperature}", valid="a number above 0")
    p = np.asarray(probabilities, dtype=np.float64)
    return p.copy() if temperature == 1 else _sigmoid(logit(p) / temperature)


def logit(probabilities: ArrayLike) -> Floats:
    """ln(p / (1 - p)) of probabilities (N,) clipped to [1e-12, 1 - 1e-12]."""
    p = np.asarray(probabilities, dtype=np.float64)
    if not ((p >= 0) & (p <= 1)).all():
        raise DataError("a probability is not between 0 and 1", valid="numbers from 0 to 1")
    clipped = np.clip(p, _CLIP, 1 - _CLIP)
    return np.asarray(np.log(clipped) - np.log1p(-clipped))


def reliability(
    labels: ArrayLike,
    probabilities: ArrayLike,
    *,
    bins: int = 15,
    groups: ArrayLike | None = None,
    replicates: int = 1000,
    level: float = 0.95,
    seed: int = 42,
) -> list[ReliabilityPoint]:
    """The points of the reliability diagram: `metrics.reliability`, with an interval for each bin's rate of tumour.

    Without groups Wilson's interval (J. Am. Stat. Assoc. 22, 1927); with groups `bootstrap.logit_interval` over them.
    """
    found = metrics.reliability(labels, probabilities, bins)
    y, p = np.asarray(labels).astype(np.uint8), np.asarray(probabilities, dtype=np.float64)
    units = number_units(groups, len(y))
    place = np.searchsorted(np.array([point.high for point in found[:-1]]), p)
    rates = None if groups is None else _binned_rates(place, len(found), y, resample(units, replicates, seed))
    points = []
    for index, point in enumerate(found):
        inside, rate = place == index, point.observed_rate
        if rate is None:
            interval = Interval(None, None, None, "no patch has such a probability")
        elif groups is None:
            interval = wilson(round(rate * point.count), point.count, level)
        elif len(here := np.unique(units[inside])) < 2:
            interval = Interval(rate, None, None, "one group only: an interval needs two or more")
        else:
            assert rates is not None
            interval = logit_interval(rate, rates[:, index], units=len(here), level=level)
        points.append(ReliabilityPoint(point.low, point.high, point.count, point.mean_probability, interval))
    return points


def wilson(successes: int, n: int, level: float = 0.95) -> Interval:
    """The score interval of a rate, `successes` out of n >= 1."""
    z = NormalDist().inv_cdf((1 + level) / 2)
    rate, stretch = successes / n, 1 + z * z / n
    centre = (rate + z * z / (2 * n)) / stretch
    reach = z * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n)) / stretch
    return Interval(rate, max(0.0, min(rate, centre - reach)), min(1.0, max(rate, centre + reach)))


def _fit(signed: Floats) -> tuple[float, str | None]:
    """From `signed` (N,), logits with the sign turned where the label is 0, so that right is positive."""

    def rising(inverse: float) -> float:  # the derivative of the loss by 1 / T
        return -float((signed * _sigmoid(-inverse * signed)).sum())

    low, high = 1 / HOTTEST, 1 / COLDEST
    if rising(low) >= 0:
        return HOTTEST, "the logits say nothing of the labels, or the wrong thing: no temperature is too high"
    if rising(high) <= 0:
        return COLDEST, "every patch is on its side of 0.5 (separable): no temperature is too low"
    while low < (middle := (low + high) / 2) < high:
        low, high = (middle, high) if rising(middle) < 0 else (low, middle)
    return 1 / low, None


def _interval(signed: Floats, temperature: float, units: Ints, level: float) -> Interval:
    count = int(units.max()) + 1
    if count < 2:
        return Interval(temperature, None, None, "one group only: an interval needs two or more")
    right = _sigmoid(signed / temperature)
    slopes = np.bincount(units, -signed * (1 - right), minlength=count)
    curvature = float((signed**2 * right * (1 - right)).sum())
    error = math.sqrt(count / (count - 1) * math.fsum(slopes**2)) / curvature * temperature  # of ln T, as of ln(1 / T)
    reach = t_quantile((1 + level) / 2, count - 1) * error
    return Interval(temperature, temperature * math.exp(-reach), temperature * math.exp(min(reach, 700.0)))


def _cross_fitted(y: Floats, z: Floats, units: Ints, seed: int) -> dict[str, float | None]:
    count = int(units.max()) + 1
    if count < 2 * _FOLDS:
        return {}
    fold = (np.argsort(rng.permutation(rng.key(seed, "calibration"), count)) % _FOLDS)[units]
    scaled, signed = np.empty(len(z)), np.where(y == 1, z, -z)
    for k in range(_FOLDS):
        out = fold == k
        scaled[out] = z[out] / _fit(signed[~out])[0]
    found = metrics.score(y, _sigmoid(scaled))
    return {name: found[name] for name in ("ece", "nll", "brier")}


def _binned_rates(place: Ints, bins: int, labels: NDArray[np.uint8], weights: Iterable[Floats]) -> Floats:
    """(R, bins) rate of tumour in each bin under weights (some replicates, N); NaN in an empty one. `place` (N,): the bins."""
    inside = (place[:, None] == np.arange(bins)).astype(np.float64)
    tumour = inside * labels[:, None]
    parts = [(w @ tumour, w @ inside) for w in weights]
    hits, total = (np.concatenate([part[k] for part in parts]) for k in (0, 1))
    return np.asarray(np.divide(hits, total, out=np.full(hits.shape, np.nan), where=total > 0))


def _sigmoid(x: Floats) -> Floats:
    e = np.exp(-np.abs(x))
    out: Floats = np.where(x >= 0, 1.0, e) / (1 + e)
    return out


def _checked(labels: ArrayLike, logits: ArrayLike) -> tuple[Floats, Floats]:
    z = np.asarray(logits, dtype=np.float64)
    if z.ndim == 1 and not np.isfinite(z).all():
        bad = int(np.argmin(np.isfinite(z)))
        raise DataError(f"the logit of patch {bad} is {z[bad]}", valid="finite numbers")
    metrics.score(labels, _sigmoid(z))  # raises on shapes and labels
    return np.asarray(labels, dtype=np.float64), z
