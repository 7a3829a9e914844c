"""Training: the mission's MLP beside the course's loop and the GEMM ceiling; the CNN beside its own arithmetic."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from histoproof import models
from histoproof.compute import Workers, available_cores
from histoproof.config import Config, load, shipped_config
from histoproof.data.batches import Pixels, make_batch
from histoproof.experiment import prepare, residency, threads
from histoproof.loop import Loop
from histoproof.optim import Update, build_optimizer, clip_factor
from histoproof.runs import create
from histoproof.shards import ShardedStep

from .ceilings import gemm_tasks
from .course import data_loader, training_step
from .patches import Patches
from .timing import Plan, Task, one_after_the_other, ratio, row, rows_of, run_rounds

__all__ = ["measure_cnn", "measure_mlp"]

CPU = torch.device("cpu")
MLP, GEMM = "histoproof, MLP", "gemm"
CNN, COMPUTE = "histoproof, CNN", "CNN, compute only"


def measure_mlp(patches: Patches, plan: Plan) -> dict[str, Any]:
    """A block is an epoch: the course's workers have then nothing prepared for the next one, and take no one's time."""
    cores = available_cores()
    forward, gradient = gemm_tasks(plan.batch_size)
    with end_to_end(_config("baseline", patches, plan.batch_size), steps=None) as (block, workers):
        words = f"histoproof: MLP end to end, metrics and trail written, {workers} workers"
        tasks = [
            *(_course(patches, plan.batch_size, count, cores) for count in (0, 2)),
            Task(MLP, words, block, 1),
            forward,
            gradient,
        ]
        samples = run_rounds(tasks, plan)
    samples[GEMM] = one_after_the_other(samples["gemm forward"], samples["gemm gradient"])
    return {
        "rows": [*rows_of(tasks, samples), row(GEMM, "ceiling: both products, one after the other", samples[GEMM])],
        "ratios": [
            *(ratio(MLP, name, samples, goal=2.5) for name in samples if name.startswith("course")),
            ratio(MLP, GEMM, samples, goal=0.75, share=True),
        ],
    }


def measure_cnn(patches: Patches, plan: Plan, steps: int) -> dict[str, Any]:
    """Blocks of `steps` steps. Compute only: the same sharded step, clipping and update, on one batch that lies ready."""
    config = _config("champion", patches, plan.batch_size)
    with ExitStack() as stack:
        block, workers = stack.enter_context(end_to_end(config, steps=steps))
        compute = stack.enter_context(compute_only(config, steps))
        tasks = [
            Task(CNN, f"histoproof: CNN (bf16) end to end, metrics and trail written, {workers} workers", block, 1),
            Task(COMPUTE, "ceiling: the same step on one resident batch, nothing read or written", compute, 1),
        ]
        samples = run_rounds(tasks, plan)
    return {
        "steps": steps,
        "rows": rows_of(tasks, samples),
        "ratios": [ratio(CNN, COMPUTE, samples, goal=0.9, share=True)],
    }


def _config(name: str, patches: Patches, batch_size: int) -> Config:
    """A shipped config over all train patches, each once an epoch, as the course draws them."""
    config = load(shipped_config(name), [f"train.batch_size={batch_size}", "train.epochs=10000", "train.device=cpu"])
    data = {"store": str(patches.store), "sampling": "natural", "quarantine": "include"}
    return config.model_copy(update={"data": config.data.model_copy(update=data)})


def _course(patches: Patches, batch_size: int, workers: int, cores: int) -> Task:
    loader, step = data_loader(patches.float32, batch_size, workers), training_step()

    def block() -> int:
        done = 0
        for images, labels in loader:
            step(images, labels)
            done += len(images)
        return done

    words = f"the course's loop: DataLoader, float32 HDF5, {workers} workers, MLP, SGD, loss read at each step"
    return Task(f"course, {workers} workers", words, block, cores)


@contextmanager
def end_to_end(config: Config, steps: int | None) -> Iterator[tuple[Callable[[], int], int]]:
    """(block, workers): `steps` steps (None: an epoch) as `histoproof train` takes them, into a temporary run folder. Validation
    and checkpoints, once an epoch, are left out on both sides."""
    setup = prepare(config)
    intra_op, count = threads(config.train, setup.device)
    assert intra_op == 1
    per_epoch = setup.sampler.steps_per_epoch
    with (
        tempfile.TemporaryDirectory() as folder,
        closing(Workers(count)) as workers,
        closing(Loop(setup, create(Path(folder) / "run"), workers)) as loop,
    ):
        loop.model.train()

        def block() -> int:
            at = loop.at
            if at.step_in_epoch >= per_epoch:
                at.epoch, at.step_in_epoch = at.epoch + 1, 0
            done = 0
            with closing(loop.batches()) as batches:
                for batch in islice(batches, steps):
                    loop.train_step(batch)
                    done += len(batch.indices)
            return done

        yield block, count


@contextmanager
def compute_only(config: Config, steps: int) -> Iterator[Callable[[], int]]:
    """A block of the same arithmetic on one batch, augmented already."""
    setup = prepare(config)
    model = models.build(config.model, config.seed).train()
    parameters = list(model.parameters())
    pixels = Pixels(setup.train, residency(config, setup.train, CPU), CPU)
    batch = make_batch(pixels, setup.sampler, setup.sampler.order(0), config.augment, 0, 0)
    with closing(Workers(threads(config.train, CPU)[1])) as workers:
        step = ShardedStep(
            model,
            config.train.shards,
            workers,
            device=CPU,
            precision=config.train.precision,
            standardize=setup.standardize,
            seed=config.seed,
        )
        update, number = Update(build_optimizer(config.optim, model), parameters, workers), 0

        def block() -> int:
            nonlocal number
            for _ in range(steps):
                result = step(batch, number, 1.0)
                number += 1
                update(result.gradients, config.optim.lr, clip_factor(result.norm, config.optim.max_grad_norm))
            return steps * len(batch.indices)

        yield block
