"""Optimizers and learning-rate schedules.

Every schedule but plateau is a pure function of the step; plateau's three numbers of state go into the checkpoint.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from . import checkpoint
from .compute import Workers
from .config import (
    ConstantConfig,
    CosineConfig,
    OneCycleConfig,
    OptimConfig,
    PlateauConfig,
    ScheduleConfig,
    StepConfig,
)

__all__ = [
    "LossScale",
    "Schedule",
    "Update",
    "build_optimizer",
    "clip_factor",
    "load_optimizer",
    "optimizer_tensors",
]


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


def clip_factor(norm: float, max_norm: float | None) -> float:
    """What gradients of L2 norm `norm` are multiplied by, to have one of at most `max_norm`."""
    # false for NaN: the loop looks at the norm itself
    return max_norm / norm if max_norm is not None and norm > max_norm else 1.0


class Update:
    """An optimizer's step. A large weight under SGD is moved piece by piece (`checkpoint.pieces`) by whoever is free."""

    def __init__(self, optimizer: torch.optim.Optimizer, parameters: Sequence[nn.Parameter], workers: Workers) -> None:
        self._optimizer, self._parameters, self._workers = optimizer, list(parameters), workers
        self._groups = {id(p): group for group in optimizer.param_groups for p in group["params"]}
        self._shares = isinstance(optimizer, torch.optim.SGD) and optimizer.defaults["momentum"] > 0
        self._large: list[int] = []
        if self._shares and self._parameters[0].device.type == "cpu":
            self._large = [i for i, p in enumerate(self._parameters) if p.numel() >= checkpoint.LARGE]
        self._small = [i for i in range(len(self._parameters)) if i not in self._large]

    def __call__(self, gradients: Sequence[Tensor], lr: float, factor: float) -> dict[int, list[bytes]]:
        """Move the parameters along `gradients` times `factor`, which may be overwritten. Returns digests of the pieces of the
        parameters that were moved in pieces, by their place."""
        for group in self._optimizer.param_groups:
            group["lr"] = lr
        begun = bool(self._optimizer.state)  # the optimizer's own first step makes the momentum
        if not (self._large and begun):
            self._step(gradients, factor)
            return {}
        pieces = [piece for i in self._large for piece in self._pieces(i, gradients[i])]
        small = [next(self._pieces(i, gradients[i])) for i in self._small]

        def move(_: int, k: int) -> bytes:
            if k > 0:
                return self._move(pieces[k - 1], factor)
            for piece in small:
                self._move(piece, factor)
            return b""

        digests = self._workers.share(move, 1 + len(pieces))[1:]
        count = checkpoint.PIECES
        return {i: list(digests[n * count : (n + 1) * count]) for n, i in enumerate(self._large)}

    def _step(self, gradients: Sequence[Tensor], factor: float) -> None:
        """The optimizer's own step."""
        if factor != 1:
            gradients = torch._foreach_mul(list(gradients), factor)
        for parameter, gradient in zip(self._parameters, gradients, strict=True):
            parameter.grad = gradient
        self._optimizer.step()
        self._optimizer.zero_grad()

    def _pieces(self, place: int, gradient: Tensor) -> "Iterator[_Piece]":
        parameter = self._parameters[place]
        momentum: Tensor = self._optimizer.state[parameter]["momentum_buffer"]
        views = (checkpoint.pieces(t) for t in (parameter, gradient, momentum))
        group = self._groups[id(parameter)]
        return (_Piece(w, g, m, group) for w, g, m in zip(*views, strict=True))

    def _move(self, piece: "_Piece", factor: float) -> bytes:
        """SGD on a piece; the digest of its new weights."""
        group = piece.group
        torch._fused_sgd_(
            [piece.weights],
            [piece.gradient],
            [piece.momentum],
            weight_decay=group["weight_decay"],
            momentum=group["momentum"],
            lr=group["lr"],
            dampening=group["dampening"],
            nesterov=group["nesterov"],
            maximize=False,
            is_first_step=False,
            grad_scale=None if factor == 1 else torch.tensor(1 / factor),
        )
        return checkpoint.piece_digest(piece.weights)


@dataclass(frozen=True)
class _Piece:
    """Flat views of the same numbers' weights, gradient and momentum, and the settings of their parameter group."""

    weights: Tensor
    gradient: Tensor
    momentum: Tensor
    group: dict[str, Any]


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
