"""The random changes that training images go through: a batch at a time, on the device that trains.

Everything is drawn from one generator, so the same seed gives the same images on the CPU.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional
from torchvision.transforms import v2

from nightshift.config import TrainSettings
from nightshift.data.dataset import scaled
from nightshift.errors import InputError

GROUPS: Final = 8  # of a batch that RandAugment and TrivialAugment treat alike
BLUR_KERNEL: Final = 9  # pixels: twice the largest deviation to either side
GROWING: Final = 2 / 3  # of the epochs
SMALLEST: Final = 8  # pixels
STEP: Final = 4  # pixels by which sides grow, so that few shapes are computed


def augment(images: Tensor, settings: TrainSettings, side: int, generator: torch.Generator) -> Tensor:
    """Change uint8 [B,H,W,C] at random; float32 [B,C,side,side] from 0 to 1, channels last.

    The cut takes any window of the image widened by `crop_padding` black pixels on each side, so stored
    images larger than `side` are cut at random and images of that side are shifted.
    """
    images = _shift(images, side, settings.crop_padding, generator)
    if settings.flip:
        flip_tta = torch.rand(len(images), generator=generator, device=images.device) < 0.5
        images = torch.where(flip_tta[:, None, None, None], images.flip(2), images)
    if settings.auto_augment != "none":
        images = _auto(images, settings.auto_augment, generator)
    pixels = scaled(images)
    if settings.rotation:
        pixels = _rotate(pixels, settings.rotation, generator)
    if settings.jitter:
        pixels = _jitter(pixels, settings.jitter, generator)
    if settings.blur:
        pixels = _blur(pixels, settings.blur, generator)
    if settings.noise or settings.salt_pepper:
        pixels = _noise(pixels, settings.noise, settings.salt_pepper, generator)
    if settings.cutout:
        pixels = _cutout(pixels, settings.cutout, generator)
    return pixels.contiguous(memory_format=torch.channels_last)


def side_in(epoch: int, settings: TrainSettings, side: int) -> int:
    """Side in pixels on which an epoch (from 1) trains: it grows over the first two thirds of them.

    Progressive resizing, as in fast.ai's entry to DAWNBench, 2018.
    """
    grown = min(1.0, (epoch - 1) / max(1, round(settings.epochs * GROWING)))
    share = settings.progressive_resize_start + (1 - settings.progressive_resize_start) * grown
    return min(side, max(SMALLEST, round(side * share / STEP) * STEP))


def shrunk(pixels: Tensor, side: int) -> Tensor:
    """float32 [B,C,H,H] as [B,C,side,side], anti-aliased."""
    if pixels.shape[2] == side:
        return pixels
    small = functional.interpolate(pixels, (side, side), mode="bilinear", antialias=True)
    return small.contiguous(memory_format=torch.channels_last)


def mix(
    pixels: Tensor, labels: Tensor, classes: int, settings: TrainSettings, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Blend the images of a batch, and their labels with them, as mixup or CutMix do; with both, each has
    half of the batches.

    Labels int64 [B] become shares of the classes, float32 [B,K]; without mixing nothing changes. Mixup: Zhang
    et al., ICLR 2018. CutMix: Yun et al., ICCV 2019.
    """
    mixers = [
        kind(alpha=alpha, num_classes=classes)
        for kind, alpha in ((v2.MixUp, settings.mixup), (v2.CutMix, settings.cutmix))
        if alpha
    ]
    if not mixers:
        return pixels, labels
    with _seeded(generator):
        mixer = mixers[int(torch.randint(len(mixers), ()))]
        mixed, shares = mixer(pixels, labels)
    return mixed.contiguous(memory_format=torch.channels_last), shares


@contextmanager
def _seeded(generator: torch.Generator) -> Iterator[None]:
    """torchvision draws from torch's own state, which follows the generator here and is restored after."""
    seed = int(torch.randint(2**31, (), generator=generator, device=generator.device))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def _auto(images: Tensor, kind: str, generator: torch.Generator) -> Tensor:
    """uint8 [B,H,W,3] after one or two random operations, the same within each of GROUPS parts of the batch.

    RandAugment: Cubuk et al., 2020. TrivialAugment: Müller and Hutter, ICCV 2021.
    """
    if images.shape[3] not in (1, 3):
        raise InputError(
            f"train.auto_augment {kind!r} is for images of 1 or 3 channels, got {images.shape[3]}; set it to "
            "'none'"
        )
    change = v2.RandAugment() if kind == "randaugment" else v2.TrivialAugmentWide()
    with _seeded(generator):
        parts = [change(part) for part in images.permute(0, 3, 1, 2).tensor_split(min(GROUPS, len(images)))]
    return torch.cat(parts).permute(0, 2, 3, 1)


