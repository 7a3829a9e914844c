"""Random changes of patches, each a function of (seed, epoch, patch index) alone.

Shapes: N patches, H = W = 96 px, C = 3 channels.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from . import rng
from .config import AugmentConfig

__all__ = ["ColourShift", "colour_shifts", "d4_elements", "dihedral"]

ColourShift = tuple[Tensor, Tensor]
"""(factor, offset), each (N, 3) float32: a channel's value v in 0-1 becomes clamp(v * factor + offset, 0, 1)."""


def d4_elements(seed: int, epoch: int, indices: NDArray[np.int64]) -> NDArray[np.int64]:
    """Which of the 8 elements of D4 each patch gets: shape (N,), 0-7."""
    return np.floor(rng.uniform_at(rng.key(seed, "d4", epoch), indices, 1)[:, 0] * 8).astype(np.int64)


def dihedral(images_NHWC: Tensor, elements: NDArray[np.int64]) -> Tensor:
    """Each patch under its element of D4: k % 4 quarter turns, after a flip of the rows where k >= 4."""
    out = torch.empty_like(images_NHWC)
    for element in np.unique(elements):
        chosen = torch.from_numpy(np.flatnonzero(elements == element)).to(images_NHWC.device)
        part = images_NHWC.index_select(0, chosen)
        if element >= 4:
            part = part.flip(1)
        out.index_copy_(0, chosen, torch.rot90(part, int(element) % 4, (1, 2)))
    return out


def colour_shifts(config: AugmentConfig, seed: int, epoch: int, indices: NDArray[np.int64]) -> ColourShift | None:
    """The colour change of each patch; None where the config asks for none."""
    if not (config.brightness or config.contrast or config.channel):
        return None
    draws = rng.uniform_at(rng.key(seed, "colour", epoch), indices, 5) * 2 - 1
    contrast = 1 + config.contrast * draws[:, 0:1]
    factor = contrast * (1 + config.channel * draws[:, 2:5])
    offset = 0.5 * (1 - contrast) + config.brightness * draws[:, 1:2]
    offset = np.broadcast_to(offset, factor.shape)
    return torch.from_numpy(factor.astype(np.float32)), torch.from_numpy(offset.astype(np.float32))
