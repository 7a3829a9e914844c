"""The training loop, written out.

A patch's way: store.Split -> batches -> shards (loss, gradients) -> optimizer -> recorder, checkpoints. Nothing random has
state, so a checkpoint holds weights, optimizer, schedule and a position.
"""

import math
import time
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import nn

from . import checkpoint, models
from .compute import Workers
from .data.batches import Ahead, Batch, Pixels, prefetched
from .data.partition import Part
from .errors import RunError, TrainingError
from .evaluate import predict_split
from .experiment import Setup, config_digest, data_digest, prefetch, residency
from .files import JsonLines
from .inference import TrainedModel
from .metrics import score
from .optim import LossScale, Schedule, Update, build_optimizer, clip_factor, load_optimizer, optimizer_tensors
from .provenance import now
from .recorder import Recorder, Seen
from .runs import Run
from .shards import ShardedStep
from .signals import StopRequest

__all__ = ["Judge", "Loop", "Position", "Progress"]

Progress = Callable[[int, int, str], None]
"""Called with (steps done, steps in all, a few words)."""
Judge = Callable[[int, dict[str, Any]], bool]
"""Called with (epoch from 1, its valid scores) once that epoch's checkpoint is written; True: train no further."""


@dataclass
class Position:
    """How far training is."""

    epoch: int = 0
    step_in_epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    patches: int = 0
    best: dict[str, Any] | None = None


