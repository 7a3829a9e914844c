"""The training step on virtual shards: the same bits for any number of workers.

A batch of B patches is cut into V parts. Each part is a pure function of (weights, its patches, its keys), computed with one
thread inside an operation; gradients and batch-norm statistics are then added up in the order of the parts. Floating-point
sums depend on their order, and this order is fixed: so who computed a part, and when, cannot matter. The weight gradient of a
`BatchLinear` is computed once for the batch, from what its shards saw, in pieces that workers share.

Batch norm sees one shard at a time, like ghost batch norm (Hoffer et al. 2017); its running statistics take the mean over shards.
"""

import copy
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .compute import Precision, Standardize, Workers, as_input, autocast
from .data.batches import Batch
from .models import BatchLinear, batch_linears, rekey

__all__ = ["ShardedStep", "StepResult"]

_Norm = nn.modules.batchnorm._BatchNorm


@dataclass(frozen=True)
class StepResult:
    """What one batch gave: the mean loss, and the gradient of the mean loss in the order of the parameters."""

    loss: float
    gradients: list[Tensor]


_COLUMNS = 3456
"""Columns of a weight gradient that are computed at a time: 64 rows of them stay in a core's cache. A multiple of 64 bytes."""


@dataclass(frozen=True)
class _Part:
    loss_sum: float
    gradients: list[Tensor]
    """Of all parameters but the weights of batch_linears, in their order."""
    seen: list[tuple[Tensor, Tensor]]
    """Per batch_linear: its input (patches, in) and the gradient of its output (patches, out)."""
    statistics: list[Tensor]
    patches: int


