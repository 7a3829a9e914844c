"""A linear layer whose weight gradient is left to the batch.

The gradient of a linear layer's weight is dy^T x, summed over patches. Where the layer is wide (27,648 pixels times 64 units:
7 MB) and a shard is small, writing one gradient a shard and adding them up costs more than the products. So a shard keeps
x and y here, and the sharded step computes dy^T x once for the whole batch, in the order of the shards.
"""

import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["BatchLinear", "batch_linears"]


class BatchLinear(nn.Linear):
    """nn.Linear; with `deferred` set, it keeps the last (x, y), and no gradient flows to `weight`."""

    deferred = False
    _seen: tuple[Tensor, Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_features) to (B, out_features)."""
        if not self.deferred:
            return super().forward(x)
        y = F.linear(x, self.weight.detach(), self.bias)
        self._seen = (x.detach(), y)
        return y

    def take_seen(self) -> tuple[Tensor, Tensor]:
        """(x, y) of the last forward pass: x without its history, y with it. They are held no longer than until this call."""
        assert self._seen is not None, "a forward pass of a deferred layer comes first"
        seen, self._seen = self._seen, None
        return seen


def batch_linears(model: nn.Module) -> list[BatchLinear]:
    """The layers of `model` whose weight gradient is left to the batch, in their order."""
    return [module for module in model.modules() if isinstance(module, BatchLinear)]
