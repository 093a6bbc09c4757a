"""A network by its settings, from scratch or with ImageNet weights, kept as safetensors."""

from typing import Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import get_model_weights

from tasks import networks
from tasks.config import TrainSettings
from tasks.errors import InputError, OutageError
from tasks.networks import Pooling, Shape, imagenet

SMALL_UP_TO: Final = 64  # pixels; below, the fourfold shrinking of the ImageNet stem costs accuracy


def build(
    settings: TrainSettings, *, classes: int, image_size: int, channels: int = 3, seed: int = 0
) -> nn.Module:
    """An untrained network (or one with ImageNet weights and a new head) for `classes` classes.

    It takes float32 [N,channels,image_size,image_size] and returns logits [N,classes]. The same seed gives
    the same weights. Raises InputError when ImageNet weights do not fit, OutageError when they cannot be
    fetched.
    """
    shape = _shape(settings, classes, image_size, channels)
    if settings.weights == "imagenet":
        _check_imagenet_fits(settings, shape, image_size)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = networks.make(settings.model, shape)
    if settings.weights == "imagenet":
        pretrained = {k: v for k, v in _imagenet(settings.model).items() if not k.startswith("fc.")}
        network.load_state_dict(pretrained, strict=False)
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


def _shape(settings: TrainSettings, classes: int, image_size: int, channels: int) -> Shape:
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


def _check_imagenet_fits(settings: TrainSettings, shape: Shape, image_size: int) -> None:
    if settings.model not in imagenet.NAMES:
        raise InputError(
            f"there are no ImageNet weights of {settings.model}; choose one of {', '.join(imagenet.NAMES)}, "
            "or set train.weights = 'none'"
        )
    given = (shape.width, shape.depth, shape.small_stem, shape.stem_kernel, shape.channels)
    if given != (1, 1, False, 7, 3):
        stem = "small" if shape.small_stem else "imagenet"
        raise InputError(
            "weights 'imagenet' need train.width 1, train.depth 1 and the imagenet stem with kernel 7 on 3 "
            f"channels, got width {shape.width:g}, depth {shape.depth:g} and the {stem} stem with kernel "
            f"{shape.stem_kernel} at {image_size} pixels on {shape.channels} channels; change these, or set "
            "train.weights = 'none'"
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
