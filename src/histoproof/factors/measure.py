"""What is measured on each patch: cheap numbers with a name, a formula, a unit and a range, each a function of its patch alone.

Light and colour are kept apart: densities are above those of the patch's own lightest percent, so that a darker lamp moves
`brightness` and no stain. The distance to the training set is in `reference`, as it needs one; columns of meta are in `columns`.
"""

from functools import cache

import numpy as np
from numpy.typing import NDArray

from ..data.pcam import PATCH_SHAPE
from .known import HISTOGRAM_BINS, MEASURED
from .stain import optical_density, unmix

__all__ = ["measure"]

Floats = NDArray[np.float32]

_ROWS = 64
"""Patches at a time: keeps the working set near 30 MB whatever the block."""
_SIDE = PATCH_SHAPE[0]
_PIXELS = _SIDE * _SIDE
_COLOURED = 0.07
_LEAST_DENSITY = 0.02
"""Of all three channels together: below it a patch has no colour to speak of, and its ratios are 0."""
_TOPS = (1.6, 1.2)
"""Haematoxylin and eosin at which the histogram's last bin begins to hold everything above."""
_SIGMA, _STEP, _RISE = 2.0, 2, 0.1


def measure(block: NDArray[np.uint8]) -> tuple[Floats, Floats]:
    """The factors of patches (n, 96, 96, 3) uint8: (n, len(MEASURED)) float32 in the order of `known.MEASURED`, and (n, 64)
    float32 histograms of haematoxylin and eosin that sum to 1. Each row depends on its patch alone."""
    values = np.empty((len(block), len(MEASURED)), dtype=np.float32)
    histograms = np.empty((len(block), HISTOGRAM_BINS**2), dtype=np.float32)
    for start in range(0, len(block), _ROWS):
        rows = slice(start, min(start + _ROWS, len(block)))
        found, histograms[rows] = _measure(block[rows])
        for column, factor in enumerate(MEASURED):
            values[rows, column] = found[factor.name]
    return values, histograms


def _measure(block: NDArray[np.uint8]) -> tuple[dict[str, Floats], Floats]:
    n = len(block)
    planes = np.ascontiguousarray(np.moveaxis(block, 3, 0)).reshape(3, n, _PIXELS)
    red, green, blue = planes.astype(np.float32)
    luma = (0.299 * red + 0.587 * green + 0.114 * blue) / 255
    contrast = luma.std(axis=1)
    top, bottom = planes.max(axis=0).astype(np.float32), planes.min(axis=0).astype(np.float32)
    saturation = (top - bottom) / np.maximum(top, 1)
    density = optical_density(planes)
    light = optical_density(_percentile99(planes))[:, :, None]
    mean = density.mean(axis=2) - light[:, :, 0]  # (3, n)
    stains = unmix(mean)
    total = mean.sum(axis=0)
    coloured = total > _LEAST_DENSITY
    amounts = unmix(density - light)
    images = luma.reshape(n, _SIDE, _SIDE)
    found = {
        "brightness": luma.mean(axis=1),
        "brightness_p99": _percentile99(np.rint(luma * 255).astype(np.uint8)).astype(np.float32) / 255,
        "contrast": contrast,
        "saturation": saturation.mean(axis=1),
        "haematoxylin": stains[0],
        "eosin": stains[1],
        "stain_angle": np.where(coloured, np.degrees(np.arctan2(stains[1], stains[0])), 0),
        "stain_residual": np.divide(stains[2], total, out=np.zeros(n, np.float32), where=coloured),
        "tissue": (saturation > _COLOURED).mean(axis=1),
        "sharpness": np.log10((_laplacian_variance(images) + 1e-6) / (contrast**2 + 1e-5)),
        "grid_8px": _grid(images),
        "nuclei": _peaks(amounts[0].reshape(n, _SIDE, _SIDE)),
    }
    return found, _histogram(amounts)


def _percentile99(values: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The value that 99 % of the last axis do not exceed."""
    place = int(0.99 * (values.shape[-1] - 1))
    out: NDArray[np.uint8] = np.partition(values, place, axis=-1)[..., place]
    return out


def _laplacian_variance(images: Floats) -> Floats:
    """Variance of the 4-neighbour Laplacian inside the border."""
    middle = images[:, 1:-1, 1:-1]
    around = images[:, :-2, 1:-1] + images[:, 2:, 1:-1] + images[:, 1:-1, :-2] + images[:, 1:-1, 2:]
    out: Floats = (around - 4 * middle).reshape(len(images), -1).var(axis=1)
    return out


def _grid(images: Floats) -> Floats:
    """How much the step between neighbours depends on where in a grid of 8 px they lie, both ways; see `known`."""
    phases = np.zeros((len(images), 8), dtype=np.float32)
    for steps in (np.abs(np.diff(images, axis=2)).mean(axis=1), np.abs(np.diff(images, axis=1)).mean(axis=2)):
        mine = np.stack([steps[:, k::8].mean(axis=1) for k in range(8)], axis=1)
        middle = mine.mean(axis=1, keepdims=True)
        phases += np.divide(mine, middle, out=np.ones_like(mine), where=middle > 1e-6) / 2
    out: Floats = np.abs(phases - 1).max(axis=1)
    return out


def _peaks(haematoxylin: Floats) -> Floats:
    """Local maxima of haematoxylin, smoothed by 2 px, above the patch's mean by 0.1; per 1,000 square px."""
    blur = _gaussian()
    smooth = blur.T @ haematoxylin @ blur
    inner = smooth[:, 1:-1, 1:-1]
    highest = np.ones(inner.shape, dtype=np.bool_)
    last = smooth.shape[1] - 2
    for dy in range(3):
        for dx in range(3):
            if (dy, dx) != (1, 1):
                highest &= inner > smooth[:, dy : dy + last, dx : dx + last]
    highest &= inner > smooth.mean(axis=(1, 2), keepdims=True) + _RISE
    counts = highest.sum(axis=(1, 2)).astype(np.float32)
    return np.asarray(counts * np.float32(1000 / _PIXELS))


@cache
def _gaussian() -> Floats:
    """(96, 48): a Gaussian of 2 px at every second pixel, mirrored at the border; two products with it smooth an image."""
    matrix = np.zeros((_SIDE, _SIDE // _STEP))
    for column in range(_SIDE // _STEP):
        centre = _STEP * column + (_STEP - 1) / 2
        pixels = np.arange(int(centre) - 8, int(centre) + 10)
        kernel = np.exp(-(((pixels - centre) / _SIGMA) ** 2) / 2)
        inside = np.where(pixels < 0, -1 - pixels, np.where(pixels >= _SIDE, 2 * _SIDE - 1 - pixels, pixels))
        np.add.at(matrix[:, column], inside, kernel / kernel.sum())
    return matrix.astype(np.float32)


def _histogram(amounts: Floats) -> Floats:
    """(n, 64) share of the pixels in each of 8 x 8 bins of haematoxylin and eosin."""
    n, bins = amounts.shape[1], HISTOGRAM_BINS
    h, e = (
        np.clip(amounts[stain] * np.float32(bins / top), 0, bins - 1).astype(np.int64)
        for stain, top in enumerate(_TOPS)
    )
    cells = np.arange(n)[:, None] * bins**2 + h * bins + e
    counts = np.bincount(cells.ravel(), minlength=n * bins**2).reshape(n, -1)
    return np.asarray(counts / np.float32(_PIXELS), dtype=np.float32)
