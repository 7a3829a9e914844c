"""A fast, fixed description of a patch for finding doubtful labels: no labels, no training, no downloaded weights.

On a grid of pixels the value, gradient, Laplacian and Hessian anisotropy at several Gaussian scales (the local jet, Koenderink &
van Doorn 1987, doi:10.1007/BF00318371), in optical density and in RGB, mapped by random Fourier features (Rahimi & Recht, NIPS
2007) and averaged over the patch: a kernel mean embedding of what its pixels look like, as stained and as shaped.

All of it is the same for the 8 rotations and flips of a patch, which say nothing about tumour. It is averaged over the whole
patch: the label speaks of the centre 32x32 px alone, but averages over less of it were measured to be worse, not better.
"""

from functools import cache

import numpy as np
from numpy.typing import NDArray

from .. import rng
from .pcam import PATCH_SHAPE

__all__ = ["WIDTH", "features"]

Floats = NDArray[np.float32]
Spread = tuple[float, float, float]

_SIDE = PATCH_SHAPE[0]
_STEP = 2
"""Jets are taken at every second pixel."""
_WAVES = 160
"""Random Fourier features per colour space; more are a little better (96: 0.02 less precision) and cost in proportion."""
_FREQUENCY = 1.0
"""Spread of the random frequencies, in units of the descriptor's own spread."""

# Colour space, scales (px), and the usual spread on H&E patches of value, gradient, Laplacian and anisotropy in each of the
# three opponent channels. They are units, not weights: constants of this size do.
_JETS: tuple[tuple[str, tuple[float, ...], tuple[Spread, Spread, Spread, Spread]], ...] = (
    ("density", (1.0, 2.0, 4.0), ((0.38, 0.12, 0.26), (0.09, 0.03, 0.06), (0.16, 0.05, 0.09), (0.11, 0.036, 0.07))),
    (
        "rgb",
        (0.7, 1.4, 2.8, 5.6),
        ((0.18, 0.085, 0.092), (0.038, 0.015, 0.012), (0.068, 0.019, 0.016), (0.044, 0.013, 0.012)),
    ),
)
WIDTH = len(_JETS) * _WAVES
"""Numbers per patch."""
_ROWS = 32
"""Patches at a time: keeps the working set near 40 MB whatever the block."""


def features(block: NDArray[np.uint8]) -> NDArray[np.float16]:
    """Describe patches (n, 96, 96, 3) uint8 by (n, WIDTH) float16 within -1 and 1; each row a function of its patch alone.

    float16, so that those of a full train split (262,144 patches) take 168 MB. One BLAS thread: two were slower on matrices
    this small, and the order of the sums must not depend on their number.
    """
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=1, user_api="blas"):
        return _features(block)


def _features(block: NDArray[np.uint8]) -> NDArray[np.float16]:
    out = np.empty((len(block), WIDTH), dtype=np.float16)
    for start in range(0, len(block), _ROWS):
        rows = slice(start, min(start + _ROWS, len(block)))
        rgb = np.ascontiguousarray(np.moveaxis(block[rows], 3, 1))
        images = {"density": _density_table()[rgb], "rgb": rgb.astype(np.float32) / np.float32(255)}
        for k, (space, scales, spreads) in enumerate(_JETS):
            jets = _jets(_opponent(images[space]), scales, spreads)
            frequencies, phases = _waves(space, jets.shape[2])
            angles = jets @ frequencies
            angles += phases
            out[rows, k * _WAVES : (k + 1) * _WAVES] = np.cos(angles, out=angles).mean(axis=1)
    return out


def _opponent(image_NCHW: Floats) -> Floats:
    """Brightness, red against green (hematoxylin against eosin), blue against both."""
    r, g, b = image_NCHW[:, 0], image_NCHW[:, 1], image_NCHW[:, 2]
    return np.stack([(r + g + b) / 3, r - g, b - (r + g) / 2], axis=1)


def _jets(image_NCHW: Floats, scales: tuple[float, ...], spreads: tuple[Spread, ...]) -> Floats:
    """Rotation-invariant local jets (n, grid points, 12 * scales), in units of their usual spread, cut at +-5."""
    n, grid = len(image_NCHW), _SIDE // _STEP
    out = np.empty((n, 12 * len(scales), grid, grid), dtype=np.float32)
    for k, sigma in enumerate(scales):
        smooth, first, second = (_filter(sigma, order, _STEP) for order in range(3))
        g, gx, gxx = (np.ascontiguousarray((image_NCHW @ f).swapaxes(2, 3)) for f in (smooth, first, second))
        dx, dy, dxx, dyy, dxy = gx @ smooth, g @ first, gxx @ smooth, g @ second, gx @ first
        quantities = (g @ smooth, np.sqrt(dx * dx + dy * dy), dxx + dyy, np.sqrt((dxx - dyy) ** 2 + 4 * dxy * dxy))
        fall = (2.0 / sigma) ** 0.5  # derivatives in units of the scale fall off about so on tissue
        for j, quantity in enumerate(quantities):
            unit = np.array(spreads[j], dtype=np.float32)[:, None, None] * np.float32(fall if j else 1)
            start = 12 * k + 3 * j
            np.clip(quantity / unit, -5, 5, out=out[:, start : start + 3])
    return np.ascontiguousarray(out.reshape(n, out.shape[1], -1).swapaxes(1, 2))


@cache
def _filter(sigma: float, order: int, step: int) -> Floats:
    """(96, 96 / step): a Gaussian derivative in units of sigma, mirrored at the borders, at every `step` px, as a matrix.

    Two products with such matrices filter an image both ways, faster than a convolution would. The samples lie symmetric
    about the centre of the patch, between pixels where `step` is even.
    """
    matrix = np.zeros((_SIDE, _SIDE // step))
    reach = int(4 * sigma + 1.5)
    for column in range(_SIDE // step):
        centre = step * column + (step - 1) / 2
        pixels = np.arange(int(np.floor(centre)) - reach, int(np.ceil(centre)) + reach + 1)
        u = (pixels - centre) / sigma
        gauss = np.exp(-u * u / 2)
        kernel = (gauss, -u * gauss, (u * u - 1) * gauss)[order] / gauss.sum()
        if order == 2:
            kernel -= kernel.mean()
        inside = np.where(pixels < 0, -1 - pixels, np.where(pixels >= _SIDE, 2 * _SIDE - 1 - pixels, pixels))
        np.add.at(matrix[:, column], inside, kernel)
    return matrix.astype(np.float32)


@cache
def _waves(space: str, size: int) -> tuple[Floats, Floats]:
    """Frequencies (size, _WAVES), normal by Box and Muller's way, and phases (_WAVES,): the same for every dataset."""
    a, b = rng.uniform(rng.key(0, "suspects", space, "frequencies"), 2 * size * _WAVES).reshape(2, size, _WAVES)
    normal = np.sqrt(-2 * np.log1p(-a)) * np.cos(2 * np.pi * b)
    phases = 2 * np.pi * rng.uniform(rng.key(0, "suspects", space, "phases"), _WAVES)
    return (normal * (_FREQUENCY / size**0.5)).astype(np.float32), phases.astype(np.float32)


@cache
def _density_table() -> Floats:
    """Optical density of each of the 256 values."""
    table: Floats = -np.log((np.arange(256, dtype=np.float32) + 1) / 256)
    return table
