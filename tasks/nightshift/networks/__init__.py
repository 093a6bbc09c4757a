"""The networks by name: torchvision's ResNets, those of He et al. for small images, and a fast ResNet-9.

Each takes float32 [N,C,H,W] and gives logits [N,K]. Width, depth, stem, pooling and dropout mean the same for
all of them, so that thinner, deeper, lighter and wider are one setting each.
"""

from collections.abc import Callable
from typing import Final

from torch import nn

from nightshift.networks import cifar, fast, imagenet
from nightshift.networks.parts import Pooling as Pooling
from nightshift.networks.parts import Shape as Shape

FAMILIES: Final[dict[str, Callable[[str, Shape], nn.Module]]] = {
    **dict.fromkeys(imagenet.NAMES, imagenet.ImageNetResNet),
    **dict.fromkeys(cifar.NAMES, cifar.CifarResNet),
    "resnet9": fast.ResNet9,
}


def make(name: str, shape: Shape) -> nn.Module:
    """An untrained network."""
    return FAMILIES[name](name, shape)
