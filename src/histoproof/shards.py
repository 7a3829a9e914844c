"""The training step on virtual shards: the same bits for any number of workers.

A batch of B patches is cut into V parts. Each part is a pure function of (weights, its patches, its keys), computed with one
thread inside an operation; gradients and batch-norm statistics are then added up in the order of the parts. Floating-point
sums depend on their order, and this order is fixed: so who computed a part, and when, cannot matter. A layer over all pixels
(`PixelLinear`) is computed for the whole batch before the shards begin, and its gradient after them.

Batch norm sees one shard at a time, like ghost batch norm (Hoffer et al. 2017); its running statistics take the mean over shards.
"""

import copy
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .compute import Precision, Standardize, Workers, as_input, autocast
from .data.batches import Batch
from .first_layer import FirstLayer
from .models import KeyedDropout, PixelLinear, keyed_dropouts, pixel_linear, rekey

__all__ = ["ShardedStep", "StepResult"]

_Norm = nn.modules.batchnorm._BatchNorm


@dataclass(frozen=True)
class StepResult:
    """What one batch gave: the mean loss, the gradient of the mean loss in the order of the parameters, and its L2 norm."""

    loss: float
    gradients: list[Tensor]
    norm: float
    digests: dict[int, list[bytes]]
    """Of the pieces of large gradients, by their place: what `checkpoint.fingerprint` need not compute again."""


@dataclass(frozen=True)
class _Part:
    loss_sum: Tensor
    """Over its patches, a scalar on the device: to read it would be to wait for the device."""
    gradients: list[Tensor]
    """Of all parameters but the first layer's weight."""
    dy: Tensor | None
    """Gradient of the first layer's output (patches, out), where that layer is computed for the batch."""
    statistics: list[Tensor]
    patches: int


