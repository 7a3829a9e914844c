"""Where a model looks: occlusion, through the one inference path; and whether that is the centre, of which the label speaks.

Each cell of a grid is covered with the patch's mean colour in turn, and the logit's move is the cell's saliency (Zeiler &
Fergus, Visualizing and understanding convolutional networks, ECCV 2014). The grid divides the centre 32x32 px exactly, so a
model that looks everywhere alike has 1/9 of its saliency there."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from ..compute import deterministic
from ..errors import ConfigError
from ..inference import TrainedModel, logits, predict_workers

__all__ = ["CELLS", "CENTRE", "CHANCE", "centre_share", "occlusion"]

Floats = NDArray[np.float64]

CELLS = (8, 16, 32)
CENTRE = slice(32, 64)
"""The centre's rows and columns, px."""
CHANCE = 1 / 9
_SIDE = 96
_VIEWS = 1024


def occlusion(
    model: TrainedModel,
    images: NDArray[np.uint8],
    *,
    cell: int = 16,
    progress: Callable[[int, int], None] | None = None,
) -> Floats:
    """(n, 96 / cell, 96 / cell) how far the logit falls (> 0) or rises when a cell of patches (n, 96, 96, 3) uint8 is covered.

    Deterministic: the same model and patch give the same map, whatever else is asked for. Raises ConfigError for another `cell`
    than 8, 16 or 32 px."""
    if cell not in CELLS:
        raise ConfigError(f"cell is {cell}", valid="8, 16 or 32 px: those that divide the centre 32x32 px")
    side = _SIDE // cell
    out = np.empty((len(images), side, side))
    step = max(1, _VIEWS // (1 + side * side))
    workers = predict_workers(model)
    try:
        with deterministic(model.device, 1):
            for start in range(0, len(images), step):
                stop = min(start + step, len(images))
                views = torch.from_numpy(np.concatenate([_covered(image, cell) for image in images[start:stop]]))
                found = logits(model, lambda a, b, v=views: v[a:b].to(model.device), len(views), workers)  # type: ignore[misc]
                found = found.reshape(stop - start, -1)
                out[start:stop] = (found[:, :1] - found[:, 1:]).reshape(stop - start, side, side)
                if progress:
                    progress(stop, len(images))
    finally:
        workers.close()
    return out


def centre_share(maps: Floats) -> Floats:
    """(n,) share of the absolute saliency (n, side, side) that lies in the centre 32x32 px, 0 to 1; NaN where there is none at
    all."""
    cell = _SIDE // maps.shape[1]
    centre = slice(CENTRE.start // cell, CENTRE.stop // cell)
    total = np.abs(maps).sum(axis=(1, 2))
    inside = np.abs(maps[:, centre, centre]).sum(axis=(1, 2))
    return np.asarray(np.divide(inside, total, out=np.full(len(maps), np.nan), where=total > 1e-12))


def _covered(image: NDArray[np.uint8], cell: int) -> NDArray[np.uint8]:
    """The patch, then the patch with each cell covered, row by row."""
    side = _SIDE // cell
    colour = np.rint(image.reshape(-1, 3).mean(axis=0)).astype(np.uint8)
    views = np.repeat(image[None], 1 + side * side, axis=0)
    for number in range(side * side):
        y, x = divmod(number, side)
        views[1 + number, y * cell : (y + 1) * cell, x * cell : (x + 1) * cell] = colour
    return views
