"""Where a network looked: which parts of an image spoke for its answer."""

from collections.abc import Iterator
from typing import Final

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import interpolate

from nightshift.data.dataset import scaled, standardised
from nightshift.models.tta import FlipTTA
from nightshift.models.voting import Vote
from nightshift.records import Dataset

Pixels = NDArray[np.uint8]
SMALLEST: Final = 4  # side of features that say where; the last ones of a small image may be one pixel
STRENGTH: Final = 0.45  # of the colours in an overlay


def maps(network: nn.Module, images: Pixels, dataset: Dataset) -> NDArray[np.float32]:
    """float32 [N,H,W] from 0 to 1 for uint8 [N,H,W,C]: how much each place spoke for the answer.

    Grad-CAM (Selvaraju et al. 2017) on the features of the last stage that has room; of a vote
    the mean over its members. The network is in evaluation mode and on the CPU afterwards.
    """
    network = network.cpu().eval()
    pixels = standardised(scaled(torch.from_numpy(images)), dataset)
    found = torch.stack([_map(body, pixels) for body in _bodies(network)]).mean(0)
    grown = interpolate(found[:, None], images.shape[1:3], mode="bilinear", align_corners=False)[:, 0]
    highest = grown.amax((1, 2), keepdim=True).clamp_min(1e-12)
    result: NDArray[np.float32] = (grown / highest).numpy()
    return result


def overlay(images: Pixels, heat: NDArray[np.float32]) -> Pixels:
    """uint8 [N,H,W,3]: the images uint8 [N,H,W,C] in grey under colours, from blue for 0 to yellow for 1."""
    grey = images.mean(3).astype(np.uint8)[..., None].repeat(3, 3)
    levels = np.rint(heat.clip(0, 1) * 255).astype(np.uint8)
    colours = np.stack([cv2.applyColorMap(each, cv2.COLORMAP_CIVIDIS)[..., ::-1] for each in levels])
    return np.asarray(np.rint((1 - STRENGTH) * grey + STRENGTH * colours), np.uint8)


def _map(body: nn.Module, pixels: Tensor) -> Tensor:
    """float32 [N,h,w], not negative, at the size of the deepest features that still have a shape."""
    kept: list[Tensor] = []
    hooks = [
        stage.register_forward_hook(lambda module, given, features: kept.append(features))
        for stage in _stages(body)
    ]
    try:
        with torch.enable_grad():
            logits = body(pixels.requires_grad_())
            features = next((each for each in reversed(kept) if each.shape[3] >= SMALLEST), kept[0])
            (slopes,) = torch.autograd.grad(logits.amax(1).sum(), features)
    finally:
        for hook in hooks:
            hook.remove()
    weights = slopes.mean((2, 3), keepdim=True)
    return (weights * features.detach()).sum(1).relu()


def _stages(body: nn.Module) -> list[nn.Module]:
    """The stages from the stem on, by the names that all networks give them."""
    return [getattr(body, name) for name in ("layer1", "layer2", "layer3", "layer4") if hasattr(body, name)]


def _bodies(network: nn.Module) -> Iterator[nn.Module]:
    """The plain networks inside a vote and inside those that look at the mirror image too."""
    for member in network.members if isinstance(network, Vote) else (network,):
        yield member.network if isinstance(member, FlipTTA) else member
