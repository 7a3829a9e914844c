"""The stages of a training, each as something that can be timed."""

from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from .. import models
from ..compute import Workers, deterministic
from ..data.batches import Batch, Pixels, make_batch
from ..evaluate import predict_split
from ..experiment import Setup, prefetch, residency, threads
from ..inference import TrainedModel
from ..loop import Loop
from ..metrics import score
from ..optim import Update, build_optimizer, clip_factor
from ..runs import create
from ..shards import ShardedStep
from .drive import Scratch
from .epochs import VALIDATED
from .measure import Stage
from .rounds import CPU

__all__ = ["stages_of", "transfer_of"]


@contextmanager
def stages_of(setup: Setup, scratch: Scratch, *, costs: bool) -> Iterator[dict[str, Stage]]:
    """data, transfer (where there is one), compute and end_to_end, in patches; with `costs` also logged (patches), validation
    (patches) and checkpoint (writes)."""
    config, device = setup.config, setup.device
    intra_op, count = threads(config.train, device)
    with ExitStack() as stack:
        stack.enter_context(deterministic(device, intra_op))
        workers = stack.enter_context(closing(Workers(count)))
        folder = stack.enter_context(TemporaryDirectory(dir=scratch.path))
        loop = stack.enter_context(closing(Loop(setup, create(Path(folder) / "run"), workers)))
        loop.model.train()
        feed = stack.enter_context(closing(_Feed(loop)))
        where = residency(config, setup.train, device)
        travels = device.type == "cuda" and where != "device"
        reader = _Reader(setup, Pixels(setup.train, where, CPU) if travels else loop.pixels)
        batch = make_batch(loop.pixels, setup.sampler, setup.sampler.order(0), config.augment, 0, 0)
        stages = {"data": Stage(reader.read)}
        if travels:
            stages["transfer"] = transfer_of(batch.images)
        stages["compute"] = Stage(_arithmetic(setup, workers, batch))
        if costs:
            # what logging costs is a small difference of two large numbers: they are measured one after the other
            stages["logged"] = Stage(_written_down(loop, batch))
        depth = (prefetch(config, device) or 0) + 2

        def settle(seconds: dict[str, float]) -> int:
            # A queue that filled up while nothing was timed is a lead, unless reading keeps up anyway.
            return 1 if 2 * seconds["data"] < seconds["compute"] else depth

        stages["end_to_end"] = Stage(feed.train, steady=settle)
        if costs:
            stages |= _beside(setup, loop)
        yield stages


def transfer_of(images: torch.Tensor) -> Stage:
    """Patches from page-locked memory to the device that `images` (B, 96, 96, 3) are on, into kept memory."""
    source, room = images.cpu().pin_memory(), torch.empty_like(images)

    def run(n: int) -> float:
        for _ in range(n):
            room.copy_(source, non_blocking=True)
        return float(n * len(source))

    return Stage(run)


class _Reader:
    """Batches one after the other, by one thread."""

    def __init__(self, setup: Setup, pixels: Pixels) -> None:
        self._setup, self._pixels, self._epoch, self._step = setup, pixels, 0, 0
        self._order = setup.sampler.order(0)

    def read(self, n: int) -> float:
        """n batches; the patches in them."""
        sampler, patches = self._setup.sampler, 0
        for _ in range(n):
            if self._step == sampler.steps_per_epoch:
                self._epoch, self._step = self._epoch + 1, 0
                self._order = sampler.order(self._epoch)
            augment = self._setup.config.augment
            batch = make_batch(self._pixels, sampler, self._order, augment, self._epoch, self._step)
            self._step, patches = self._step + 1, patches + len(batch.indices)
        return float(patches)


class _Feed:
    """The training itself, as `fit` does it: batches made ahead, each step written down; epoch after epoch."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._batches: Generator[Batch, None, None] | None = None

    def train(self, n: int) -> float:
        """n steps; the patches in them."""
        patches = 0
        for _ in range(n):
            batch = self._next()
            self._loop.train_step(batch)
            patches += len(batch.indices)
        return float(patches)

    def _next(self) -> Batch:
        while True:
            if self._batches is None:
                self._batches = self._loop.batches()
            batch = next(self._batches, None)
            if batch is not None:
                return batch
            self.close()
            at = self._loop.at
            at.epoch, at.step_in_epoch, at.loss_sum, at.patches = at.epoch + 1, 0, 0.0, 0

    def close(self) -> None:
        """End what makes batches ahead."""
        if self._batches is not None:
            self._batches.close()
            self._batches = None


def _arithmetic(setup: Setup, workers: Workers, batch: Batch) -> Callable[[int], float]:
    """Steps on one batch that lies on the device: conversion, loss, gradients, clipping, optimizer; nothing is written down."""
    config = setup.config
    model = models.build(config.model, config.seed).to(setup.device)
    model.train()
    parameters = [p for p in model.parameters() if p.requires_grad]
    update = Update(build_optimizer(config.optim, model), parameters, workers)
    step = ShardedStep(
        model,
        config.train.shards,
        workers,
        device=setup.device,
        precision=config.train.precision,
        standardize=setup.standardize,
        seed=config.seed,
    )

    def run(n: int) -> float:
        for turn in range(n):
            found = step(batch, turn, 1.0)
            update(found.gradients, config.optim.lr, clip_factor(found.norm, config.optim.max_grad_norm))
        return float(n * len(batch.indices))

    return run


def _written_down(loop: Loop, batch: Batch) -> Callable[[int], float]:
    """The training's own step, on a batch that lies on the device."""

    def run(n: int) -> float:
        for _ in range(n):
            loop.train_step(batch)
        return float(n * len(batch.indices))

    return run


def _beside(setup: Setup, loop: Loop) -> dict[str, Stage]:
    """What a training does beside its steps: valid scored, and a checkpoint."""
    rows = setup.valid_rows[:VALIDATED]
    trained = TrainedModel(loop.model, setup.standardize, setup.config, setup.device, "")

    def validate(n: int) -> float:
        for _ in range(n):
            found = predict_split(trained, setup.valid, rows, loop.workers)
            score(found.label, found.probability, threshold=setup.config.evaluate.threshold)
        return float(n * len(rows))

    def save(n: int) -> float:
        for _ in range(n):
            loop.save()
        return float(n)

    return {"validation": Stage(validate), "checkpoint": Stage(save)}
