"""What all networks share: their measures, the stem, and the pooling before the last layer."""

from dataclasses import dataclass
from typing import Final, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

# With 8 channels, torch 2.14 on a CPU with AVX-512 writes past its memory in the backward pass of a strided
# 1x1 convolution on 64 pixels (channels last): a crash, or wrong weights without one.
FEWEST: Final = 16
Pooling = Literal["average", "max", "gem"]


@dataclass(frozen=True)
class Shape:
    """The measures of a network; `width` and `depth` are factors on channels and on blocks."""

    channels: int
    classes: int
    width: float
    depth: float
    small_stem: bool  # keeps the image's size, where the other shrinks it fourfold
    stem_kernel: int
    pooling: Pooling
    dropout: float

    def wide(self, channels: int) -> int:
        """Channels scaled to a multiple of 8, which vector units like, and at least FEWEST."""
        return max(FEWEST, round(channels * self.width / 8) * 8)

    def deep(self, blocks: int) -> int:
        return max(1, round(blocks * self.depth))


def convolution(before: int, after: int, kernel: int = 3, stride: int = 1) -> nn.Conv2d:
    """A convolution that keeps the size but for its stride, initialised as in He et al., ICCV 2015."""
    made = nn.Conv2d(before, after, kernel, stride, padding=kernel // 2, bias=False)
    nn.init.kaiming_normal_(made.weight, mode="fan_out", nonlinearity="relu")
    return made


class GeneralizedMean(nn.Module):
    """Generalised-mean pooling with a learned exponent: Radenovic, Tolias and Chum, TPAMI 2019."""

    def __init__(self) -> None:
        super().__init__()
        self.exponent = nn.Parameter(torch.tensor([3.0]))

    def forward(self, features: Tensor) -> Tensor:
        powers = features.clamp(min=1e-6).pow(self.exponent)
        return functional.adaptive_avg_pool2d(powers, 1).pow(1 / self.exponent)


def pooled(shape: Shape) -> nn.Module:
    """[N,C,H,W] to [N,C,1,1], some of it dropped while training."""
    kinds: dict[str, nn.Module] = {
        "average": nn.AdaptiveAvgPool2d(1),
        "max": nn.AdaptiveMaxPool2d(1),
        "gem": GeneralizedMean(),
    }
    pooling = kinds[shape.pooling]
    return nn.Sequential(pooling, nn.Dropout(shape.dropout)) if shape.dropout else pooling