@dataclass(frozen=True)
class _Replica:
    """A copy of the model for one worker: the same parameters, its own buffers and dropout generators."""

    model: nn.Module
    first: PixelLinear | None
    dropouts: list[KeyedDropout]
    statistics: list[Tensor]
    """Running statistics of its batch norms. Their momentum is 1 here: they are the last shard's own."""


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
        layer = pixel_linear(model)
        self._first: FirstLayer | None = None
        self._width = self._place = 0
        self._parameters = [p for p in model.parameters() if p.requires_grad]
        if layer is not None:
            self._first = FirstLayer(layer, workers, device=device, precision=precision, standardize=standardize)
            self._width = layer.out_features
            self._place = next(i for i, p in enumerate(self._parameters) if p is layer.weight)
            del self._parameters[self._place]
        self._norms = _norms(model)
        self._momenta = [norm.momentum for norm in self._norms]
        self._inputs: dict[int, Tensor] = {}
        self._replicas = [_replica(model) for _ in range(workers.count)]

    def __call__(self, batch: Batch, step: int, scale: float, beside: Callable[[], object] | None = None) -> StepResult:
        """Loss and gradients of `batch`; updates the model's running batch-norm statistics. `scale` multiplies the loss
        before the backward pass and divides the gradients after it. `beside` is done meanwhile, by whoever is free; it may read
        weights. The gradients may be overwritten by the next call."""
        size = len(batch.indices)
        # What is left of a model whose widest layer was computed for the batch is too small to be shared.
        shards = self._shards if self._first is None else 1
        bounds = [size * v // shards for v in range(shards + 1)]
        cuts = [(v, slice(a, b)) for v, (a, b) in enumerate(itertools.pairwise(bounds)) if b > a]
        y = None if self._first is None else self._first.outputs(batch)
        parts = self._parts(batch, y, step, cuts, scale, beside)
        self._merge_statistics(parts, size)
        gradients = parts[0].gradients
        for part in parts[1:]:
            torch._foreach_add_(gradients, part.gradients)
        torch._foreach_mul_(gradients, 1.0 / (size * scale))
        norms, digests = list(torch._foreach_norm(gradients)), dict[int, list[bytes]]()
        if self._first is not None:
            dy = torch.cat([part.dy for part in parts if part.dy is not None]).float() / (size * scale)
            wide = self._first.gradient(batch, dy)
            gradients.insert(self._place, wide.tensor)
            norms += wide.norms
            if wide.digests is not None:
                digests[self._place] = wide.digests
        norm = torch.linalg.vector_norm(torch.stack(norms))
        *losses, length = torch.stack(
            [*(part.loss_sum for part in parts), norm]
        ).tolist()  # the one wait for the device
        return StepResult(sum(losses) / size, gradients, length, digests)

    def _parts(
        self,
        batch: Batch,
        y: Tensor | None,
        step: int,
        cuts: list[tuple[int, slice]],
        scale: float,
        beside: Callable[[], object] | None,
    ) -> Sequence[_Part]:
        """Every shard's part, in the order of the shards; between processes they travel as one vector each."""

        def part(worker: int, i: int) -> _Part:
            return self._part(worker, batch, y, step, *cuts[i], scale)

        if self._workers.world.size == 1:
            return self._workers.share(part, len(cuts), beside)
        if beside is not None:
            beside()
        sizes = [batch.indices[cut].size for _, cut in cuts]
        vectors = self._workers.share_vectors(lambda worker, i: _flat(part(worker, i), max(sizes)), len(cuts))
        return [self._unflat(vector, max(sizes), patches) for vector, patches in zip(vectors, sizes, strict=True)]

    def _unflat(self, vector: Tensor, rows: int, patches: int) -> _Part:
        """A part from its vector, in which dy is padded to `rows` patches."""
        statistics = [s for norm in self._norms for s in _statistics(norm)]
        side = torch.Size((rows, self._width))
        shapes = [*(t.shape for t in (*self._parameters, *statistics)), side]
        pieces = torch.split(vector, [shape.numel() for shape in shapes] + [1])
        shaped = iter([piece.view(shape) for piece, shape in zip(pieces, shapes, strict=False)])
        gradients = [next(shaped) for _ in self._parameters]
        found = [next(shaped) for _ in statistics]
        dy = next(shaped)[:patches] if self._width else None
        return _Part(pieces[-1].squeeze(0), self._laid_out(gradients), dy, found, patches)

    def _part(
        self, worker: int, batch: Batch, y: Tensor | None, step: int, shard: int, cut: slice, scale: float
    ) -> _Part:
        replica = self._replicas[worker]
        rekey(replica.dropouts, self._device, self._seed, step, shard)
        images, labels, colour = batch.shard(cut)
        wanted = list(self._parameters)
        if y is None:
            x = as_input(images, self._standardize, colour, out=self._room(shard, images))
        else:  # the layer that would take the pixels has its outputs already
            assert replica.first is not None
            x = images.permute(0, 3, 1, 2)
            replica.first.given = y[cut].detach().requires_grad_()
            wanted.append(replica.first.given)  # type: ignore[arg-type]
        with autocast(self._device, self._precision):
            logits = replica.model(x)
        loss = F.binary_cross_entropy_with_logits(logits.float(), labels, reduction="sum")
        gradients = list(torch.autograd.grad(loss * scale, wanted))
        dy = gradients.pop() if y is not None else None
        statistics = [s.clone() for s in replica.statistics]
        return _Part(loss.detach(), self._laid_out(gradients), dy, statistics, len(images))

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
    """A part as one float32 vector: gradients, statistics, dy (padded to `rows` patches), loss. Nothing is lost: all of it was
    computed in float32 or less."""
    dy = [] if part.dy is None else [F.pad(part.dy.float(), (0, 0, 0, rows - len(part.dy)))]
    return torch.cat([t.reshape(-1) for t in (*part.gradients, *part.statistics, *dy, part.loss_sum)])


def _replica(model: nn.Module) -> _Replica:
    shared = {id(p): p for p in model.parameters()}
    replica = copy.deepcopy(model, shared)
    replica.train()
    norms = _norms(replica)
    for norm in norms:
        norm.momentum = 1.0
    statistics = [s for norm in norms for s in _statistics(norm)]
    return _Replica(replica, pixel_linear(replica), keyed_dropouts(replica), statistics)


def _norms(model: nn.Module) -> list[_Norm]:
    return [m for m in model.modules() if isinstance(m, _Norm) and m.running_mean is not None]


def _statistics(norm: _Norm) -> tuple[Tensor, Tensor]:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    return norm.running_mean, norm.running_var
