"""Our compact residual CNN: a few hundred thousand weights, minutes on two CPU cores."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from .dropout import KeyedDropout

__all__ = ["ResidualCnn"]


class _Block(nn.Module):
    """Two 3x3 convolutions with batch norm, the first of stride 2 (He et al. 2016); beside them a 2x2 mean and a 1x1 projection,
    ResNet-D's shortcut (He et al. 2019, arXiv:1812.01187).

    A 1x1 convolution of stride 2 would do too, but oneDNN's backward pass for it writes past its workspace on channels_last
    input of few channels (uxlfoundation/oneDNN#6035): seen here as a segmentation fault at 8 channels.
    """

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride=2, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels_out)
        self.project = nn.Conv2d(channels_in, channels_out, 1, bias=False)
        self.project_norm = nn.BatchNorm2d(channels_out)

    def forward(self, x: Tensor) -> Tensor:
        inner = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(inner)) + self.project_norm(self.project(_halved(x))))


def _halved(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False)


class ResidualCnn(nn.Module):
    """Stem 3x3 of stride 2, one residual block a stage, mean over all positions, dropout, one logit."""

    def __init__(self, widths: Sequence[int], dropout: float) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, widths[0], 3, stride=2, padding=1, bias=False)
        self.stem_norm = nn.BatchNorm2d(widths[0])
        pairs = zip((widths[0], *widths), widths, strict=False)
        self.stages = nn.Sequential(*(_Block(before, after) for before, after in pairs))
        self.dropout = KeyedDropout(dropout)
        self.head = nn.Linear(widths[-1], 1)

    def forward(self, images_NCHW: Tensor) -> Tensor:
        """(B, 3, 96, 96) to (B,) logits."""
        x = self.stages(F.relu(self.stem_norm(self.stem(images_NCHW))))
        logits: Tensor = self.head(self.dropout(x.mean((2, 3))))
        return logits.squeeze(1)
