"""Training: one loop, written out.

A patch's way: store.Split -> batches -> shards (loss, gradients) -> optimizer -> metrics.jsonl, trail.jsonl, checkpoints.
Nothing random has state, so a checkpoint holds weights, optimizer, schedule and a position; resuming gives the same bits.
"""

import hashlib
import math
import os
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from . import checkpoint, models
from .compute import Standardize, Workers, available_cores, deterministic, pick_device
from .config import Config, TrainConfig, identity, load
from .data.batches import Batch, Pixels, Sampler, channel_statistics, prefetched
from .data.store import Split, Store, open_store
from .errors import RunError
from .evaluate import predict_split, score_predictions
from .files import JsonLines, canonical, write_json, write_text
from .inference import TrainedModel, from_checkpoint
from .metrics import score
from .optim import LossScale, Schedule, build_optimizer, clip, load_optimizer, optimizer_tensors
from .provenance import as_text, environment, now
from .runs import GENESIS, Run, Trail, create, free_name, locked, open_run
from .shards import ShardedStep
from .signals import StopRequest
from .world import World, join

__all__ = ["resume", "train"]

Progress = Callable[[int, int, str], None]
"""Called with (steps done, steps in all, a few words)."""


def train(
    config: Path, overrides: Sequence[str] = (), *, out: Path | None = None, progress: Progress | None = None
) -> dict[str, Any]:
    """Train what `config` says into a new run folder (runs/NAME-001, ... unless `out` is given).

    Returns the run's summary, or {"run", "status": "stopped", "epochs", "steps"} when a signal asked it to stop. Raises
    ConfigError, DataError, OutputError, and RunError when the loss is no longer finite.
    """
    resolved = load(config, overrides)
    data = resolved.data.model_copy(update={"store": str(Path(resolved.data.store).absolute())})
    resolved = resolved.model_copy(update={"data": data})
    setup = _prepare(resolved)
    with join(setup.device) as world:
        run = _new_run(setup, world, out, config.stem) if world.leads else None
        run = Run(Path(world.told(str(run.path) if run else "")))
        return _run(setup, run, world, progress)


def resume(path: Path, *, progress: Progress | None = None) -> dict[str, Any]:
    """Go on with a run at the exact step of its last whole checkpoint; it ends in the bits it would have had.

    Returns what `train` returns; for a finished run its summary, unchanged.
    """
    run = open_run(path)
    if run.finished:
        return run.load_summary()
    setup = _prepare(run.load_config())
    with join(setup.device) as world:
        return _run(setup, run, world, progress)


def _new_run(setup: "_Setup", world: World, out: Path | None, stem: str) -> Run:
    intra_op, workers = threads(setup.config.train, setup.device, world.size)
    described = environment(setup.device.type)
    described["threads"] = {"intra_op": intra_op, "workers": workers, "processes": world.size}
    run = create(out if out is not None else free_name(Path("runs"), stem))
    write_text(run.config, setup.config.as_yaml())
    write_json(run.environment, described)
    write_text(run.reproducibility, as_text(described))
    return run


@dataclass(frozen=True)
class _Setup:
    """What can be checked and read before a run folder is made."""

    config: Config
    device: torch.device
    store: Store
    train: Split
    valid: Split
    sampler: Sampler
    valid_rows: NDArray[np.int64]
    standardize: Standardize


@dataclass
class _Position:
    """How far training is: all of a checkpoint that is not tensors."""

    epoch: int = 0
    step_in_epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    patches: int = 0
    best: dict[str, Any] | None = None


def _prepare(config: Config) -> _Setup:
    device = pick_device(config.train.device)
    store = open_store(Path(config.data.store))
    split, valid = store.split("train"), store.split("valid")
    rows, valid_rows = split.rows(config.data.quarantine), valid.rows(config.data.quarantine)
    assert split.labels is not None  # rows() has seen to it
    sampler = Sampler(rows, split.labels, config.data.sampling, config.train.batch_size, config.seed)
    if config.data.verify:
        split.verify()
        valid.verify()
    standardize = Standardize()
    if config.data.standardize == "train":
        standardize = Standardize(*channel_statistics(split, rows))
    models.build(config.model, config.seed)  # a model that cannot be built is a mistake found before a folder is made
    return _Setup(config, device, store, split, valid, sampler, valid_rows, standardize)


