"""Models give one logit a patch, start from keyed weights, and draw dropout from keys."""

import pytest
import torch

from histoproof import models
from histoproof.checkpoint import weights_sha256
from histoproof.config import CnnConfig, MlpConfig, ModelConfig, MonaiConfig

CONFIGS: list[ModelConfig] = [
    MlpConfig(name="mlp"),
    MlpConfig(name="mlp", hidden=[]),
    CnnConfig(name="cnn"),
    CnnConfig(name="cnn", widths=[8, 8, 8, 8, 8]),
    MonaiConfig(name="densenet121"),
    MonaiConfig(name="resnet18"),
]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: c.name)
def test_a_model_gives_one_logit_a_patch(config: ModelConfig) -> None:
    model = models.build(config, 1).eval()
    with torch.no_grad():
        assert model(torch.rand(3, 3, 96, 96)).shape == (3,)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: c.name)
def test_initial_weights_are_a_function_of_the_seed_and_leave_the_global_generator_alone(config: ModelConfig) -> None:
    torch.manual_seed(123)
    expected = torch.rand(1)
    torch.manual_seed(123)
    first = weights_sha256(models.build(config, 1))
    assert torch.equal(torch.rand(1), expected)
    assert weights_sha256(models.build(config, 1)) == first
    assert weights_sha256(models.build(config, 2)) != first


def test_the_baseline_has_the_missions_size() -> None:
    expected = 27648 * 64 + 64 + 64 * 32 + 32 + 32 + 1
    assert models.parameter_count(models.build(MlpConfig(name="mlp", hidden=[64, 32]), 1)) == expected


def test_no_model_keeps_a_dropout_that_draws_from_the_global_generator() -> None:
    for config in CONFIGS:
        kinds = {type(m) for m in models.build(config, 1).modules()}
        assert not any(issubclass(kind, torch.nn.modules.dropout._DropoutNd) for kind in kinds)


def test_dropout_is_a_function_of_seed_step_and_shard() -> None:
    layer = models.KeyedDropout(0.3)
    layer.train()
    x = torch.ones(50, 1000)

    def masked(seed: int, step: int, shard: int) -> torch.Tensor:
        models.rekey([layer], torch.device("cpu"), seed, step, shard)
        out: torch.Tensor = layer(x)
        return out

    plain = masked(1, 2, 3)
    assert torch.equal(masked(1, 2, 3), plain)
    for other in ((2, 2, 3), (1, 3, 3), (1, 2, 4)):
        assert not torch.equal(masked(*other), plain)
    assert abs((plain == 0).float().mean().item() - 0.3) < 0.01
    assert abs(plain.mean().item() - 1) < 0.02


def test_dropout_does_nothing_when_evaluating() -> None:
    layer = models.KeyedDropout(0.5).eval()
    x = torch.rand(10)
    assert torch.equal(layer(x), x)
