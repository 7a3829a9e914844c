"""Standard architectures from MONAI (extra `models`), from random weights, with one logit and keyed dropout."""

from typing import Literal

from torch import Tensor, nn

from ..errors import ConfigError
from .dropout import replace_dropout

__all__ = ["from_monai"]


class _OneLogit(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images_NCHW: Tensor) -> Tensor:
        logits: Tensor = self.network(images_NCHW)
        return logits.squeeze(1)


def from_monai(name: Literal["densenet121", "resnet18"]) -> nn.Module:
    """DenseNet-121 (Huang et al. 2017) or ResNet-18 (He et al. 2016), 2D. Raises ConfigError without MONAI."""
    try:
        from monai.networks.nets.densenet import densenet121
        from monai.networks.nets.resnet import resnet18
    except ImportError:
        raise ConfigError(
            f"model.name = {name} needs MONAI", valid="mlp, cnn without it", next="pip install 'histoproof[models]'"
        ) from None
    if name == "densenet121":
        network: nn.Module = densenet121(spatial_dims=2, in_channels=3, out_channels=1)
    else:
        network = resnet18(spatial_dims=2, n_input_channels=3, num_classes=1)
    return replace_dropout(_OneLogit(network))
