"""From a split to batches: which patches, in which order, and how they get from the memory map into tensors.

No workers and no state: a batch is a function of (config, seed, epoch, step). A thread prepares the next few; it can change
when a batch is ready, never what is in it.
"""

import queue
import threading
from collections import deque
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .. import rng
from ..augment import ColourShift, colour_shifts, d4_elements, dihedral
from ..config import AugmentConfig
from ..errors import ConfigError
from .partition import Patches, PooledImages
from .pcam import PATCH_SHAPE

__all__ = ["Ahead", "Batch", "Pixels", "Sampler", "channel_statistics", "make_batch", "prefetched"]


@dataclass(frozen=True)
class Batch:
    """B patches. Pixels stay uint8 until a shard takes them."""

    step_in_epoch: int
    indices: NDArray[np.int64]
    """(B,) rows of the split."""
    images: Tensor
    """(B, 96, 96, 3) uint8, rotated and flipped already."""
    labels: Tensor
    """(B,) float32, 0 or 1."""
    colour: ColourShift | None

    def shard(self, part: slice) -> tuple[Tensor, Tensor, ColourShift | None]:
        """(images, labels, colour) of a part of the batch."""
        colour = None if self.colour is None else (self.colour[0][part], self.colour[1][part])
        return self.images[part], self.labels[part], colour


class Pixels:
    """A split's pixels where they are read from: the memory map, RAM, or the device."""

    def __init__(self, split: Patches, residency: Literal["disk", "ram", "device"], device: torch.device) -> None:
        self._images = split.images if isinstance(split.images, PooledImages) else PooledImages((split.images,))
        mapped = [torch.from_numpy(piece) for piece in self._images.pieces]
        self._sources = [
            m.clone() if residency == "ram" else m.to(device) if residency == "device" else m for m in mapped
        ]
        self._device = device
        self._pinned: deque[tuple[Tensor, torch.cuda.Event]] = deque()
        """Buffers that a GPU copies from by itself, each with what tells that its last copy has ended; the oldest first."""

    def take(self, indices: NDArray[np.int64], out: Tensor | None = None) -> Tensor:
        """(N, 96, 96, 3) uint8 on the device; in `out`, of at least so many patches, where it is given and can be used."""
        # index_select gathers from a memory map an order of magnitude faster than fancy indexing does.
        if len(self._sources) == 1:
            source = self._sources[0]
            if self._device.type == "cuda" and source.device.type == "cpu":
                return self._sent(source, indices)
            if out is not None:  # fresh memory costs a page fault every 4 KB, more than what is written into it
                into = out[: len(indices)]
                return torch.index_select(source, 0, torch.from_numpy(indices).to(source.device), out=into)
            return _gather(source, indices).to(self._device)
        found = self._images.lookup(indices)
        rows = torch.cat([_gather(self._sources[piece], inside) for piece, _, inside in found])
        places = np.concatenate([places for _, places, _ in found])
        if (np.diff(places) < 0).any():  # back into the order that was asked for
            rows = _gather(rows, np.argsort(places))
        return rows.to(self._device)

    def _sent(self, source: Tensor, indices: NDArray[np.int64]) -> Tensor:
        """Gathered into a pinned buffer and sent while the caller goes on. Only a buffer whose copy has ended is filled again."""
        buffer, copied = None, None
        if self._pinned and (len(self._pinned) >= _PINNED or self._pinned[0][1].query()):  # type: ignore[no-untyped-call]
            buffer, copied = self._pinned.popleft()
            copied.synchronize()
        if buffer is None or copied is None or len(buffer) < len(indices):
            buffer = torch.empty((len(indices), *source.shape[1:]), dtype=torch.uint8, pin_memory=True)
            copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
        rows = buffer[: len(indices)]
        torch.index_select(source, 0, torch.from_numpy(indices), out=rows)
        sent = rows.to(self._device, non_blocking=True)
        copied.record(torch.cuda.current_stream(self._device))
        self._pinned.append((buffer, copied))
        return sent


_PINNED = 8
"""Pinned buffers at most: a few batches under way."""


def _gather(source: Tensor, rows: NDArray[np.int64]) -> Tensor:
    return source.index_select(0, torch.from_numpy(rows).to(source.device))


