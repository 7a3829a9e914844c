"""The layer that takes the pixels, for a whole batch: outputs and weight gradient, block by block of image rows.

A block (a quarter of the image, 6,912 inputs; on a GPU the whole) is turned into numbers in a worker's own buffer, multiplied,
and forgotten: it hardly leaves the core's cache, and for the gradient it is made anew. The blocks are fixed and their sums are
added up in their order, so the bits do not depend on who computed which.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from . import checkpoint
from .compute import Precision, Standardize, Workers, as_input, autocast
from .data.batches import Batch
from .models import PixelLinear

__all__ = ["FirstLayer", "WideGradient"]


@dataclass(frozen=True)
class WideGradient:
    """The gradient of the first layer's weight."""

    tensor: Tensor
    """Overwritten by the next step."""
    norms: list[Tensor]
    """L2 norm of each block."""
    digests: list[bytes] | None
    """Of its `checkpoint.pieces`, where these are the blocks."""


class FirstLayer:
    """x W^T and its gradient for batches of patches."""

    def __init__(
        self,
        layer: PixelLinear,
        workers: Workers,
        *,
        device: torch.device,
        precision: Precision,
        standardize: Standardize,
    ) -> None:
        self._layer, self._workers = layer, workers
        self._device, self._precision, self._standardize = device, precision, standardize
        self._blocks = checkpoint.PIECES if device.type == "cpu" else 1
        self._inputs = layer.in_features // self._blocks
        # Kept between steps: a fresh 7 MB a step costs more than what is written into it.
        self._gradient = torch.empty_like(layer.weight)
        self._digested = layer.weight.numel() >= checkpoint.LARGE and self._blocks == checkpoint.PIECES
        self._rooms = [torch.empty(0) for _ in range(workers.count)]

    def outputs(self, batch: Batch) -> Tensor:
        """(B, out_features) float32, without the bias."""
        weight_T = self._layer.weight.detach().t()
        bands = self._bands(batch)

        def block(worker: int, k: int) -> Tensor:
            with torch.no_grad(), autocast(self._device, self._precision):
                return torch.mm(self._pixels(bands[k], batch, worker), weight_T[self._slice(k)])

        first, *others = self._workers.share(block, self._blocks)
        total = first.float()
        for other in others:
            total += other
        return total

    def gradient(self, batch: Batch, dy: Tensor) -> WideGradient:
        """For the gradient of the outputs, (B, out_features) float32."""
        gradient_T = self._gradient.t()
        bands = self._bands(batch)

        def block(worker: int, k: int) -> tuple[Tensor, bytes]:
            with torch.no_grad():
                part = gradient_T[self._slice(k)]
                torch.mm(self._pixels(bands[k], batch, worker).t(), dy, out=part)
                flat = part.view(-1)
                return torch.linalg.vector_norm(flat), checkpoint.piece_digest(flat) if self._digested else b""

        norms, digests = zip(*self._workers.share(block, self._blocks), strict=True)
        return WideGradient(self._gradient, list(norms), list(digests) if self._digested else None)

    def _slice(self, k: int) -> slice:
        return slice(k * self._inputs, (k + 1) * self._inputs)

    def _bands(self, batch: Batch) -> list[Tensor]:
        """The batch's blocks of image rows, (B, rows, 96, 3) uint8."""
        return list(torch.tensor_split(batch.images, self._blocks, 1))

    def _pixels(self, band: Tensor, batch: Batch, worker: int) -> Tensor:
        """(B, inputs of a block) float32, in the worker's buffer."""
        n = len(band)
        room = self._rooms[worker]
        if len(room) != n:
            room = self._rooms[worker] = torch.empty(band.shape, dtype=torch.float32, device=self._device)
        as_input(band, self._standardize, batch.colour, out=room)
        return room.view(n, -1)
