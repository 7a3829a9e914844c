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
    """How patches with less of it are called."""
    more: str
    """And those with more."""


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
        "darker",
        "brighter",
    ),
    Factor(
        "brightness_p99",
        "light",
        "share of white",
        0,
        1,
        "99th percentile of luma: the glass, where a patch shows any",
        "darker in their lightest parts",
        "brighter in their lightest parts",
    ),
    Factor(
        "contrast",
        "light",
        "share of white",
        0,
        0.5,
        "standard deviation of luma",
        "lower in contrast",
        "higher in contrast",
    ),
    Factor("saturation", "stain", _SHARE, 0, 1, "mean of (max - min) / max of R, G, B", "paler", "more colourful"),
    Factor(
        "haematoxylin",
        "stain",
        _DENSITY,
        -5.6,
        8,
        "mean amount of haematoxylin (Ruifrok & Johnston 2001), above the patch's lightest percent in each channel",
        "weaker in haematoxylin",
        "stronger in haematoxylin",
    ),
    Factor("eosin", "stain", _DENSITY, -8, 8, "the same of eosin", "weaker in eosin", "stronger in eosin"),
    Factor(
        "stain_angle",
        "stain",
        "degrees",
        -180,
        180,
        "atan2(eosin, haematoxylin): 0 all haematoxylin, 90 all eosin; 0 where there is no colour",
        "of a hue nearer to haematoxylin",
        "of a hue nearer to eosin",
    ),
    Factor(
        "stain_residual",
        "stain",
        _SHARE,
        -1.5,
        1.5,
        "the third amount, which neither stain explains, over the sum of the three channels' density; 0 where there is no colour",
        "of a hue with less blue absorbed than the stains explain",
        "of a hue with more blue absorbed than the stains explain",
    ),
    Factor(
        "tissue",
        "content",
        _SHARE,
        0,
        1,
        "share of pixels with saturation above 0.07",
        "with less tissue",
        "with more tissue",
    ),
    Factor(
        "sharpness",
        "focus",
        "log10",
        -6,
        6,
        "log10 of the variance of the Laplacian of luma over the variance of luma: not moved by brightness or contrast",
        "more blurred",
        "sharper",
    ),
    Factor(
        "grid_8px",
        "compression",
        _SHARE,
        0,
        7,
        "mean step between neighbouring pixels by their place in a grid of 8 px, both ways: largest deviation from the mean of the 8",
        "with less of a grid of 8 px",
        "with more of a grid of 8 px, as JPEG leaves it",
    ),
    Factor(
        "nuclei",
        "content",
        "per 1,000 px²",
        0,
        60,
        "local maxima of haematoxylin smoothed by 2 px, at least 0.1 above the patch's mean: a proxy, not a count",
        "with fewer nuclei",
        "with more nuclei",
    ),
)
"""In the order of the columns of `measure`."""
DISTANCE = Factor(
    "train_distance",
    "novelty",
    "Hellinger",
    0,
    1,
    "distance to the nearest patch of the training set (of at most 8,192, itself left out): Hellinger's, between 8 x 8 histograms of "
    "haematoxylin and eosin",
    "nearer to the training set",
    "farther from the training set",
)
FACTORS: tuple[Factor, ...] = (*MEASURED, DISTANCE)
"""All numbers of a patch, in the order of a table's columns."""


def factor_of(name: str) -> Factor | None:
    """The factor of that name; None for a column of meta or of a CSV."""
    return next((factor for factor in FACTORS if factor.name == name), None)