@dataclass(frozen=True)
class Sampler:
    """The order in which an epoch draws its patches."""

    rows: NDArray[np.int64]
    """Rows of the split that may be drawn."""
    labels: NDArray[np.uint8]
    """(N,) labels of the whole split."""
    sampling: Literal["natural", "balanced"]
    batch_size: int
    seed: int

    def __post_init__(self) -> None:
        if self.batch_size > len(self.rows):
            raise ConfigError(
                f"train.batch_size = {self.batch_size} is larger than the train split's {len(self.rows)} usable patches",
                valid=f"1 to {len(self.rows)}",
            )
        if self.sampling == "balanced" and len(np.unique(self.labels[self.rows])) < 2:
            only = int(self.labels[self.rows[0]])
            raise ConfigError(
                f"data.sampling = balanced needs both classes; every usable train patch has label {only}",
                next="set data.sampling to natural, or pack data with both classes",
            )

    @property
    def steps_per_epoch(self) -> int:
        """Batches an epoch; the last may be smaller."""
        return -(-len(self.rows) // self.batch_size)

    def order(self, epoch: int) -> NDArray[np.int64]:
        """(len(rows),) rows in the order of this epoch (from 0), a function of (seed, epoch)."""
        n = len(self.rows)
        shuffle = rng.permutation(rng.key(self.seed, "order", epoch), n)
        if self.sampling == "natural":
            return self.rows[shuffle]
        # Which class has the odd draw alternates, so that neither is favoured over two epochs.
        counts = (n - (n + epoch % 2) // 2, (n + epoch % 2) // 2)
        drawn = np.concatenate([self._draw(epoch, label, count) for label, count in enumerate(counts)])
        return drawn[shuffle]

    def _draw(self, epoch: int, label: int, count: int) -> NDArray[np.int64]:
        """`count` rows of one class: whole passes in random order, so that no patch is drawn twice more than another."""
        pool = self.rows[self.labels[self.rows] == label]
        passes = -(-count // len(pool))
        keys = [rng.key(self.seed, "class order", epoch, label, turn) for turn in range(passes)]
        return np.concatenate([pool[rng.permutation(k, len(pool))] for k in keys])[:count]


def make_batch(
    pixels: Pixels,
    sampler: Sampler,
    order: NDArray[np.int64],
    augment: AugmentConfig,
    epoch: int,
    step: int,
    out: Tensor | None = None,
) -> Batch:
    """The batch at `step` of an epoch whose order is `order`; `out` (B, 96, 96, 3) uint8 may be taken for its pixels."""
    indices = order[step * sampler.batch_size : (step + 1) * sampler.batch_size]
    images = pixels.take(indices, out)
    if augment.d4:
        images = dihedral(images, d4_elements(sampler.seed, epoch, indices))
    colour = colour_shifts(augment, sampler.seed, epoch, indices)
    labels = torch.from_numpy(sampler.labels[indices].astype(np.float32)).to(images.device)
    if colour is not None:
        colour = (colour[0].to(images.device), colour[1].to(images.device))
    return Batch(step, indices, images, labels, colour)


class Ahead:
    """The batches of an epoch from step `start` on; whoever has nothing better to do makes the next one ahead. A batch's pixels
    are overwritten when the one after the next is made."""

    def __init__(self, pixels: Pixels, sampler: Sampler, augment: AugmentConfig, epoch: int, start: int) -> None:
        self._make = partial(make_batch, pixels, sampler, sampler.order(epoch), augment, epoch)
        self._step, self._end = start, sampler.steps_per_epoch
        self._ready: Batch | None = None
        shape = (sampler.batch_size, *PATCH_SHAPE)
        self._rooms = [torch.empty(shape, dtype=torch.uint8) for _ in range(2)]

    def prepare(self) -> None:
        """Make the next batch, unless it is made or there is none."""
        if self._ready is None and self._step < self._end:
            self._ready = self._make(self._step, self._rooms[self._step % 2])

    def __iter__(self) -> Iterator[Batch]:
        while self._step < self._end:
            self.prepare()
            assert self._ready is not None
            batch, self._ready, self._step = self._ready, None, self._step + 1
            yield batch


def prefetched(
    pixels: Pixels, sampler: Sampler, augment: AugmentConfig, epoch: int, start: int, depth: int
) -> Generator[Batch, None, None]:
    """The batches of an epoch from step `start` on, `depth` of them prepared ahead by a thread (0: none)."""
    order = sampler.order(epoch)
    steps = range(start, sampler.steps_per_epoch)
    if depth == 0:
        for step in steps:
            yield make_batch(pixels, sampler, order, augment, epoch, step)
        return
    ready: queue.Queue[Batch | BaseException] = queue.Queue(maxsize=depth)
    stop = threading.Event()

    def prepare() -> None:
        for step in steps:
            try:
                item: Batch | BaseException = make_batch(pixels, sampler, order, augment, epoch, step)
            except BaseException as e:  # noqa: BLE001 (handed to the consumer, who raises it)
                item = e
            while not stop.is_set():
                try:
                    ready.put(item, timeout=0.1)
                    break
                except queue.Full:
                    continue
            if stop.is_set() or isinstance(item, BaseException):
                return

    thread = threading.Thread(target=prepare, name="prefetch", daemon=True)
    thread.start()
    try:
        for _ in steps:
            item = ready.get()
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stop.set()
        thread.join()


def channel_statistics(
    split: Patches, rows: NDArray[np.int64]
) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """(mean, standard deviation) of each channel over `rows`, in units of 0-1. Sums are exact integers: no rounding drifts."""
    total, squares, count = np.zeros(3, dtype=np.uint64), np.zeros(3, dtype=np.uint64), 0
    for start in range(0, len(rows), 512):
        pixels = split.images[rows[start : start + 512]].reshape(-1, 3)
        histogram = np.stack([np.bincount(pixels[:, c], minlength=256) for c in range(3)]).astype(np.uint64)
        values = np.arange(256, dtype=np.uint64)
        total += histogram @ values
        squares += histogram @ (values * values)
        count += len(pixels)
    mean = total / count
    deviation = np.sqrt(np.maximum(squares / count - mean**2, 0))
    if not (deviation > 0).all():
        raise ConfigError(
            "data.standardize = train: a channel of the train split is constant, its standard deviation is 0",
            valid="data.standardize: none",
        )
    m, s = (mean / 255).tolist(), (deviation / 255).tolist()
    return (m[0], m[1], m[2]), (s[0], s[1], s[2])
