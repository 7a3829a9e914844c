"""Haematoxylin and eosin by colour deconvolution.

Ruifrok & Johnston, Quantification of histochemical staining by color deconvolution, Anal. Quant. Cytol. Histol. 23, 2001: a
pixel's optical density in R, G, B is a sum of stains, each with a direction of its own; the inverse of the matrix of directions
gives the amounts. The third direction is at right angles to both: what neither stain explains."""

from functools import cache

import numpy as np
from numpy.typing import NDArray

__all__ = ["EOSIN", "HAEMATOXYLIN", "optical_density", "unmix"]

Floats = NDArray[np.float32]

HAEMATOXYLIN = (0.650, 0.704, 0.286)
"""Optical density in R, G, B of haematoxylin, as published."""
EOSIN = (0.072, 0.990, 0.105)
"""Of eosin."""


def optical_density(values: NDArray[np.uint8]) -> Floats:
    """-ln((value + 1) / 256) of uint8 values: 0 (white) to 5.55 (black), float32, of the same shape."""
    return _densities()[values]


def unmix(density: Floats) -> Floats:
    """Haematoxylin, eosin and residual (3, ...) of optical densities in R, G, B (3, ...): in optical density along each stain's
    own unit vector; below 0 where the colour is no sum of the two."""
    rows = [sum(float(w) * plane for w, plane in zip(row, density, strict=True)) for row in _inverse()]
    return np.stack(rows).astype(np.float32, copy=False)


@cache
def _densities() -> Floats:
    return (-np.log((np.arange(256) + 1) / 256)).astype(np.float32)


@cache
def _inverse() -> NDArray[np.float64]:
    """(3, 3): one row a stain."""
    h, e = (np.array(stain) / np.linalg.norm(stain) for stain in (HAEMATOXYLIN, EOSIN))
    r = np.cross(h, e)
    return np.asarray(np.linalg.inv(np.stack([h, e, r / np.linalg.norm(r)]).T))
