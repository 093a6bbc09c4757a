"""torchvision's ResNets, wide ResNets and ResNeXts, their channels and blocks scaled."""

from typing import Final

from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from nightshift.models.layers import Shape, convolution, pooled

# Block, blocks per stage, groups, and the width of a group that torchvision's builders give.
LAYOUTS: Final[dict[str, tuple[type[BasicBlock | Bottleneck], list[int], int, int]]] = {
    "resnet18": (BasicBlock, [2, 2, 2, 2], 1, 64),
    "resnet34": (BasicBlock, [3, 4, 6, 3], 1, 64),
    "resnet50": (Bottleneck, [3, 4, 6, 3], 1, 64),
    "resnet101": (Bottleneck, [3, 4, 23, 3], 1, 64),
    "resnet152": (Bottleneck, [3, 8, 36, 3], 1, 64),
    "wide_resnet50_2": (Bottleneck, [3, 4, 6, 3], 1, 128),
    "wide_resnet101_2": (Bottleneck, [3, 4, 23, 3], 1, 128),
    "resnext50_32x4d": (Bottleneck, [3, 4, 6, 3], 32, 4),
    "resnext101_32x8d": (Bottleneck, [3, 4, 23, 3], 32, 8),
    "resnext101_64x4d": (Bottleneck, [3, 4, 23, 3], 64, 4),
}
NAMES: Final = tuple(LAYOUTS)


class ImageNetResNet(ResNet):  # type: ignore[misc]
    """At width and depth 1 with the ImageNet stem its parameters have torchvision's names and shapes.

    The small stem is one convolution of stride 1 without pooling, as in He et al. 2015, section 4.2.
    """

    def __init__(self, name: str, shape: Shape) -> None:
        self.shape = shape
        block, layers, groups, group_width = LAYOUTS[name]
        super().__init__(
            block,
            [shape.deep(blocks) for blocks in layers],
            num_classes=shape.classes,
            zero_init_residual=True,
            groups=groups,
            width_per_group=group_width,
        )
        stem = shape.wide(64)
        self.conv1 = convolution(shape.channels, stem, shape.stem_kernel, 1 if shape.small_stem else 2)
        self.bn1 = nn.BatchNorm2d(stem)
        if shape.small_stem:
            self.maxpool = nn.Identity()
        self.avgpool = pooled(shape)
        self.fc = nn.Linear(shape.wide(512) * block.expansion, shape.classes)

    def _make_layer(
        self,
        block: type[BasicBlock | Bottleneck],
        planes: int,
        blocks: int,
        stride: int = 1,
        dilate: bool = False,
    ) -> nn.Sequential:
        # torchvision builds every stage through this method, so the width is applied here, once.
        if planes == 64:
            self.inplanes = self.shape.wide(64)
        layer: nn.Sequential = super()._make_layer(block, self.shape.wide(planes), blocks, stride, dilate)
        return layer