def _run(setup: _Setup, run: Run, world: World, progress: Progress | None) -> dict[str, Any]:
    intra_op, worker_count = threads(setup.config.train, setup.device, world.size)
    with _held(run, world), deterministic(setup.device, intra_op), StopRequest() as stop:
        workers = Workers(worker_count, world)
        loop = _Loop(setup, run, workers)
        try:
            finished = loop.fit(stop, progress)
            if not finished:
                return {"run": str(run.path), "status": "stopped", "signal": stop.name, **loop.reached()}
            return _finish(setup, run, loop, workers)
        finally:
            loop.close()
            workers.close()


def _held(run: Run, world: World) -> AbstractContextManager[None]:
    return locked(run.path) if world.leads else nullcontext()


def threads(config: TrainConfig, device: torch.device, processes: int = 1) -> tuple[int, int]:
    """(threads inside an operation, workers) of each process. With shards > 1 every operation uses one thread and shards are
    shared out."""
    wanted = config.workers or max(available_cores() // processes, 1)
    if device.type == "cuda":
        return 1, 1
    return (wanted, 1) if config.shards == 1 else (1, min(wanted, config.shards))


class _Loop:
    """The training loop and everything it moves along."""

    def __init__(self, setup: _Setup, run: Run, workers: Workers) -> None:
        config = setup.config
        self.setup, self.run, self.config, self.workers = setup, run, config, workers
        self.model: nn.Module = models.build(config.model, config.seed).to(setup.device)
        self.optimizer = build_optimizer(config.optim, self.model)
        steps = setup.sampler.steps_per_epoch
        self.schedule = Schedule(config.schedule, config.optim.lr, steps, config.train.epochs)
        self.scale = LossScale(config.train.precision == "fp16")
        self.at = _Position()
        self.metrics, self.trail = self._restore()
        self.events = self._appended(run.events)
        self.events.append({"event": "start", "time": now(), "step": self.at.step, "workers": workers.count})
        self.step = ShardedStep(
            self.model,
            config.train.shards,
            workers,
            device=setup.device,
            precision=config.train.precision,
            standardize=setup.standardize,
            seed=config.seed,
        )
        self.pixels = Pixels(setup.train, residency(config, setup.train, setup.device), setup.device)
        self.started = time.perf_counter()

    def fit(self, stop: StopRequest, progress: Progress | None) -> bool:
        """Train from the current position to the end; False if a signal asked to stop (then a checkpoint was written)."""
        config, at = self.config, self.at
        total = self.setup.sampler.steps_per_epoch * config.train.epochs
        while at.epoch < config.train.epochs:
            self.model.train()
            batches = prefetched(
                self.pixels, self.setup.sampler, config.augment, at.epoch, at.step_in_epoch, config.data.prefetch
            )
            for batch in batches:
                self._train_step(batch)
                if progress:
                    progress(at.step, total, f"epoch {at.epoch + 1}  loss {at.loss_sum / at.patches:.4f}")
                if self._told_to_stop(stop):
                    batches.close()
                    self.save()
                    return False
                if config.train.checkpoint_every_steps and at.step % config.train.checkpoint_every_steps == 0:
                    self.save()
            self._end_epoch()
        return True

    def _told_to_stop(self, stop: StopRequest) -> bool:
        """Whether a signal reached any process; all of them stop after the same step."""
        world = self.workers.world
        if world.size == 1:
            return stop.requested
        mine = torch.tensor([int(stop.requested)], device=self.setup.device)
        return any(bool(flag) for flag in world.gathered(mine))

    def _train_step(self, batch: Batch) -> None:
        at = self.at
        lr = self.schedule.lr(at.step)
        before = checkpoint.fingerprint(self.model)
        result = self.step(batch, at.step, self.scale.factor)
        norm = clip(result.gradients, self.config.optim.max_grad_norm)
        finite = math.isfinite(norm)
        if not math.isfinite(result.loss) or (not finite and not self.scale.enabled):
            raise RunError(
                f"training diverged: loss {result.loss} and gradient norm {norm} at step {at.step}",
                next=f"lower optim.lr (it was {lr:g}) or set optim.max_grad_norm; the run so far is in {self.run.path}",
            )
        self.scale.update(finite)
        if finite:  # an fp16 overflow skips its step
            self._apply(result.gradients, lr)
        self._record(batch, before, lr, result.loss, norm)

    def _apply(self, gradients: list[torch.Tensor], lr: float) -> None:
        trainable = (p for p in self.model.parameters() if p.requires_grad)
        for parameter, gradient in zip(trainable, gradients, strict=True):
            parameter.grad = gradient
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()

    def _record(self, batch: Batch, weights: str, lr: float, loss: float, norm: float) -> None:
        at = self.at
        size = len(batch.indices)
        self.metrics.append(
            {"kind": "step", "step": at.step, "epoch": at.epoch + 1, "loss": loss, "grad_norm": norm, "lr": lr}
        )
        line = {
            "step": at.step,
            "indices": hashlib.blake2b(batch.indices.tobytes(), digest_size=16).hexdigest(),
            "weights": weights,
            "loss": loss.hex(),
            "grad_norm": norm.hex(),
            "lr": lr.hex(),
        }
        at.step, at.step_in_epoch = at.step + 1, at.step_in_epoch + 1
        at.loss_sum, at.patches = at.loss_sum + loss * size, at.patches + size
        every = self.config.train.weights_digest_every_steps
        if at.step % every == 0 or at.step_in_epoch == self.setup.sampler.steps_per_epoch:
            line["weights_sha256"] = checkpoint.weights_sha256(self.model)
        self.trail.append(line)

    def _end_epoch(self) -> None:
        at = self.at
        valid = self._validate()
        self.schedule.epoch_end(valid["loss"] if valid["loss"] is not None else math.inf)
        line = {
            "kind": "epoch",
            "epoch": at.epoch + 1,
            "step": at.step,
            "train": {"loss": at.loss_sum / at.patches},
            "valid": valid,
        }
        self.metrics.append(line)
        seconds = time.perf_counter() - self.started
        self.events.append(
            {"event": "epoch", "epoch": at.epoch + 1, "seconds": seconds, "patches": at.patches, "time": now()}
        )
        self.started = time.perf_counter()
        is_best = _better(valid, at.best, self.config.evaluate.best_by)
        if is_best:
            at.best = {"epoch": at.epoch + 1, "step": at.step, "valid": valid}
        at.epoch, at.step_in_epoch, at.loss_sum, at.patches = at.epoch + 1, 0, 0.0, 0
        if is_best and self.workers.world.leads:
            checkpoint.write(self.run.best, self._weights(), self._state())
        self.save()
        if self.workers.world.size > 1:
            self.workers.world.agree(checkpoint.weights_sha256(self.model), "digest of the weights")

    def _validate(self) -> dict[str, float | None]:
        """The valid split's mean loss and scores, without intervals."""
        setup = self.setup
        model = TrainedModel(self.model, setup.standardize, self.config, setup.device, "")
        found = predict_split(model, setup.valid, setup.valid_rows, self.workers)
        return {"loss": found.loss(), **score(found.label, found.probability, threshold=self.config.evaluate.threshold)}

    def _weights(self) -> dict[str, torch.Tensor]:
        return {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}

    def _state(self) -> dict[str, Any]:
        return {
            "config": self.config.as_dict(),
            "mean": self.setup.standardize.mean,
            "std": self.setup.standardize.std,
            "position": asdict(self.at),
            "schedule": self.schedule.state(),
            "loss_scale": {"scale": self.scale.scale, "good_steps": self.scale.good_steps},
            "metrics_bytes": self.metrics.bytes,
            "trail_bytes": self.trail.file.bytes,
            "chain": self.trail.link,
        }

    def save(self) -> None:
        """Write checkpoints/last. The lines it counts on reach the disk first."""
        if not self.workers.world.leads:
            return
        self.metrics.sync()
        self.trail.file.sync()
        optimizer = {f"optim.{name}": tensor for name, tensor in optimizer_tensors(self.optimizer).items()}
        checkpoint.write_last(self.run.checkpoints, {**self._weights(), **optimizer}, self._state())

    def _restore(self) -> tuple[JsonLines, Trail]:
        """Load the last whole checkpoint, if there is one, and cut what was appended after it."""
        found, problems = checkpoint.load_latest(self.run.checkpoints)
        for problem in problems:
            self.setup_warning(f"{problem}; going on from {found.path.name if found else 'the start'}")
        if found is None:
            trail = Trail(self._appended(self.run.trail, 0), GENESIS)
            trail.append({"config": config_digest(self.config), "data": data_digest(self.setup)})
            return self._appended(self.run.metrics, 0), trail
        state = found.state
        checkpoint.load_weights(self.model, found.part("model"), found.path)
        load_optimizer(self.optimizer, found.part("optim"))
        self.schedule.load_state(state["schedule"])
        self.scale.scale, self.scale.good_steps = state["loss_scale"]["scale"], state["loss_scale"]["good_steps"]
        self.at = _Position(**state["position"])
        trail = Trail(self._appended(self.run.trail, state["trail_bytes"]), state["chain"])
        return self._appended(self.run.metrics, state["metrics_bytes"]), trail

    def _appended(self, path: Path, keep_bytes: int | None = None) -> JsonLines:
        """The file to append to; on processes that do not lead, one that keeps nothing."""
        return JsonLines(path, keep_bytes=keep_bytes) if self.workers.world.leads else JsonLines(Path(os.devnull))

    def setup_warning(self, text: str) -> None:
        """Write a warning of this start into events.jsonl."""
        events = self._appended(self.run.events)
        events.append({"event": "warning", "time": now(), "text": text})
        events.close()

    def reached(self) -> dict[str, int]:
        """How far the run is."""
        return {"epochs": self.at.epoch, "steps": self.at.step}

    def close(self) -> None:
        """Close the files."""
        for file in (self.metrics, self.trail.file, self.events):
            file.close()


def _finish(setup: _Setup, run: Run, loop: _Loop, workers: Workers) -> dict[str, Any]:
    """Score the best checkpoint on valid, as it lies on disk, and write the summary: the run is finished then."""
    best = from_checkpoint(checkpoint.read(run.best), run)
    found = predict_split(best, setup.valid, setup.valid_rows, workers)
    evaluation = score_predictions(found, setup.config, setup.store, model=best)
    assert loop.at.best is not None
    summary = {
        "run": str(run.path),
        "status": "finished",
        "model": setup.config.model.name,
        "parameters": models.parameter_count(loop.model),
        **loop.reached(),
        "best": {**loop.at.best, "intervals": evaluation["metrics"]},
        "weights_sha256": checkpoint.weights_sha256(loop.model),
        "trail_sha256": loop.trail.link,
        "warnings": _warnings(evaluation),
    }
    loop.events.append({"event": "finish", "time": now(), "step": loop.at.step})
    if workers.world.leads:
        found.save(run.predictions("valid"))
        write_json(run.evaluation("valid"), evaluation)
        write_json(run.summary, summary)
    return summary


def _warnings(evaluation: dict[str, Any]) -> list[str]:
    """What nobody may overlook about a finished run."""
    auc = evaluation["metrics"]["auc"]
    if auc["value"] is None:
        return [f"valid AUC is undefined: {auc['why']}"]
    if auc["low"] is not None and auc["low"] <= 0.5 <= auc["high"]:
        return [
            f"at chance level: the valid AUC is {auc['value']:.3f}, its interval {auc['low']:.3f} to {auc['high']:.3f} "
            "contains 0.5. This model has learned nothing that can be shown"
        ]
    return []


def _better(valid: dict[str, float | None], best: dict[str, Any] | None, by: str) -> bool:
    """Whether this epoch is the best so far; where the metric is undefined (one class only), the lower loss."""
    if best is None:
        return True
    new, old = valid.get(by), best["valid"].get(by)
    if new is None or old is None or by == "loss":
        return (valid["loss"] or math.inf) < (best["valid"]["loss"] or math.inf)
    return new > float(old)


def residency(config: Config, split: Split, device: torch.device) -> Any:
    """Where pixels are read from: what the config says, or the fastest place where they fit with room to spare."""
    if config.data.residency != "auto":
        return "ram" if config.data.residency == "device" and device.type == "cpu" else config.data.residency
    if device.type == "cuda":
        return "device" if split.images.nbytes < torch.cuda.mem_get_info()[0] // 2 else "disk"
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return "ram" if split.images.nbytes < free // 4 else "disk"


def config_digest(config: Config) -> str:
    """Digest of every key that can change a weight."""
    return hashlib.sha256(canonical(identity(config)).encode()).hexdigest()


def data_digest(setup: _Setup) -> str:
    """Digest of the patches that training reads: pixels and labels of train and valid, and the rows in use."""
    parts = [
        [
            split.digests["images"]["sha256"],
            split.digests["labels"]["sha256"],
            hashlib.sha256(rows.tobytes()).hexdigest(),
        ]
        for split, rows in ((setup.train, setup.sampler.rows), (setup.valid, setup.valid_rows))
    ]
    return hashlib.sha256(canonical(parts).encode()).hexdigest()
