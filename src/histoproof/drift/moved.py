"""Has a number moved? Two samples compared: how far, how surely, which way.

The effect is the Kolmogorov-Smirnov distance, the share of patches that would have to change: it does not grow with their
number, as significance does. The p-value assumes that patches are independent. Patches of one slide are not: a few slides can
differ from the training set, as any few slides would, and be significant. So a drift needs both, a small p-value and an effect
worth the name."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["QUANTILES", "compare", "least_detectable", "stability_index"]

Floats = NDArray[np.float64]

QUANTILES = tuple(round(k / 20, 2) for k in range(1, 20))
"""Kept of both samples, for the figure."""
_BINS = 10


def compare(reference: Floats, new: Floats) -> dict[str, Any]:
    """{"ks", "p", "psi", "more", "shift", "reference": {...}, "new": {...}} of two samples (m,) and (n,).

    `more` is P(new > reference) + P(equal) / 2, 0.5 where neither is larger; `shift` the difference of medians in units of the
    reference's spread (interquartile range / 1.349), None where that is 0. `p` is two-sided and asymptotic (scipy's kstwo).
    """
    from scipy.stats import ks_2samp

    found = ks_2samp(reference, new, method="asymp")
    order = np.sort(reference)
    below, upto = np.searchsorted(order, new, side="left"), np.searchsorted(order, new, side="right")
    spread = float(np.subtract(*np.quantile(reference, [0.75, 0.25]))) / 1.349
    medians = float(np.median(reference)), float(np.median(new))
    return {
        "ks": float(found.statistic),
        "p": float(found.pvalue),
        "psi": stability_index(reference, new),
        "more": float((below + upto).mean() / 2 / len(order)),
        "shift": (medians[1] - medians[0]) / spread if spread > 0 else None,
        "reference": {"median": medians[0], "quantiles": np.quantile(reference, QUANTILES).tolist()},
        "new": {"median": medians[1], "quantiles": np.quantile(new, QUANTILES).tolist()},
    }


def stability_index(reference: Floats, new: Floats) -> float:
    """The population stability index over the reference's tenths: sum (q - p) ln(q / p), with half a patch added to each bin.
    Custom has it that 0.1 is worth a look and 0.25 a drift (Siddiqi, Credit Risk Scorecards, 2006); it grows as patches get
    few."""
    edges = np.unique(np.quantile(reference, np.linspace(0, 1, _BINS + 1)[1:-1]))
    counts = [
        np.bincount(np.searchsorted(edges, x, side="right"), minlength=len(edges) + 1) + 0.5 for x in (reference, new)
    ]
    p, q = (c / c.sum() for c in counts)
    return float(((q - p) * np.log(q / p)).sum())


def least_detectable(m: int, n: int, alpha: float, tests: int) -> float:
    """The smallest KS distance of n patches to m that can be significant at alpha after Holm's correction, about; 1 at most."""
    from scipy.special import kolmogi

    return min(1.0, float(kolmogi(alpha / tests)) / math.sqrt(m * n / (m + n)))
