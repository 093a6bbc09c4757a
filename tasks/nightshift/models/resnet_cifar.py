"""ResNet-20 to ResNet-110 for images of 32 pixels: He et al., CVPR 2016, section 4.2.

Three stages of 16, 32 and 64 channels; shortcuts have no weights, as in the paper's option A.
"""

from typing import Final

from torch import Tensor, nn
from torch.nn import functional

from nightshift.models.layers import Shape, convolution, pooled

BLOCKS: Final = {"resnet20": 3, "resnet32": 5, "resnet44": 7, "resnet56": 9, "resnet110": 18}
NAMES: Final = tuple(BLOCKS)


class Block(nn.Module):
    """Two convolutions beside a shortcut that is subsampled and filled up with zeros where they shrink."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.stride, self.more = stride, after - before
        self.conv1, self.bn1 = convolution(before, after, stride=stride), nn.BatchNorm2d(after)
        self.conv2, self.bn2 = convolution(after, after), nn.BatchNorm2d(after)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, features: Tensor) -> Tensor:
        residual = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(features)))))
        if self.stride > 1 or self.more:
            features = features[:, :, :: self.stride, :: self.stride]
            features = functional.pad(features, (0, 0, 0, 0, self.more // 2, self.more - self.more // 2))
        result: Tensor = self.relu(residual + features)
        return result


class CifarResNet(nn.Module):
    """6n + 2 layers."""

    def __init__(self, name: str, shape: Shape) -> None:
        super().__init__()
        channels = shape.wide(16)
        self.conv1 = convolution(shape.channels, channels, shape.stem_kernel, 1 if shape.small_stem else 4)
        self.bn1, self.relu = nn.BatchNorm2d(channels), nn.ReLU(inplace=True)
        stages = []
        for planes in (16, 32, 64):
            blocks: list[nn.Module] = []
            for place in range(shape.deep(BLOCKS[name])):
                stride = 2 if planes > 16 and place == 0 else 1
                blocks.append(Block(channels, shape.wide(planes), stride))
                channels = shape.wide(planes)
            stages.append(nn.Sequential(*blocks))
        self.layer1, self.layer2, self.layer3 = stages
        self.pool = pooled(shape)
        self.fc = nn.Linear(channels, shape.classes)

    def forward(self, images: Tensor) -> Tensor:
        features = self.relu(self.bn1(self.conv1(images)))
        features = self.layer3(self.layer2(self.layer1(features)))
        logits: Tensor = self.fc(self.pool(features).flatten(1))
        return logits
