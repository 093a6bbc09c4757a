"""ResNet-9, the network of short trainings: D. Page, "How to Train Your ResNet", 2018.

Convolutions of 64, 128, 256 and 512 channels, a residual block after the second and the last, and logits that
are scaled down so that the last layer learns at the rate of the others.
"""

from typing import Final

from torch import Tensor, nn

from nightshift.models.layers import Shape, convolution, pooled

LOGITS: Final = 0.125


def normed(before: int, after: int, kernel: int = 3, stride: int = 1) -> list[nn.Module]:
    return [convolution(before, after, kernel, stride), nn.BatchNorm2d(after), nn.ReLU(inplace=True)]


class Residual(nn.Module):
    """Two convolutions beside their input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(*normed(channels, channels), *normed(channels, channels))

    def forward(self, features: Tensor) -> Tensor:
        result: Tensor = features + self.body(features)
        return result


class ResNet9(nn.Module):
    """`depth` is a factor on the residual blocks, of which the first and the last stage have one each."""

    def __init__(self, name: str, shape: Shape) -> None:
        super().__init__()
        stem, first, second, third = (shape.wide(channels) for channels in (64, 128, 256, 512))
        self.conv1 = nn.Sequential(
            *normed(shape.channels, stem, shape.stem_kernel, 1 if shape.small_stem else 4)
        )
        self.layer1 = self._stage(stem, first, shape.deep(1))
        self.layer2 = self._stage(first, second, 0)
        self.layer3 = self._stage(second, third, shape.deep(1))
        self.pool = pooled(shape)
        self.fc = nn.Linear(third, shape.classes, bias=False)

    @staticmethod
    def _stage(before: int, after: int, blocks: int) -> nn.Sequential:
        # Sizes round up, so that images of 8 pixels and fewer have a pixel left at the end.
        halved = nn.MaxPool2d(2, ceil_mode=True)
        return nn.Sequential(*normed(before, after), halved, *(Residual(after) for _ in range(blocks)))

    def forward(self, images: Tensor) -> Tensor:
        features = self.layer3(self.layer2(self.layer1(self.conv1(images))))
        logits: Tensor = self.fc(self.pool(features).flatten(1)) * LOGITS
        return logits
