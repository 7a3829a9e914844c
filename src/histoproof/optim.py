"""Optimizers and learning-rate schedules.

Every schedule but plateau is a pure function of the step; plateau's three numbers of state go into the checkpoint.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .config import (
    ConstantConfig,
    CosineConfig,
    OneCycleConfig,
    OptimConfig,
    PlateauConfig,
    ScheduleConfig,
    StepConfig,
)

__all__ = ["LossScale", "Schedule", "build_optimizer", "clip", "load_optimizer", "optimizer_tensors"]


def build_optimizer(config: OptimConfig, model: nn.Module) -> torch.optim.Optimizer:
    """SGD or AdamW over the model's parameters. Weight decay leaves biases and norm weights (1-D tensors) alone.

    Fused: one pass over memory instead of three to ten. It takes a parameter, its gradient and its moments to have one memory
    layout, which `ShardedStep` and `load_optimizer` see to.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if config.name == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, nesterov=config.nesterov, fused=True)
    return torch.optim.AdamW(groups, lr=config.lr, betas=(config.momentum, 0.999), fused=True)


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's state as named tensors, e.g. "3.exp_avg", for a checkpoint."""
    state = optimizer.state_dict()["state"]
    return {
        f"{index}.{name}": value
        for index, values in state.items()
        for name, value in values.items()
        if isinstance(value, Tensor)
    }


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Put what `optimizer_tensors` gave back, bit for bit.

    Moments get their parameter's memory layout: a fused kernel walks along memory, and a file holds tensors row by row.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, _, name = key.partition(".")
        parameter = parameters[int(index)]
        laid_out = torch.empty_like(parameter).copy_(value) if value.shape == parameter.shape and value.ndim else value
        state.setdefault(int(index), {})[name] = laid_out.detach()
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def clip(gradients: list[Tensor], max_norm: float | None) -> float:
    """Scale `gradients` in place to an L2 norm of at most `max_norm`; returns the norm before that."""
    norm = float(torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients))))
    if max_norm is not None and norm > max_norm:  # false for NaN: the loop looks at the norm itself
        torch._foreach_mul_(gradients, max_norm / norm)
    return norm


class Schedule:
    """The learning rate of each step, and what plateau needs to know at each epoch's end."""

    def __init__(self, config: ScheduleConfig, base_lr: float, steps_per_epoch: int, epochs: int) -> None:
        self._config = config
        self._base = base_lr
        self._per_epoch = steps_per_epoch
        self._total = steps_per_epoch * epochs
        self._plateau = _Plateau(base_lr, None, 0)

    def lr(self, step: int) -> float:
        """Learning rate of global step `step` (from 0)."""
        match self._config:
            case ConstantConfig():
                return self._base
            case StepConfig(every_epochs=every, factor=factor):
                return self._base * float(factor ** (step // self._per_epoch // every))
            case CosineConfig():
                return self._cosine(self._config, step)
            case OneCycleConfig():
                return self._onecycle(self._config, step)
            case PlateauConfig():
                return self._plateau.lr

    def epoch_end(self, valid_loss: float) -> None:
        """Tell plateau the epoch's valid loss; nothing for the others."""
        if isinstance(self._config, PlateauConfig):
            self._plateau = self._plateau.after(valid_loss, self._config)

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold."""
        return {"lr": self._plateau.lr, "best": self._plateau.best, "bad_epochs": self._plateau.bad_epochs}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint's `state`."""
        self._plateau = _Plateau(**state)

    def _cosine(self, config: CosineConfig, step: int) -> float:
        warmup = round(config.warmup_epochs * self._per_epoch)
        if step < warmup:
            return self._base * (step + 1) / warmup
        progress = (step - warmup) / max(self._total - 1 - warmup, 1)
        return _between(self._base, config.min_lr, min(progress, 1.0))

    def _onecycle(self, config: OneCycleConfig, step: int) -> float:
        low = self._base / config.start_divisor
        peak = config.warmup * self._total - 1
        if step <= peak:
            return _between(low, self._base, step / peak if peak > 0 else 1.0)
        progress = (step - peak) / max(self._total - 1 - peak, 1)
        return _between(self._base, low / config.end_divisor, min(progress, 1.0))


@dataclass(frozen=True)
class _Plateau:
    lr: float
    best: float | None
    bad_epochs: int

    def after(self, loss: float, config: PlateauConfig) -> "_Plateau":
        if self.best is None or loss < self.best * (1 - config.threshold):
            return _Plateau(self.lr, loss, 0)
        if self.bad_epochs + 1 <= config.patience:
            return _Plateau(self.lr, self.best, self.bad_epochs + 1)
        return _Plateau(max(self.lr * config.factor, min(config.min_lr, self.lr)), self.best, 0)


def _between(start: float, end: float, progress: float) -> float:
    """Half a cosine from `start` at 0 to `end` at 1."""
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2


@dataclass
class LossScale:
    """Dynamic loss scaling for fp16 (Micikevicius et al. 2018): halve on overflow, double after 2,000 good steps."""

    enabled: bool
    scale: float = 2.0**15
    good_steps: int = 0

    @property
    def factor(self) -> float:
        """What the loss is multiplied by."""
        return self.scale if self.enabled else 1.0

    @property
    def can_fall(self) -> bool:
        """Whether an overflow can be answered by a smaller scale."""
        return self.enabled and self.scale > 1

    def update(self, finite: bool) -> None:
        """After a step whose gradients were, or were not, finite."""
        if not self.enabled:
            return
        self.good_steps = self.good_steps + 1 if finite else 0
        if not finite:
            self.scale = max(self.scale / 2, 1.0)
        elif self.good_steps % 2000 == 0:
            self.scale *= 2
