"""Patches unlike the rest of their split in brightness, saturation, sharpness or stain: warnings, for a person to look at."""

import numpy as np
from numpy.typing import NDArray

from .findings import Finding
from .inspection import Inspection

__all__ = ["OUTLIER_RULE", "outlier_findings"]

_CUT, _MOST, _LEAST_PATCHES = 6.0, 10, 50
_MAD_TO_SD = 1.4826
OUTLIER_RULE = (
    f"outlier: farther than {_CUT:g} robust standard deviations (1.4826 x median absolute deviation) from the split's median in "
    "brightness, saturation, sharpness (mean squared step to the pixel below over the variance, judged by its logarithm: low is "
    f"blurred, high is noise) or stain (red's share of the mean optical density); at most {_MOST} of a measure, farthest first"
)


def outlier_findings(split: str, seen: Inspection) -> list[Finding]:
    """Findings outlier (warning) of one split, after OUTLIER_RULE; faulty patches are left out."""
    sound = seen.exact & ~seen.plain
    if sound.sum() < _LEAST_PATCHES:
        return []
    found = []
    for name, values in _measures(seen).items():
        usable = sound & np.isfinite(values)
        rows = np.flatnonzero(usable)
        if len(rows) < _LEAST_PATCHES:
            continue
        median = float(np.median(values[rows]))
        spread = float(np.median(np.abs(values[rows] - median))) * _MAD_TO_SD
        if spread == 0:
            continue
        z = (values[rows] - median) / spread
        far = np.flatnonzero(np.abs(z) > _CUT)
        far = far[np.argsort(-np.abs(z[far]), kind="stable")]
        usual = np.quantile(values[rows], [0.01, 0.99])
        for k in far[:_MOST]:
            value, low, high = (np.exp(v) if name == "sharpness" else v for v in (values[rows[k]], *usual))
            words = f"{name} {value:.3g}; 98 % of the split lies in {low:.3g} to {high:.3g} (robust z {z[k]:+.1f})"
            if k == far[0] and len(far) > _MOST:
                words += f"; the farthest of {len(far)}, of which {_MOST} are listed"
            found.append(Finding("outlier", "warning", split, int(rows[k]), words))
    return found


def _measures(seen: Inspection) -> dict[str, NDArray[np.float64]]:
    """(n,) values of each measure; NaN where it has no meaning for a patch."""
    colour = seen.colour.astype(np.float64)
    high, low = colour.max(axis=1), colour.min(axis=1)
    density = -np.log((colour + 1) / 256)
    total = density.sum(axis=1)
    variance = seen.contrast.astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        return {
            "brightness": colour.mean(axis=1),
            "saturation": (high - low) / np.maximum(high, 1),
            "sharpness": np.where(variance > 25, np.log((seen.sharpness + 1.0) / (variance + 1.0)), np.nan),
            "stain": np.where(total > 0.3, density[:, 0] / total, np.nan),
        }
