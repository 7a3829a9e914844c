"""Multi-layer perceptron on the flattened pixels: the mission's own baseline."""

from collections.abc import Sequence

from torch import Tensor, nn

from .dropout import KeyedDropout
from .linear import PixelLinear

__all__ = ["Mlp"]

_PIXELS = 96 * 96 * 3


class Mlp(nn.Module):
    """27,648 inputs, then Linear, ReLU, Dropout for each hidden layer, then one logit."""

    def __init__(self, hidden: Sequence[int], dropout: float) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        width = _PIXELS
        for units in hidden:
            linear = PixelLinear if width == _PIXELS else nn.Linear
            layers += [linear(width, units), nn.ReLU(), KeyedDropout(dropout)]
            width = units
        self.layers = nn.Sequential(*layers, nn.Linear(width, 1))

    def forward(self, images_NCHW: Tensor) -> Tensor:
        """(B, 3, 96, 96) to (B,) logits. Pixels are flattened row by row with channels last, as they lie in the store."""
        logits: Tensor = self.layers(images_NCHW.permute(0, 2, 3, 1).flatten(1))
        return logits.squeeze(1)
