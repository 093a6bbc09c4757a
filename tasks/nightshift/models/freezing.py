"""The parts of a network by the names of its tensors, and which of them a training leaves as they are."""

from typing import Final

from torch import nn

from nightshift.config import TrainSettings

STEM, HEAD = "stem", "head"
STAGES: Final = ("layer1", "layer2", "layer3", "layer4")


def part_of(name: str) -> str:
    """The part that a tensor or a module belongs to by its name; pooling is part of the head."""
    first = name.partition(".")[0]
    if first in STAGES:
        return first
    return STEM if first in ("conv1", "bn1") else HEAD


def frozen(network: nn.Module, settings: TrainSettings, epoch: int) -> tuple[str, ...]:
    """The parts that stay as they are in an epoch (from 1), the stem first.

    They thaw one an epoch, the last first: Howard and Ruder, "Universal Language Model Fine-tuning for Text
    Classification", ACL 2018.
    """
    if settings.freeze == "none":
        return ()
    parts = dict.fromkeys(part_of(name) for name, _ in network.named_parameters())
    backbone = [part for part in parts if part != HEAD]
    count = len(backbone) if settings.freeze == "backbone" else backbone.index(settings.freeze) + 1
    thawed = max(0, epoch - settings.unfreeze_epoch + 1) if settings.unfreeze_epoch else 0
    return tuple(backbone[: max(0, count - thawed)])


def begin_epoch(network: nn.Module, settings: TrainSettings, epoch: int) -> None:
    """Into training mode, but for frozen parts: no gradients there, and batch norm keeps its statistics."""
    kept = frozen(network, settings, epoch)
    network.train()
    for name, module in network.named_children():
        if part_of(name) in kept:
            module.eval()
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(part_of(name) not in kept)
