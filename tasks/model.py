"""The networks: torchvision's ResNets with a choice of width, stem and head, kept as safetensors."""

from typing import Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn
from torchvision.models import get_model_weights
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from tasks.config import TrainSettings
from tasks.errors import InputError, OutageError

DEPTHS: Final[dict[str, tuple[type[BasicBlock | Bottleneck], list[int]]]] = {
    "resnet18": (BasicBlock, [2, 2, 2, 2]),
    "resnet34": (BasicBlock, [3, 4, 6, 3]),
    "resnet50": (Bottleneck, [3, 4, 6, 3]),
    "resnet101": (Bottleneck, [3, 4, 23, 3]),
    "resnet152": (Bottleneck, [3, 8, 36, 3]),
}
# With 8 channels, torch 2.14 on a CPU with AVX-512 writes past its memory in the backward pass of a strided
# 1x1 convolution on 64 pixels (channels last): a crash, or wrong weights without one.
FEWEST: Final = 16
SMALL_UP_TO: Final = 64  # pixels; below, the fourfold shrinking of the ImageNet stem costs accuracy


class ScaledResNet(ResNet):  # type: ignore[misc]
    """torchvision's ResNet with its channels multiplied by `width` and a choice of stem.

    At width 1 with the ImageNet stem its parameters have torchvision's names and shapes. The small stem is
    one 3x3 convolution of stride 1 without pooling, as in He et al. 2015, section 4.2.
    """

    def __init__(self, model: str, *, channels: int, classes: int, width: float, small: bool) -> None:
        self.width = width
        block, layers = DEPTHS[model]
        super().__init__(block, layers, num_classes=classes, zero_init_residual=True)
        stem = _channels(64, width)
        if small:
            self.conv1 = nn.Conv2d(channels, stem, 3, padding=1, bias=False)
            self.maxpool = nn.Identity()
        else:
            self.conv1 = nn.Conv2d(channels, stem, 7, stride=2, padding=3, bias=False)
        nn.init.kaiming_normal_(self.conv1.weight, mode="fan_out", nonlinearity="relu")
        self.bn1 = nn.BatchNorm2d(stem)
        self.fc = nn.Linear(_channels(512, width) * block.expansion, classes)

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
            self.inplanes = _channels(64, self.width)
        layer: nn.Sequential = super()._make_layer(
            block, _channels(planes, self.width), blocks, stride, dilate
        )
        return layer


def build(
    settings: TrainSettings, *, classes: int, image_size: int, channels: int = 3, seed: int = 0
) -> nn.Module:
    """An untrained network (or one with ImageNet weights and a new head) for `classes` classes.

    It takes float32 [N,channels,image_size,image_size] and returns logits [N,classes]. The same seed gives
    the same weights. Raises InputError when ImageNet weights do not fit, OutageError when they cannot be
    fetched.
    """
    small = _stem(settings, image_size) == "small"
    if settings.weights == "imagenet":
        _check_imagenet_fits(settings, small, image_size, channels)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network: nn.Module = ScaledResNet(
            settings.model, channels=channels, classes=classes, width=settings.width, small=small
        )
    if settings.weights == "imagenet":
        pretrained = {k: v for k, v in _imagenet(settings.model).items() if not k.startswith("fc.")}
        network.load_state_dict(pretrained, strict=False)
    return network.to(memory_format=torch.channels_last)


def to_bytes(network: nn.Module) -> bytes:
    """The weights as safetensors; equal weights give equal bytes."""
    return save({name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()})


def restore(
    data: bytes, settings: TrainSettings, *, classes: int, image_size: int, channels: int = 3
) -> nn.Module:
    """The trained network in evaluation mode. Raises InputError when the weights are of another network."""
    plain = settings.model_copy(update={"weights": "none"})  # the checkpoint holds them already
    network = build(plain, classes=classes, image_size=image_size, channels=channels)
    try:
        network.load_state_dict(load(data))
    except (RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"the checkpoint does not hold a {settings.model} of width {settings.width:g} for {classes} "
            f"classes ({reason}); train it again"
        ) from error
    return network.eval()


def _stem(settings: TrainSettings, image_size: int) -> str:
    if settings.stem != "auto":
        return settings.stem
    return "small" if image_size <= SMALL_UP_TO else "imagenet"


def _channels(base: int, width: float) -> int:
    """Channels scaled to a multiple of 8, which vector units like, and at least FEWEST."""
    return max(FEWEST, round(base * width / 8) * 8)


def _check_imagenet_fits(settings: TrainSettings, small: bool, image_size: int, channels: int) -> None:
    if settings.width != 1.0 or small or channels != 3:
        stem = "small" if small else "imagenet"
        raise InputError(
            f"weights 'imagenet' need train.width 1.0 and the imagenet stem on 3 channels, got width "
            f"{settings.width:g} and the {stem} stem at {image_size} pixels on {channels} channels; set "
            "train.width = 1.0 and train.stem = 'imagenet', or train.weights = 'none'"
        )


def _imagenet(model: str) -> dict[str, Tensor]:
    """torchvision's best ImageNet weights, from its cache or from the internet."""
    weights = get_model_weights(model).DEFAULT
    try:
        # The file is a pickle; weights_only limits it to tensors, and its hash is checked after the download.
        state: dict[str, Tensor] = weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except (OSError, RuntimeError) as error:
        folder = f"{torch.hub.get_dir()}/checkpoints"
        raise OutageError(
            f"ImageNet weights of {model} cannot be fetched from {weights.url} ({error}); put that file "
            f"into {folder}, or set train.weights = 'none'"
        ) from error
    return state
