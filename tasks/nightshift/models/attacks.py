"""The least change that fools a network the most, within a limit for every pixel.

Gradients are those of the float network. What it is shown, other models can be shown too: an attack that is
transferred is weaker than one that is made for the model itself.
"""

import math
from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import nll_loss

from nightshift.data.dataset import scaled, standardised
from nightshift.models.device import find_device
from nightshift.models.voting import Vote
from nightshift.records import Dataset

Kind = Literal["fgsm", "pgd"]
Loss = Callable[[Tensor], Tensor]  # of pixels [B,C,H,W] from 0 to 1
BATCH = 128


def ascend(
    loss: Loss,
    pixels: Tensor,
    epsilon: float,
    *,
    steps: int = 1,
    size: float,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Pixels [B,C,H,W] from 0 to 1, none further than `epsilon` from where it was, where the loss is higher.

    `size` is the length of a step. With a generator the first step begins at a random place. One step of the
    size of epsilon from the pixels themselves is FGSM (Goodfellow, Shlens and Szegedy 2015), several from a
    random place are PGD (Madry et al. 2018). Gradients of the network's weights are left alone.
    """
    changed = pixels.detach()
    if generator is not None:
        noise = torch.rand(pixels.shape, generator=generator, device=pixels.device)
        changed = (changed + (2 * noise - 1) * epsilon).clamp(0, 1)
    for _ in range(steps):
        changed = changed.detach().requires_grad_()
        (slope,) = torch.autograd.grad(loss(changed), changed)
        further = changed.detach() + size * slope.sign()
        changed = torch.clamp(further, pixels - epsilon, pixels + epsilon).clamp(0, 1)
    return changed.detach()


def attack(
    network: nn.Module,
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    dataset: Dataset,
    kind: Kind,
    epsilon: float,
    *,
    steps: int,
    seed: int,
) -> NDArray[np.uint8]:
    """Images uint8 [N,H,W,C] of which no value differs by more than `epsilon` (of 255) from the given ones.

    The network is in evaluation mode and stays as it is; `steps` are those of PGD, each 2.5 epsilon / steps.
    """
    device = find_device()
    network = network.to(device).eval()
    generator = torch.Generator(device).manual_seed(seed)
    limit = epsilon / 255
    found = []
    for start in range(0, len(images), BATCH):
        some = torch.from_numpy(images[start : start + BATCH]).to(device)
        wanted = torch.from_numpy(labels[start : start + BATCH]).to(device)

        def loss(pixels: Tensor, wanted: Tensor = wanted) -> Tensor:
            return nll_loss(log_probabilities(network, standardised(pixels, dataset)), wanted)

        pixels = scaled(some)
        if kind == "fgsm":
            changed = ascend(loss, pixels, limit, size=limit)
        else:
            changed = ascend(loss, pixels, limit, steps=steps, size=2.5 * limit / steps, generator=generator)
        # Rounded towards the image, so that whole grey levels stay within the limit too.
        difference = ((changed - pixels) * 255).round().clamp(-int(epsilon), int(epsilon))
        found.append((some + difference.permute(0, 2, 3, 1)).clamp(0, 255).to(torch.uint8).cpu().numpy())
    return np.concatenate(found)


def log_probabilities(network: nn.Module, pixels: Tensor) -> Tensor:
    """float32 [B,K] of standardised pixels [B,C,H,W]; a vote counts as the mean of its members, whatever its
    rule, because a hard vote has no slope."""
    if isinstance(network, Vote):
        members = torch.stack([member(pixels) for member in network.members])
        together: Tensor = members.log_softmax(2).logsumexp(0) - math.log(len(members))
        return together
    logits: Tensor = network(pixels)
    return logits.log_softmax(1)
