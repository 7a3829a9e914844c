"""The factors by name: formula, unit, range, and how a move of each is said."""

from dataclasses import dataclass
from typing import Literal

__all__ = ["DISTANCE", "FACTORS", "HISTOGRAM_BINS", "MEASURED", "VERSION", "Factor", "Family", "factor_of"]

VERSION = 1
"""Of the formulas: raised when any changes, so that no cached table outlives them."""
HISTOGRAM_BINS = 8
"""Bins of each stain in the histogram that neighbours are found by."""

Family = Literal["light", "stain", "focus", "compression", "content", "novelty"]


@dataclass(frozen=True)
class Factor:
    """One number of a patch."""

    name: str
    family: Family
    """What moves it."""
    unit: str
    low: float
    """The least it can be."""
    high: float
    """The most it can be."""
    formula: str
    less: str
    """What patches do that have less of it, for sentences."""
    more: str
    """And those that have more."""


_SHARE = "share"
_DENSITY = "optical density"
MEASURED: tuple[Factor, ...] = (
    Factor(
        "brightness",
        "light",
        "share of white",
        0,
        1,
        "mean luma, 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601)",
        "are darker",
        "are brighter",
    ),
    Factor(
        "brightness_p99",
        "light",
        "share of white",
        0,
        1,
        "99th percentile of luma: the glass, where a patch shows any",
        "are darker in their lightest parts",
        "are brighter in their lightest parts",
    ),
    Factor(
        "contrast",
        "light",
        "share of white",
        0,
        0.5,
        "standard deviation of luma",
        "are lower in contrast",
        "are higher in contrast",
    ),
    Factor(
        "saturation", "stain", _SHARE, 0, 1, "mean of (max - min) / max of R, G, B", "are paler", "are more colourful"
    ),
    Factor(
        "haematoxylin",
        "stain",
        _DENSITY,
        -5.6,
        8,
        "mean amount of haematoxylin (Ruifrok & Johnston 2001), above the patch's lightest percent in each channel",
        "hold less haematoxylin",
        "hold more haematoxylin",
    ),
    Factor("eosin", "stain", _DENSITY, -8, 8, "the same of eosin", "hold less eosin", "hold more eosin"),
    Factor(
        "stain_angle",
        "stain",
        "degrees",
        -180,
        180,
        "atan2(eosin, haematoxylin): 0 all haematoxylin, 90 all eosin; 0 where there is no colour",
        "are nearer to haematoxylin in hue",
        "are nearer to eosin in hue",
    ),
    Factor(
        "stain_residual",
        "stain",
        _SHARE,
        -1.5,
        1.5,
        "the third amount, which neither stain explains, over the sum of the three channels' density; 0 where there is no colour",
        "absorb less blue than the two stains explain",
        "absorb more blue than the two stains explain",
    ),
    Factor(
        "tissue",
        "content",
        _SHARE,
        0,
        1,
        "share of pixels with saturation above 0.07",
        "hold less tissue",
        "hold more tissue",
    ),
    Factor(
        "sharpness",
        "focus",
        "log10",
        -6,
        6,
        "log10 of the variance of the Laplacian of luma over the variance of luma, so brightness and contrast do not move it",
        "are more blurred",
        "are sharper",
    ),
    Factor(
        "grid_8px",
        "compression",
        _SHARE,
        0,
        7,
        "mean step between neighbouring pixels by place in a grid of 8 px, both ways: largest deviation from the mean of the 8",
        "have less of a grid of 8 px",
        "have more of a grid of 8 px, as JPEG leaves it",
    ),
    Factor(
        "nuclei",
        "content",
        "per 1,000 px²",
        0,
        60,
        "local maxima of haematoxylin smoothed by 2 px, at least 0.1 above the patch's mean: a proxy, not a count",
        "hold fewer nuclei",
        "hold more nuclei",
    ),
)
"""In the order of the columns of `measure`."""
DISTANCE = Factor(
    "train_distance",
    "novelty",
    "Hellinger",
    0,
    1,
    "distance to the nearest patch of the training set (of at most 8,192, itself left out): Hellinger's, between 8 x 8 "
    "histograms of haematoxylin and eosin",
    "are nearer to the training set",
    "are farther from the training set",
)
FACTORS: tuple[Factor, ...] = (*MEASURED, DISTANCE)
"""All numbers of a patch, in the order of a table's columns."""


def factor_of(name: str) -> Factor | None:
    """The factor of that name; None for a column of meta or of a CSV."""
    return next((factor for factor in FACTORS if factor.name == name), None)
