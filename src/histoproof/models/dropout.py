"""Dropout whose mask is a function of a key, not of a global generator that threads would share."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .. import rng

__all__ = ["KeyedDropout", "keyed_dropouts", "rekey", "replace_dropout"]


class KeyedDropout(nn.Module):
    """nn.Dropout (zero with probability p, the rest divided by 1 - p) drawing from its own generator."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p
        self.generator: torch.Generator | None = None

    def forward(self, x: Tensor) -> Tensor:
        """x with a share p of its values set to 0 while training; x itself otherwise."""
        if not self.training or self.p == 0:
            return x
        assert self.generator is not None, "rekey() comes before a training step"
        keep = torch.rand(x.shape, generator=self.generator, device=x.device) >= self.p
        return x * keep.to(x.dtype).div_(1 - self.p)


def keyed_dropouts(model: nn.Module) -> list[KeyedDropout]:
    """The dropouts of `model` in their order."""
    return [module for module in model.modules() if isinstance(module, KeyedDropout)]


def rekey(dropouts: Sequence[KeyedDropout], device: torch.device, seed: int, step: int, shard: int) -> None:
    """Give a model's `keyed_dropouts` the masks of (seed, step, shard)."""
    for layer, module in enumerate(dropouts):
        if module.generator is None or module.generator.device != device:
            module.generator = torch.Generator(device)
        module.generator.manual_seed(rng.key(seed, "dropout", step, shard, layer))


def replace_dropout(model: nn.Module) -> nn.Module:
    """Swap every nn.Dropout inside a foreign model for a KeyedDropout of the same rate."""
    for name, child in model.named_children():
        if isinstance(child, nn.Dropout | nn.Dropout1d | nn.Dropout2d | nn.Dropout3d):
            setattr(model, name, KeyedDropout(child.p))
        else:
            replace_dropout(child)
    return model
