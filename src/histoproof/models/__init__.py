"""The models: each takes (B, 3, 96, 96) float32 and gives one logit a patch, (B,)."""

import torch
from torch import nn

from .. import rng
from ..config import CnnConfig, MlpConfig, ModelConfig, MonaiConfig
from .cnn import ResidualCnn
from .dropout import KeyedDropout, keyed_dropouts, rekey
from .linear import PixelLinear, pixel_linear
from .mlp import Mlp
from .monai import from_monai

__all__ = ["KeyedDropout", "PixelLinear", "build", "keyed_dropouts", "parameter_count", "pixel_linear", "rekey"]


def build(config: ModelConfig, seed: int) -> nn.Module:
    """A model with its initial weights, a function of (config, seed). The global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(rng.key(seed, "init"))
        match config:
            case MlpConfig():
                model: nn.Module = Mlp(config.hidden, config.dropout)
            case CnnConfig():
                model = ResidualCnn(config.widths, config.dropout)
            case MonaiConfig():
                model = from_monai(config.name)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model


def parameter_count(model: nn.Module) -> int:
    """How many trainable numbers the model has."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
