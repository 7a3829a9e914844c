"""A linear layer over all pixels of a patch: wide (27,648 inputs), so its weight is the model.

Its weight lies in memory input by input: what belongs to some rows of the image is one piece of memory. So a batch's outputs and
weight gradient are computed block by block (`first_layer.py`), each block's weights, gradient and momentum passing through a
core's cache once, and workers share the blocks.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["PixelLinear", "pixel_linear"]


class PixelLinear(nn.Linear):
    """nn.Linear; with `given`, x W^T computed elsewhere for these patches, it adds the bias to that instead."""

    given: Tensor | None = None

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(in_features, out_features)
        self.weight = nn.Parameter(self.weight.detach().t().contiguous().t())

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_features) to (B, out_features)."""
        if self.given is None:
            return F.linear(x, self.weight, self.bias)
        y, self.given = self.given, None
        return torch.add(y, self.bias)


def pixel_linear(model: nn.Module) -> PixelLinear | None:
    """The layer of `model` that takes the pixels; None where another kind of layer does."""
    return next((module for module in model.modules() if isinstance(module, PixelLinear)), None)