def _jitter(pixels: Tensor, amount: float, generator: torch.Generator) -> Tensor:
    """Other brightness, contrast and saturation for each of [B,C,H,W], by up to `amount` either way."""
    drawn = torch.rand((3, len(pixels), 1, 1, 1), generator=generator, device=pixels.device)
    brightness, contrast, saturation = 1 + amount * (2 * drawn - 1)
    pixels = pixels * brightness
    pixels = torch.lerp(pixels.mean((1, 2, 3), keepdim=True), pixels, contrast)
    return torch.lerp(pixels.mean(1, keepdim=True), pixels, saturation).clamp(0, 1)


def _blur(pixels: Tensor, most: float, generator: torch.Generator) -> Tensor:
    """Half of the batch through a Gaussian of up to `most` pixels."""
    sigma = 0.1 + float(torch.rand((), generator=generator, device=pixels.device)) * most
    chosen = torch.rand(len(pixels), generator=generator, device=pixels.device) < 0.5
    blurred = v2.functional.gaussian_blur(pixels, [BLUR_KERNEL, BLUR_KERNEL], [sigma, sigma])
    return torch.where(chosen[:, None, None, None], blurred, pixels)


def _noise(pixels: Tensor, deviation: float, share: float, generator: torch.Generator) -> Tensor:
    """Gaussian noise of up to `deviation`, and up to a `share` of pixels black or white, by image."""
    first = (len(pixels), 1, 1, 1)
    strength = torch.rand(first, generator=generator, device=pixels.device)
    drawn = torch.randn(pixels.shape, generator=generator, device=pixels.device)
    pixels = (pixels + drawn * deviation * strength).clamp(0, 1)
    spots = torch.rand((len(pixels), 1, *pixels.shape[2:]), generator=generator, device=pixels.device)
    half = share * strength / 2
    return torch.where(spots < half, 0.0, torch.where(spots > 1 - half, 1.0, pixels))


def _cutout(pixels: Tensor, side: int, generator: torch.Generator) -> Tensor:
    """A black square anywhere in each of [B,C,H,W], partly outside too: DeVries and Taylor, 2017."""
    height, width = pixels.shape[2:]
    drawn = torch.rand((2, len(pixels), 1), generator=generator, device=pixels.device)
    rows = (torch.arange(height, device=pixels.device) - (drawn[0] * height).floor()).abs() * 2 <= side - 1
    columns = (torch.arange(width, device=pixels.device) - (drawn[1] * width).floor()).abs() * 2 <= side - 1
    return pixels.masked_fill((rows[:, :, None] & columns[:, None, :])[:, None], 0.0)


def _shift(images: Tensor, side: int, padding: int, generator: torch.Generator) -> Tensor:
    """For each of [B,H,W,C] one random window of `side`, black where it leaves the image."""
    count, device = len(images), images.device
    room = images.shape[1] + 2 * padding - side
    if room == 0:
        return images
    if padding:
        images = functional.pad(images, (0, 0, padding, padding, padding, padding))
    corner = torch.randint(room + 1, (2, count, 1), generator=generator, device=device)
    rows, columns = corner + torch.arange(side, device=device)
    return images[torch.arange(count, device=device)[:, None, None], rows[:, :, None], columns[:, None, :]]


def _rotate(pixels: Tensor, degrees: float, generator: torch.Generator) -> Tensor:
    """Turn each of [B,C,H,W] about its centre by up to `degrees` either way, bilinear, black outside."""
    turn = torch.rand(len(pixels), generator=generator, device=pixels.device) * 2 - 1
    angle = torch.deg2rad(turn * degrees)
    cosine, sine, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    theta = torch.stack((cosine, -sine, zero, sine, cosine, zero), 1).view(-1, 2, 3)
    grid = functional.affine_grid(theta, list(pixels.shape), align_corners=False)
    return functional.grid_sample(pixels, grid, padding_mode="zeros", align_corners=False)
