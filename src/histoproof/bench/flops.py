"""How much arithmetic a model takes: multiplications and additions of its convolutions and linear layers, counted by shape."""

import torch
from torch import Tensor, nn

from ..data.pcam import PATCH_SHAPE

__all__ = ["Flops", "count_flops"]


class Flops:
    """Floating-point operations for one patch. What is not a convolution or a linear layer is left out: it is memory's work."""

    def __init__(self) -> None:
        self.forward = 0
        """2 per multiply-add of the forward pass."""
        self.training = 0
        """Forward and backward: of each layer its output, its weight's gradient, and (but for the first layer) its input's."""
        self.linear = 0
        """The part of `forward` in linear layers."""


def count_flops(model: nn.Module) -> Flops:
    """Of one patch (96 x 96 px), by one forward pass on the model's device; its mode is left as it was."""
    found, hooks, was_training = Flops(), [], model.training

    def seen(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        weight = layer.weight
        assert isinstance(weight, Tensor)
        here = 2 * output.numel() * weight[0].numel()
        first = found.forward == 0
        found.forward += here
        found.training += (2 if first else 3) * here
        if isinstance(layer, nn.Linear):
            found.linear += here

    for layer in model.modules():
        if isinstance(layer, nn.Linear | nn.modules.conv._ConvNd):
            hooks.append(layer.register_forward_hook(seen))
    height, width, channels = PATCH_SHAPE
    patch = torch.zeros((1, channels, height, width), device=next(model.parameters()).device)
    try:
        model.eval()
        with torch.inference_mode():
            model(patch)
    finally:
        model.train(was_training)
        for hook in hooks:
            hook.remove()
    return found
