"""Schedules are PyTorch's own formulas, as functions of the step."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

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
from histoproof.optim import LossScale, Schedule, build_optimizer, clip, load_optimizer, optimizer_tensors

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
            p.grad = torch.rand(p.shape, generator=generator)
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


def test_clipping_scales_to_the_norm_and_returns_the_norm_before() -> None:
    gradients = [torch.tensor([3.0, 0.0]), torch.tensor([[4.0]])]
    assert clip(gradients, 1.0) == 5.0
    assert [g.flatten().tolist() for g in gradients] == [pytest.approx([0.6, 0.0]), pytest.approx([0.8])]
    assert clip(gradients, 10.0) == pytest.approx(1.0)
    assert clip(gradients, None) == pytest.approx(1.0)
    assert math.isnan(clip([torch.tensor([math.nan])], 1.0))


def test_the_loss_scale_halves_on_overflow_and_doubles_after_2000_good_steps() -> None:
    scale = LossScale(enabled=True)
    scale.update(finite=False)
    assert scale.factor == 2.0**14
    for _ in range(2000):
        scale.update(finite=True)
    assert scale.factor == 2.0**15
    assert LossScale(enabled=False).factor == 1.0
