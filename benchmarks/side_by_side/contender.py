"""What every loader is held to, so that all do the same work: float32 batches (B, 3, 96, 96) scaled to 0-1, and their labels."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
import xxhash
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["Contender", "UnequalError", "check", "scaled", "shuffled"]

Batches = Iterable[tuple[Tensor, Tensor]]
"""(images (B, 3, 96, 96) float32 0-1, labels (B,)); both may be overwritten once the next batch is asked for."""


@dataclass(frozen=True)
class Contender:
    """A way to read an epoch of patches in random order."""

    name: str
    words: str
    """What it is, for a table."""
    epoch: Callable[[int], Batches]
    """The batches of an epoch, from its number."""
    threads: int
    """Threads inside torch's operations in this process."""
    close: Callable[[], None] = field(default=lambda: None)
    most: int | None = None
    """Patches after which a measured block ends, for one so slow that a whole epoch would take the others' time."""


class UnequalError(AssertionError):
    """A contender did not deliver what it was given: its speed would mean nothing."""


def scaled(images_NHWC: Tensor) -> Tensor:
    """Patches as stored, uint8 or float32 0-255, to (B, 3, 96, 96) float32 0-1. The memory stays as it lies, channels last: to
    turn it would cost a batch reader time and gain it nothing."""
    return images_NHWC.permute(0, 3, 1, 2).to(torch.float32, copy=True).div_(255)


def shuffled(n: int, batch_size: int, epoch: int) -> Iterator[NDArray[np.int64]]:
    """The rows of each batch of an epoch in random order."""
    order = np.random.default_rng(epoch).permutation(n)
    for start in range(0, n, batch_size):
        yield order[start : start + batch_size]


def check(contender: Contender, images: NDArray[np.uint8], labels: NDArray[np.uint8]) -> None:
    """Hold an epoch (or its first `most` patches) against the patches (N, 96, 96, 3) and labels (N,): each patch once, with its
    label, every value byte / 255 to one rounding of float32 (x / 255 and x * (1 / 255) differ by it), and not in the order of
    the file. Raises UnequalError."""
    in_order = [_digest(patch) for patch in images]
    wanted = Counter(zip(in_order, labels.tolist(), strict=True))
    found: Counter[tuple[int, int]] = Counter()
    order: list[int] = []
    for batch, its_labels in contender.epoch(0):
        if batch.dtype != torch.float32 or batch.shape[1:] != (3, 96, 96):
            raise UnequalError(f"{contender.name}: a batch is {batch.dtype} {tuple(batch.shape)}")
        pixels = (batch * 255).round_()
        if not torch.allclose(batch, pixels / 255, rtol=1.2e-7, atol=0):
            raise UnequalError(f"{contender.name}: values are not bytes / 255")
        digests = [_digest(patch) for patch in pixels.to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()]
        order += digests
        found.update(zip(digests, its_labels.to(torch.int64).tolist(), strict=True))
        if contender.most is not None and len(order) >= contender.most:
            break
    lacking = 0 if contender.most is not None and len(order) >= contender.most else (wanted - found).total()
    if lacking or found - wanted:
        raise UnequalError(
            f"{contender.name}: {lacking} of {len(images)} patches with their labels did not come, "
            f"{(found - wanted).total()} others did"
        )
    if len(order) > 8 and order == in_order[: len(order)]:
        raise UnequalError(f"{contender.name}: the order is that of the file")


def _digest(patch: NDArray[np.uint8]) -> int:
    return xxhash.xxh3_64_intdigest(np.ascontiguousarray(patch).data.cast("B"))
