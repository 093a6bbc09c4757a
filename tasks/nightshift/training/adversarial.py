"""Adversarial training: a network learns from images that were changed to mislead it as it is now."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from nightshift.config import TrainSettings
from nightshift.data.dataset import standardised
from nightshift.models.attacks import ascend
from nightshift.models.device import Precision
from nightshift.records import Dataset


def adversarial_examples(
    network: nn.Module,
    pixels: Tensor,
    build_loss: Callable[[Tensor], Tensor],
    dataset: Dataset,
    settings: TrainSettings,
    precision: Precision,
    generator: torch.Generator,
) -> Tensor:
    """Pixels [B,C,H,W] from 0 to 1, changed as `settings.adversarial` says; `build_loss` takes logits.

    One step from a random place: Wong, Rice and Kolter, "Fast is better than free", ICLR 2020. Several:
    Madry et al., ICLR 2018. The network's weights, gradients and statistics stay as they are.
    """
    if settings.adversarial == "none":
        return pixels
    epsilon = settings.adversarial_epsilon / 255
    steps = 1 if settings.adversarial == "fgsm" else settings.adversarial_steps
    size = 1.25 * epsilon if steps == 1 else 2.5 * epsilon / steps

    def loss(changed: Tensor) -> Tensor:
        with precision.autocast():
            logits = network(standardised(changed, dataset))
        return build_loss(logits.float())

    with _at_rest(network):
        changed = ascend(loss, pixels, epsilon, steps=steps, size=size, generator=generator)
    return changed.contiguous(memory_format=torch.channels_last)


@contextmanager
def _at_rest(network: nn.Module) -> Iterator[None]:
    """In evaluation mode for a while; then what trained before trains again: frozen layers do not."""
    training = [module for module in network.modules() if module.training]
    network.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