class ShardedStep:
    """Computes a batch's loss and gradients in `shards` parts on `workers`."""

    def __init__(
        self,
        model: nn.Module,
        shards: int,
        workers: Workers,
        *,
        device: torch.device,
        precision: Precision,
        standardize: Standardize,
        seed: int,
    ) -> None:
        self._shards, self._workers = shards, workers
        self._device, self._precision, self._standardize, self._seed = device, precision, standardize, seed
        self._wide = batch_linears(model)
        # Kept between steps: a fresh 7 MB a step costs more than what is written into it.
        self._wide_gradients = {id(layer.weight): torch.empty_like(layer.weight) for layer in self._wide}
        self._all = [p for p in model.parameters() if p.requires_grad]
        self._parameters = [p for p in self._all if id(p) not in self._wide_gradients]
        self._norms = _norms(model)
        self._momenta = [norm.momentum for norm in self._norms]
        self._inputs: dict[int, Tensor] = {}
        self._replicas = [_replica(model) for _ in range(workers.count)]

    def __call__(self, batch: Batch, step: int, scale: float) -> StepResult:
        """Loss and gradients of `batch`; updates the model's running batch-norm statistics. `scale` multiplies the loss
        before the backward pass and divides the gradients after it. The gradients may be overwritten by the next call."""
        size = len(batch.indices)
        bounds = [size * v // self._shards for v in range(self._shards + 1)]
        cuts = [(v, slice(a, b)) for v, (a, b) in enumerate(itertools.pairwise(bounds)) if b > a]
        parts = self._parts(batch, step, cuts, scale)
        self._merge_statistics(parts, size)
        gradients = parts[0].gradients
        for part in parts[1:]:
            torch._foreach_add_(gradients, part.gradients)
        torch._foreach_mul_(gradients, 1.0 / (size * scale))
        for i, layer in enumerate(self._wide):
            self._batch_gradient(layer, [part.seen[i] for part in parts], 1.0 / (size * scale))
        others = iter(gradients)
        ordered = [self._wide_gradients[id(p)] if id(p) in self._wide_gradients else next(others) for p in self._all]
        return StepResult(sum(part.loss_sum for part in parts) / size, ordered)

    def _batch_gradient(self, layer: BatchLinear, seen: list[tuple[Tensor, Tensor]], factor: float) -> None:
        """dy^T x times `factor`, summed over the shards in their order; each piece of the columns is one worker's."""
        gradient = self._wide_gradients[id(layer.weight)]
        pairs = [(x.float(), dy.float().mul(factor).t()) for x, dy in seen]
        width = _COLUMNS if self._device.type == "cpu" else layer.in_features  # many small kernels slow a GPU down

        def piece(worker: int, i: int) -> None:
            columns = slice(i * width, (i + 1) * width)
            out = gradient[:, columns]
            for k, (x, dy_T) in enumerate(pairs):
                torch.addmm(out, dy_T, x[:, columns], beta=0.0 if k == 0 else 1.0, out=out)

        with torch.no_grad():
            self._workers.share(piece, -(-layer.in_features // width))

    def _parts(self, batch: Batch, step: int, cuts: list[tuple[int, slice]], scale: float) -> Sequence[_Part]:
        """Every shard's part, in the order of the shards; between processes they travel as one vector each."""

        def part(worker: int, i: int) -> _Part:
            return self._part(worker, batch, step, *cuts[i], scale)

        if self._workers.world.size == 1:
            return self._workers.share(part, len(cuts))
        rows = max(batch.indices[cut].size for _, cut in cuts)
        vectors = self._workers.share_vectors(lambda worker, i: _flat(part(worker, i), rows), len(cuts))
        sizes = [batch.indices[cut].size for _, cut in cuts]
        return [self._unflat(vector, rows, patches) for vector, patches in zip(vectors, sizes, strict=True)]

    def _unflat(self, vector: Tensor, rows: int, patches: int) -> _Part:
        """A part from its vector, in which what layers saw is padded to `rows` patches."""
        statistics = [s for norm in self._norms for s in _statistics(norm)]
        sides = [torch.Size((rows, n)) for layer in self._wide for n in (layer.in_features, layer.out_features)]
        shapes = [*(t.shape for t in (*self._parameters, *statistics)), *sides]
        pieces = torch.split(vector, [shape.numel() for shape in shapes] + [1])
        shaped = iter([piece.view(shape) for piece, shape in zip(pieces, shapes, strict=False)])
        gradients = [next(shaped) for _ in self._parameters]
        found = [next(shaped) for _ in statistics]
        seen = [(next(shaped)[:patches], next(shaped)[:patches]) for _ in self._wide]
        return _Part(float(pieces[-1]), self._laid_out(gradients), seen, found, patches)

    def _part(self, worker: int, batch: Batch, step: int, shard: int, cut: slice, scale: float) -> _Part:
        replica = self._replicas[worker]
        rekey(replica, self._device, self._seed, step, shard)
        images, labels, colour = batch.shard(cut)
        with autocast(self._device, self._precision):
            logits = replica(as_input(images, self._standardize, colour, out=self._room(shard, images)))
        loss = F.binary_cross_entropy_with_logits(logits.float(), labels, reduction="sum")
        seen = [layer.take_seen() for layer in batch_linears(replica)]
        wanted = [*self._parameters, *(y for _, y in seen)]
        gradients = torch.autograd.grad(loss * scale, wanted)
        count = len(self._parameters)
        saw = [(x, dy) for (x, _), dy in zip(seen, gradients[count:], strict=True)]
        # momentum is 1 in a replica: its running statistics are this shard's own.
        statistics = [s.clone() for norm in _norms(replica) for s in _statistics(norm)]
        return _Part(loss.item(), self._laid_out(gradients[:count]), saw, statistics, len(images))

    def _room(self, shard: int, images: Tensor) -> Tensor:
        """Where a shard's input is written, kept between steps: fresh memory costs a page fault every 4 KB."""
        kept = self._inputs.get(shard)
        if kept is None or len(kept) < len(images):
            kept = self._inputs[shard] = torch.empty(images.shape, dtype=torch.float32, device=images.device)
        return kept[: len(images)]

    def _laid_out(self, gradients: Sequence[Tensor]) -> list[Tensor]:
        """Gradients in their parameters' memory layout: a norm adds up in the order of memory, so the order must be one."""
        pairs = zip(gradients, self._parameters, strict=True)
        return [g if g.stride() == p.stride() else torch.empty_like(p).copy_(g) for g, p in pairs]

    def _merge_statistics(self, parts: Sequence[_Part], size: int) -> None:
        position = 0
        for norm, momentum in zip(self._norms, self._momenta, strict=True):
            assert momentum is not None, "a cumulative average is no function of the step"
            for running in _statistics(norm):
                mean = sum(
                    (part.statistics[position] * (part.patches / size) for part in parts), torch.zeros_like(running)
                )
                running.mul_(1 - momentum).add_(mean, alpha=momentum)
                position += 1
            if norm.num_batches_tracked is not None:
                norm.num_batches_tracked.add_(1)


def _flat(part: _Part, rows: int) -> Tensor:
    """A part as one float32 vector: gradients, statistics, what layers saw (padded to `rows` patches), loss. Nothing is lost:
    all of it was computed in float32 or less."""
    loss = part.gradients[0].new_tensor([part.loss_sum])
    seen = [F.pad(t.float(), (0, 0, 0, rows - len(t))) for pair in part.seen for t in pair]
    return torch.cat([t.reshape(-1) for t in (*part.gradients, *part.statistics, *seen, loss)])


def _replica(model: nn.Module) -> nn.Module:
    """A copy for one worker: the same parameters, its own buffers and dropout generators."""
    shared = {id(p): p for p in model.parameters()}
    replica = copy.deepcopy(model, shared)
    replica.train()
    for norm in _norms(replica):
        norm.momentum = 1.0
    for layer in batch_linears(replica):
        layer.deferred = True
    return replica


def _norms(model: nn.Module) -> list[_Norm]:
    return [m for m in model.modules() if isinstance(m, _Norm) and m.running_mean is not None]


def _statistics(norm: _Norm) -> tuple[Tensor, Tensor]:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    return norm.running_mean, norm.running_var
