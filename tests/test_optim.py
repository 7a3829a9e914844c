"""Schedules are PyTorch's own formulas, as functions of the step."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from histoproof.checkpoint import fingerprint
from histoproof.compute import Workers
from histoproof.config import (
    ConstantConfig,
    CosineConfig,
    MlpConfig,
    OneCycleConfig,
    OptimConfig,
    PlateauConfig,
    StepConfig,
)
from histoproof.models import build
from histoproof.optim import (
    LossScale,
    Schedule,
    Update,
    build_optimizer,
    clip_factor,
    load_optimizer,
    optimizer_tensors,
)

STEPS, EPOCHS = 7, 6


def torch_optimizer() -> torch.optim.SGD:
    return torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.4)


def test_constant_stays() -> None:
    schedule = Schedule(ConstantConfig(name="constant"), 0.4, STEPS, EPOCHS)
    assert {schedule.lr(step) for step in range(STEPS * EPOCHS)} == {0.4}


def test_step_is_steplr() -> None:
    optimizer = torch_optimizer()
    reference = torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.3)
    schedule = Schedule(StepConfig(name="step", every_epochs=2, factor=0.3), 0.4, STEPS, EPOCHS)
    for epoch in range(EPOCHS):
        for step in range(STEPS):
            assert schedule.lr(epoch * STEPS + step) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12)
        optimizer.step()
        reference.step()


def test_onecycle_is_onecyclelr() -> None:
    optimizer = torch_optimizer()
    reference = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.4, total_steps=STEPS * EPOCHS, pct_start=0.3)
    schedule = Schedule(OneCycleConfig(name="onecycle"), 0.4, STEPS, EPOCHS)
    for step in range(STEPS * EPOCHS):
        assert schedule.lr(step) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)
        optimizer.step()
        if step < STEPS * EPOCHS - 1:
            reference.step()


def test_cosine_warms_up_and_ends_at_the_lowest() -> None:
    schedule = Schedule(CosineConfig(name="cosine", warmup_epochs=1, min_lr=0.01), 0.4, STEPS, EPOCHS)
    rates = [schedule.lr(step) for step in range(STEPS * EPOCHS)]
    assert rates[: STEPS + 1] == pytest.approx([0.4 * min(k, 7) / 7 for k in range(1, STEPS + 2)])
    assert rates[STEPS:] == sorted(rates[STEPS:], reverse=True)
    assert rates[-1] == pytest.approx(0.01)


@given(st.lists(st.floats(0.01, 10), min_size=1, max_size=40), st.integers(0, 4), st.floats(0.05, 0.9))
def test_plateau_is_reducelronplateau(losses: list[float], patience: int, factor: float) -> None:
    optimizer = torch_optimizer()
    reference = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, factor=factor, patience=patience, min_lr=1e-6, threshold=1e-4, eps=0
    )
    schedule = Schedule(PlateauConfig(name="plateau", factor=factor, patience=patience), 0.4, STEPS, EPOCHS)
    for loss in losses:
        schedule.epoch_end(loss)
        reference.step(loss)
        assert schedule.lr(0) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12)


def test_plateau_goes_on_from_a_checkpoint() -> None:
    config = PlateauConfig(name="plateau", patience=1)
    whole, first = Schedule(config, 0.4, STEPS, EPOCHS), Schedule(config, 0.4, STEPS, EPOCHS)
    for loss in (1.0, 1.1, 1.2):
        whole.epoch_end(loss)
        first.epoch_end(loss)
    second = Schedule(config, 0.4, STEPS, EPOCHS)
    second.load_state(first.state())
    for loss in (1.3, 1.2, 1.1):
        whole.epoch_end(loss)
        second.epoch_end(loss)
        assert second.lr(0) == whole.lr(0)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_an_optimizers_state_survives_bit_for_bit(name: Any) -> None:
    config = OptimConfig(name=name, lr=0.01, weight_decay=0.1)

    def stepped(model: torch.nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        for p in model.parameters():
            p.grad = torch.empty_like(p).copy_(torch.rand(p.shape, generator=generator))
        optimizer.step()

    one, two = build(MlpConfig(name="mlp", hidden=[4]), 1), build(MlpConfig(name="mlp", hidden=[4]), 1)
    first, second = build_optimizer(config, one), build_optimizer(config, two)
    stepped(one, first, 1)
    two.load_state_dict(one.state_dict())
    load_optimizer(second, {name: t.clone() for name, t in optimizer_tensors(first).items()})
    stepped(one, first, 2)
    stepped(two, second, 2)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


def test_weight_decay_leaves_biases_alone() -> None:
    model = build(MlpConfig(name="mlp", hidden=[4]), 1)
    groups = build_optimizer(OptimConfig(weight_decay=0.5), model).param_groups
    assert [(g["weight_decay"], {p.ndim for p in g["params"]}) for g in groups] == [(0.5, {2}), (0.0, {1})]


def test_clipping_asks_for_the_norm_that_was_set_and_never_for_more() -> None:
    assert clip_factor(5.0, 1.0) == pytest.approx(0.2)
    assert clip_factor(5.0, 10.0) == 1.0
    assert clip_factor(5.0, None) == 1.0
    assert clip_factor(math.nan, 1.0) == 1.0  # the loop looks at the norm itself


@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_weight_moved_in_pieces_moves_as_the_optimizer_would_move_it(workers: int, momentum: float) -> None:
    config = OptimConfig(momentum=momentum, weight_decay=0.01, lr=0.1)
    ours, plain = (build(MlpConfig(name="mlp", hidden=[12, 3]), 1) for _ in range(2))
    optimizers = [build_optimizer(config, model) for model in (ours, plain)]
    pool = Workers(workers)
    update = Update(optimizers[0], list(ours.parameters()), pool)
    for step, factor in enumerate((1.0, 1.0, 0.25)):
        generator = torch.Generator().manual_seed(step)
        gradients = [torch.rand(p.shape, generator=generator) - 0.5 for p in plain.parameters()]
        for p, g in zip(plain.parameters(), gradients, strict=True):
            p.grad = torch.empty_like(p).copy_(g * factor)
        optimizers[1].step()
        moved = update(
            [torch.empty_like(p).copy_(g) for p, g in zip(ours.parameters(), gradients, strict=True)], 0.1, factor
        )
        for one, two in zip(ours.parameters(), plain.parameters(), strict=True):
            assert torch.equal(
                one, two
            )  # 0.25 is a power of two: to multiply by it or to divide by its inverse is the same
        weights = list(ours.parameters())
        assert fingerprint(weights, moved) == fingerprint(weights)
        assert bool(moved) == (step > 0 and momentum > 0)
    pool.close()


def test_the_loss_scale_halves_on_overflow_and_doubles_after_2000_good_steps() -> None:
    scale = LossScale(enabled=True)
    scale.update(finite=False)
    assert scale.factor == 2.0**14
    for _ in range(2000):
        scale.update(finite=True)
    assert scale.factor == 2.0**15
    assert LossScale(enabled=False).factor == 1.0