class Loop:
    """The training loop and everything it moves along."""

    def __init__(self, setup: Setup, run: Run, workers: Workers) -> None:
        config = setup.config
        self.setup, self.run, self.config, self.workers = setup, run, config, workers
        self.model: nn.Module = models.build(config.model, config.seed).to(setup.device)
        self.optimizer = build_optimizer(config.optim, self.model)
        steps = setup.sampler.steps_per_epoch
        self.schedule = Schedule(config.schedule, config.optim.lr, steps, config.train.epochs)
        self.scale = LossScale(config.train.precision == "fp16")
        self.at = Position()
        self.inputs = {"config": config_digest(config), "data": data_digest(setup)}
        self.problems: list[str] = []
        """What was wrong with checkpoints that were passed over."""
        self.recorder = self._restore()
        self.events = JsonLines(run.events if workers.world.leads else None)
        for problem in self.problems:
            self.events.append({"event": "warning", "time": now(), "text": problem})
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
        named = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        self.update = Update(self.optimizer, list(named.values()), workers)
        state = self.model.state_dict()
        self._seen, self._places = list(state.values()), [list(state).index(name) for name in named]
        self._moved: dict[int, list[bytes]] = {}
        """Digests of large weights' pieces by their place among `_seen`, as the last update left them."""
        self.pixels = Pixels(setup.train, residency(config, setup.train, setup.device), setup.device)
        self.ahead: Ahead | None = None
        self.clock = _Clock()

    def fit(
        self, stop: StopRequest, progress: Progress | None, judge: Judge | None = None
    ) -> Literal["finished", "stopped", "pruned"]:
        """Train from the current position to the end, or until a signal or `judge` stops it (then a checkpoint was written)."""
        config, at = self.config, self.at
        total = self.setup.sampler.steps_per_epoch * config.train.epochs
        while at.epoch < config.train.epochs:
            self.model.train()
            with closing(self.batches()) as batches:
                for batch in batches:
                    self.train_step(batch)
                    if progress:
                        progress(at.step, total, f"epoch {at.epoch + 1}  loss {at.loss_sum / at.patches:.4f}")
                    if self._told_to_stop(stop):
                        return self._stopped(stop)
                    if config.train.checkpoint_every_steps and at.step % config.train.checkpoint_every_steps == 0:
                        self.save()
            try:
                valid = self._end_epoch(stop)
            except _StopAsked:  # within validation: the epoch's steps are done and kept, its validation comes again
                return self._stopped(stop)
            if judge is not None and judge(at.epoch, valid) and at.epoch < config.train.epochs:
                self.events.append({"event": "pruned", "epoch": at.epoch, "step": at.step, "time": now()})
                return "pruned"
        return "finished"

    def batches(self) -> Generator[Batch, None, None]:
        """The rest of the epoch, each batch made while the one before is trained on."""
        at, depth = self.at, prefetch(self.config, self.setup.device)
        what = (self.pixels, self.setup.sampler, self.config.augment, at.epoch, at.step_in_epoch)
        if depth is None:
            self.ahead = Ahead(*what)
            yield from self.ahead
        else:
            yield from prefetched(*what, depth)

    def _stopped(self, stop: StopRequest) -> Literal["stopped"]:
        self.save()
        self.events.append(
            {"event": "stop", "signal": stop.name, "step": self.at.step, **self.clock.lap(), "time": now()}
        )
        return "stopped"

    def _told_to_stop(self, stop: StopRequest) -> bool:
        """Whether a signal reached any process; all of them stop after the same step."""
        world = self.workers.world
        if world.size == 1:
            return stop.requested
        mine = torch.tensor([int(stop.requested)], device=self.setup.device)
        return any(bool(flag) for flag in world.gathered(mine))

    def train_step(self, batch: Batch) -> None:
        """One step, written down. Raises TrainingError where loss or gradient are no longer finite."""
        at = self.at
        lr = self.schedule.lr(at.step)
        weights: list[str] = []
        factor = self.scale.factor

        def beside() -> None:
            weights.append(checkpoint.fingerprint(self._seen, self._moved))
            if self.ahead is not None:
                self.ahead.prepare()

        result = self.step(batch, at.step, factor, beside)
        finite = math.isfinite(result.norm)
        if not math.isfinite(result.loss) or not (finite or self.scale.can_fall):
            raise self._diverged(f"loss {result.loss} and gradient norm {result.norm} at step {at.step}", lr)
        self.scale.update(finite)

        gradient = checkpoint.fingerprint(result.gradients, result.digests)
        if finite:  # an fp16 overflow skips its step
            moved = self.update(result.gradients, lr, clip_factor(result.norm, self.config.optim.max_grad_norm))
            self._moved = {self._places[i]: digests for i, digests in moved.items()}
        self._record(Seen(at.step, at.epoch + 1, batch.indices, weights[0], result.loss, gradient, result.norm, lr))

    def _record(self, seen: Seen) -> None:
        at, size = self.at, len(seen.indices)
        at.step, at.step_in_epoch = at.step + 1, at.step_in_epoch + 1
        at.loss_sum, at.patches = at.loss_sum + seen.loss * size, at.patches + size
        self.clock.patches += size
        due = at.step % self.config.train.weights_digest_every_steps == 0
        last = at.step_in_epoch == self.setup.sampler.steps_per_epoch
        self.recorder.step(seen, self.model if due or last else None)

    def _diverged(self, what: str, lr: float) -> TrainingError:
        return TrainingError(
            f"training diverged: {what}",
            next=f"lower optim.lr (it was {lr:g}) or set optim.max_grad_norm; the run so far is in {self.run.path}",
        )

    def _end_epoch(self, stop: StopRequest) -> dict[str, Any]:
        at = self.at
        valid = self._validate(stop)
        self.schedule.epoch_end(valid["loss"])
        train = {"loss": at.loss_sum / at.patches}
        self.recorder.epoch({"epoch": at.epoch + 1, "step": at.step, "train": train, "valid": valid})
        self.events.append({"event": "epoch", "epoch": at.epoch + 1, **self.clock.lap(), "time": now()})
        is_best = _better(valid, at.best, self.config.evaluate.best_by)
        if is_best:
            at.best = {"epoch": at.epoch + 1, "step": at.step, "valid": valid}
        at.epoch, at.step_in_epoch, at.loss_sum, at.patches = at.epoch + 1, 0, 0.0, 0
        if is_best and self.workers.world.leads:
            checkpoint.write(self.run.best, self._weights(), self._state())
        self.save()
        if self.workers.world.size > 1:
            self.workers.world.agree(checkpoint.weights_sha256(self.model), "digest of the weights")
        return valid

    def _validate(self, stop: StopRequest) -> dict[str, Any]:
        """The valid split's mean loss and scores, without intervals. Raises _StopAsked if a signal comes meanwhile."""
        setup = self.setup
        model = TrainedModel(self.model, setup.standardize, self.config, setup.device, "")

        def look() -> None:
            # between processes one cannot leave alone: the others would wait for its part
            if stop.requested and self.workers.world.size == 1:
                raise _StopAsked

        found = predict_split(model, setup.valid, setup.valid_rows, self.workers, between=look)
        if not math.isfinite(found.loss()):
            raise self._diverged(
                f"valid loss {found.loss()} after step {self.at.step}", self.schedule.lr(self.at.step - 1)
            )
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
            "inputs": self.inputs,
            "store_sha256": self.setup.store.content_sha256,
            "partition_sha256": self.setup.valid.sha256 if isinstance(self.setup.valid, Part) else None,
            "recorder": self.recorder.position(),
        }

    def save(self) -> None:
        """Write checkpoints/last. The lines it counts on reach the disk first."""
        if not self.workers.world.leads:
            return
        optimizer = {f"optim.{name}": tensor for name, tensor in optimizer_tensors(self.optimizer).items()}
        checkpoint.write_last(self.run.checkpoints, {**self._weights(), **optimizer}, self._state())

    def _restore(self) -> Recorder:
        """Load the last whole checkpoint, if there is one; what was written down after it is cut."""
        leads = self.workers.world.leads
        found, problems = checkpoint.load_latest(self.run.checkpoints, set_aside=leads)
        self.problems = [f"{problem}; going on from the one before" for problem in problems]
        files = (self.run.metrics, self.run.trail) if leads else (None, None)
        if found is None:
            recorder = Recorder(*files)
            recorder.begin(**self.inputs)
        else:
            self._check_inputs(found.state["inputs"])
            checkpoint.load_weights(self.model, found.part("model"), found.path)
            load_optimizer(self.optimizer, found.part("optim"))
            self.schedule.load_state(found.state["schedule"])
            scale = found.state["loss_scale"]
            self.scale.scale, self.scale.good_steps = scale["scale"], scale["good_steps"]
            self.at = Position(**found.state["position"])
            recorder = Recorder(*files, at=found.state["recorder"])
        if self.workers.world.size > 1:
            here = f"step {self.at.step}, {checkpoint.weights_sha256(self.model)}"
            self.workers.world.agree(here, "starting point")
        return recorder

    def _check_inputs(self, began_with: dict[str, str]) -> None:
        """Raise RunError if config or data are not those the run began with: its trail vouches for them."""
        for name, digest in self.inputs.items():
            if began_with[name] != digest:
                raise RunError(
                    f"the {name} of {self.run.path} was changed since the run began: it cannot go on",
                    next="change it back, or start a new run; only how the work is done may change, e.g. train.workers",
                )

    def reached(self) -> dict[str, int]:
        """How far the run is."""
        return {"epochs": self.at.epoch, "steps": self.at.step}

    def close(self) -> None:
        """Close the files."""
        self.recorder.close()
        self.events.close()


class _StopAsked(Exception):  # noqa: N818 (no error)
    """A signal came during validation."""


class _Clock:
    """Seconds and patches since the last line in events.jsonl."""

    def __init__(self) -> None:
        self.patches = 0
        self._since = time.perf_counter()

    def lap(self) -> dict[str, float]:
        """What has gone by; then begin again."""
        seconds, patches = time.perf_counter() - self._since, self.patches
        self.__init__()  # type: ignore[misc]
        return {"seconds": seconds, "patches": patches}


def _better(valid: dict[str, Any], best: dict[str, Any] | None, by: str) -> bool:
    """Whether this epoch is the best so far; where the metric is undefined (one class only), the lower loss."""
    if best is None:
        return True
    new, old = valid.get(by), best["valid"].get(by)
    if new is None or old is None or by == "loss":
        return float(valid["loss"]) < float(best["valid"]["loss"])
    return float(new) > float(old)
