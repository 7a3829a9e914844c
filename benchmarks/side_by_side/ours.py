"""histoproof's loader: rows gathered from the store's memory map or from RAM, whole batches shared among the cores."""

from typing import Literal

import torch
from torch import Tensor

from histoproof.compute import Standardize, Workers, as_input, available_cores
from histoproof.data.batches import Pixels, Sampler

from .contender import Batches, Contender
from .patches import Patches

__all__ = ["contender"]

CPU = torch.device("cpu")


def contender(name: str, words: str, patches: Patches, residency: Literal["disk", "ram"], batch_size: int) -> Contender:
    """As many batches at a time as there are workers, each in a buffer that is used again."""
    split = patches.train()
    sampler = Sampler(split.rows("include"), patches.labels(), "natural", batch_size, 0)
    pixels, workers = Pixels(split, residency, CPU), Workers(available_cores())
    rooms = [torch.empty((batch_size, 96, 96, 3), dtype=torch.float32) for _ in range(workers.count)]
    bytes_ = [torch.empty((batch_size, 96, 96, 3), dtype=torch.uint8) for _ in range(workers.count)]
    labels = torch.from_numpy(patches.labels()).float()

    def epoch(number: int) -> Batches:
        order, steps = sampler.order(number), sampler.steps_per_epoch
        for first in range(0, steps, workers.count):

            def batch(_: int, piece: int, first: int = first) -> tuple[Tensor, Tensor]:
                rows = order[(first + piece) * batch_size : (first + piece + 1) * batch_size]
                images = as_input(pixels.take(rows, bytes_[piece]), Standardize(), out=rooms[piece][: len(rows)])
                return images, labels[torch.from_numpy(rows)]

            yield from workers.share(batch, min(workers.count, steps - first))

    # one thread inside an operation: the workers are the threads
    return Contender(name, words, epoch, 1, workers.close)
