"""A network by its settings, kept as safetensors."""

import json
from collections.abc import Callable, Mapping
from typing import Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from nightshift.config import TrainSettings
from nightshift.errors import InputError
from nightshift.models import resnet, resnet9, resnet_cifar
from nightshift.models.layers import Pooling, Shape

FAMILIES: Final[dict[str, Callable[[str, Shape], nn.Module]]] = {
    **dict.fromkeys(resnet.NAMES, resnet.ImageNetResNet),
    **dict.fromkeys(resnet_cifar.NAMES, resnet_cifar.CifarResNet),
    "resnet9": resnet9.ResNet9,
}


def make(name: str, shape: Shape) -> nn.Module:
    """An untrained network."""
    return FAMILIES[name](name, shape)


ABOUT: Final = "nightshift"  # key in the header of a weights file
SMALL_UP_TO: Final = 64  # pixels; below, the fourfold shrinking of the ImageNet stem costs accuracy


def build(
    settings: TrainSettings, *, classes: int, image_size: int, channels: int = 3, seed: int = 0
) -> nn.Module:
    """An untrained network for `classes` classes; what it starts from is up to `pretrained`.

    It takes float32 [N,channels,image_size,image_size] and returns logits [N,classes]. The same seed gives
    the same weights.
    """
    shape = shape_of(settings, classes, image_size, channels)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = make(settings.model, shape)
    return network.to(memory_format=torch.channels_last)


def cost(network: nn.Module, image_size: int, channels: int) -> tuple[int, int]:
    """Parameters, and multiply-adds of one image."""
    pixels = torch.zeros(1, channels, image_size, image_size).to(memory_format=torch.channels_last)
    training = network.training
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        network.eval()(pixels)
    network.train(training)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return parameters, counter.get_total_flops() // 2


def to_bytes(network: nn.Module, about: Mapping[str, object] | None = None) -> bytes:
    """The weights as safetensors, with JSON of what is said `about` them; equal input gives equal bytes."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    # One entry, because safetensors writes several in any order.
    return save(tensors, metadata={ABOUT: json.dumps(about, sort_keys=True)} if about else None)


def restore(
    data: bytes, settings: TrainSettings, *, classes: int, image_size: int, channels: int = 3
) -> nn.Module:
    """The trained network in evaluation mode.

    Raises InputError when the weights are of another network, or some are no numbers.
    """
    network = build(settings, classes=classes, image_size=image_size, channels=channels)
    try:
        weights = load(data)
        network.load_state_dict(weights)
    except (RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"the checkpoint does not hold a {settings.model} of width {settings.width:g} for {classes} "
            f"classes ({reason}); train it again"
        ) from error
    if broken := [name for name, tensor in weights.items() if not tensor.isfinite().all()]:
        raise InputError(
            f"the checkpoint holds weights that are not numbers (in {', '.join(broken[:3])}); train it again "
            "with a lower train.learning_rate"
        )
    return network.eval()


def shape_of(settings: TrainSettings, classes: int, image_size: int, channels: int) -> Shape:
    """The measures of the network that `build` makes."""
    small = settings.stem == "small" or (settings.stem == "auto" and image_size <= SMALL_UP_TO)
    usual: Pooling = "max" if settings.model == "resnet9" else "average"
    return Shape(
        channels=channels,
        classes=classes,
        width=settings.width,
        depth=settings.depth,
        small_stem=small,
        stem_kernel=settings.stem_kernel or (3 if small else 7),
        pooling=usual if settings.pooling == "auto" else settings.pooling,
        dropout=settings.dropout,
    )
