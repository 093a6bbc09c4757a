"""Images as bad cameras, weather and careless copies leave them: 15 families at 5 severities.

The families are those of Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common
Corruptions and Perturbations", ICLR 2019 (CIFAR-10-C, ImageNet-C). The code, the amounts and the textures are
our own, so figures compare with each other and not with those of published sets. Lengths grow with the
side of the image, noise with a power of it, since on a larger image a network averages over more pixels.

What an image becomes follows from its pixels, the family, the severity and the seed alone.
"""

import math
import zlib
from collections.abc import Callable
from typing import Any, Final

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from nightshift.data.transforms import with_axis
from nightshift.errors import InputError

Pixels = NDArray[np.uint8]
Image = NDArray[np.float32]  # [H,W,C], 0 to 1
SEVERITIES: Final = (1, 2, 3, 4, 5)
USUAL_SIDE: Final = 32  # pixels, for which the amounts below stand


def corrupt(images: Pixels, family: str, severity: int, seed: int) -> Pixels:
    """uint8 [N,H,W,C] to the same. Raises InputError for a family or severity that there is not."""
    if family not in FAMILIES or severity not in SEVERITIES:
        raise InputError(
            f"corruption {family!r} of severity {severity} is unknown; families are {', '.join(FAMILIES)}, "
            "severities 1 to 5"
        )
    change = FAMILIES[family]
    result = np.empty_like(images)
    for place, image in enumerate(images):
        generator = np.random.default_rng([seed, zlib.crc32(image.tobytes())])
        changed = change(image.astype(np.float32) / 255, severity - 1, generator)
        result[place] = np.rint(changed.clip(0, 1) * 255)
    return result


def gaussian_noise(image: Image, level: int, generator: Generator) -> Image:
    spread = (0.04, 0.06, 0.08, 0.1, 0.13)[level] * _noisier(image)
    return image + spread * generator.standard_normal(image.shape, np.float32)


def shot_noise(image: Image, level: int, generator: Generator) -> Image:
    """That of counting photons, so many for a white pixel."""
    photons = (500, 250, 125, 75, 45)[level] / _noisier(image) ** 2
    return (generator.poisson(image * photons) / photons).astype(np.float32)


def impulse_noise(image: Image, level: int, generator: Generator) -> Image:
    """Some values become black or white."""
    share = (0.01, 0.02, 0.035, 0.055, 0.08)[level] * _noisier(image)
    drawn = generator.random(image.shape, np.float32)
    return np.where(drawn < share / 2, 0, np.where(drawn < share, 1, image)).astype(np.float32)


def defocus_blur(image: Image, level: int, generator: Generator) -> Image:
    # Of a disk of half a pixel nothing is seen.
    radius = 0.5 + (0.1, 0.3, 0.5, 0.8, 1.2)[level] * _scale(image)
    reach = math.ceil(radius + 0.5)
    axis = np.arange(-reach, reach + 1, dtype=np.float32)
    distance = np.hypot(axis[:, None], axis[None, :])
    return _filtered(image, (radius + 0.5 - distance).clip(0, 1))


def glass_blur(image: Image, level: int, generator: Generator) -> Image:
    """Some pixels are seen at a place nearby."""
    reach = (0.6, 0.8, 1.0, 1.2, 1.4)[level] * _scale(image)
    share = (0.2, 0.35, 0.5, 0.65, 0.8)[level]
    moved = generator.random(image.shape[:2]) < share
    offsets = generator.uniform(-1, 1, (2, *image.shape[:2])) * moved * (reach + 0.5)
    return _remapped(image, np.rint(offsets[0]), np.rint(offsets[1]))


def motion_blur(image: Image, level: int, generator: Generator) -> Image:
    length = (2.0, 2.8, 3.6, 4.6, 6.0)[level] * _scale(image)
    return _filtered(image, _line(length, generator.uniform(0, math.pi)))


def zoom_blur(image: Image, level: int, generator: Generator) -> Image:
    """The mean of what is seen while zooming in."""
    most = (1.08, 1.13, 1.18, 1.24, 1.31)[level]
    height, width = image.shape[:2]
    y, x = np.mgrid[:height, :width].astype(np.float32)
    zoomed = [
        _remapped(image, (x - width / 2) * (1 / factor - 1), (y - height / 2) * (1 / factor - 1))
        for factor in np.linspace(1, most, 7)
    ]
    return np.asarray(np.mean(zoomed, axis=0), np.float32)


def snow(image: Image, level: int, generator: Generator) -> Image:
    """Flakes that fall aslant, on a paler picture."""
    amount = (0.12, 0.2, 0.28, 0.36, 0.46)[level]
    height, width = image.shape[:2]
    size = max(1, round(_scale(image)))
    grain = generator.standard_normal((-(-height // size), -(-width // size), 1)).astype(np.float32)
    flakes = (_resized(grain, width, height) - 1.2).clip(0, 1)
    kernel = _line(3 * _scale(image), generator.uniform(math.pi / 4, 3 * math.pi / 4))
    pale = (1 - amount / 2) * image + amount / 2 * np.maximum(image, 0.8)
    return np.asarray(pale + 3 * amount * _filtered(flakes, kernel), np.float32)


def frost(image: Image, level: int, generator: Generator) -> Image:
    """Crystals of ice: the ridges of a cloudy texture."""
    amount = (0.2, 0.3, 0.38, 0.46, 0.55)[level]
    ridges = (1 - np.abs(2 * _cloud(image.shape[:2], generator, 1.0) - 1)) ** 3
    ice = amount * (0.35 + 0.65 * ridges)
    return np.asarray(image * (1 - ice) + 0.95 * ice, np.float32)


def fog(image: Image, level: int, generator: Generator) -> Image:
    thickness = (0.25, 0.45, 0.7, 1.0, 1.4)[level]
    cloud = _cloud(image.shape[:2], generator, 0.5)
    return np.asarray((image + thickness * cloud) / (1 + thickness), np.float32)


def brightness(image: Image, level: int, generator: Generator) -> Image:
    return image + np.float32((0.06, 0.12, 0.18, 0.25, 0.33)[level])


def contrast(image: Image, level: int, generator: Generator) -> Image:
    kept = (0.75, 0.6, 0.45, 0.32, 0.2)[level]
    mean = image.mean(axis=(0, 1), keepdims=True)
    return np.asarray((image - mean) * kept + mean, np.float32)


def elastic_transform(image: Image, level: int, generator: Generator) -> Image:
    """Shifts that change smoothly over the image (Simard, Steinkraus and Platt 2003)."""
    amount = (0.5, 0.75, 1.0, 1.3, 1.7)[level] * _scale(image)
    shifts = [
        cv2.GaussianBlur(
            generator.uniform(-1, 1, image.shape[:2]).astype(np.float32), (0, 0), 2 * _scale(image)
        )
        for _ in range(2)
    ]
    x, y = (shift * (amount / max(1e-6, float(shift.std()))) for shift in shifts)
    return _remapped(image, x, y)


def pixelate(image: Image, level: int, generator: Generator) -> Image:
    kept = (0.72, 0.6, 0.53, 0.42, 0.33)[level]
    height, width = image.shape[:2]
    small = _resized(image, max(1, round(width * kept)), max(1, round(height * kept)), cv2.INTER_AREA)
    return _resized(small, width, height, cv2.INTER_NEAREST)


def jpeg_compression(image: Image, level: int, generator: Generator) -> Image:
    quality = [cv2.IMWRITE_JPEG_QUALITY, (75, 55, 40, 28, 18)[level]]
    pixels = np.rint(image * 255).astype(np.uint8)
    planes = [pixels] if pixels.shape[2] == 3 else [plane[..., None] for plane in np.moveaxis(pixels, 2, 0)]
    coded = [cv2.imencode(".jpg", plane, quality)[1] for plane in planes]
    decoded = [with_axis(np.asarray(cv2.imdecode(data, cv2.IMREAD_UNCHANGED))) for data in coded]
    return np.asarray(np.concatenate(decoded, axis=2) / 255, np.float32)


FAMILIES: Final[dict[str, Callable[[Image, int, Generator], Image]]] = {
    change.__name__: change
    for change in (
        *(gaussian_noise, shot_noise, impulse_noise),
        *(defocus_blur, glass_blur, motion_blur, zoom_blur),
        *(snow, frost, fog, brightness, contrast),
        *(elastic_transform, pixelate, jpeg_compression),
    )
}


def _scale(image: Image) -> float:
    """A factor on lengths; on the smallest images a length would be less than a pixel."""
    return max(0.5, float(min(image.shape[:2])) / USUAL_SIDE)


def _noisier(image: Image) -> float:
    return math.pow(_scale(image), 0.4)


def _line(length: float, angle: float) -> Image:
    """A kernel float32 [k,k] that smears along a line."""
    reach = max(1, math.ceil(length / 2))
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1), np.float32)
    for place in np.linspace(-length / 2, length / 2, 8 * reach + 1):
        x, y = reach + place * math.cos(angle), reach + place * math.sin(angle)
        left, top = min(int(x), 2 * reach - 1), min(int(y), 2 * reach - 1)
        right, below = x - left, y - top
        kernel[top : top + 2, left : left + 2] += np.outer([1 - below, below], [1 - right, right])
    return kernel


def _cloud(shape: tuple[int, ...], generator: Generator, roughness: float) -> Image:
    """float32 [H,W,1] from 0 to 1: noise of several sizes, the finer ones weaker."""
    height, width = shape
    total = np.zeros((height, width, 1), np.float32)
    cells, weight = 2, 1.0
    while cells <= max(height, width):
        total += weight * _resized(
            generator.random((cells, cells, 1), np.float32), width, height, cv2.INTER_CUBIC
        )
        cells, weight = cells * 2, weight * (0.5 + 0.3 * roughness)
    low, high = float(total.min()), float(total.max())
    return np.asarray((total - low) / max(1e-6, high - low), np.float32)


def _filtered(image: Image, kernel: Image) -> Image:
    result = cv2.filter2D(image, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REFLECT)
    return np.asarray(result, np.float32).reshape(image.shape)


def _remapped(image: Image, right: NDArray[Any], down: NDArray[Any]) -> Image:
    """Each pixel taken from so many pixels to the right and down, float [H,W]; mirrored at the border."""
    y, x = np.mgrid[: image.shape[0], : image.shape[1]]
    places = (x + right).astype(np.float32), (y + down).astype(np.float32)
    planes = [
        cv2.remap(
            np.ascontiguousarray(image[..., channel]),
            *places,
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REFLECT,
        )
        for channel in range(image.shape[2])
    ]
    return np.stack(planes, axis=2)


def _resized(image: Image, width: int, height: int, how: int = cv2.INTER_LINEAR) -> Image:
    planes = [
        cv2.resize(np.ascontiguousarray(image[..., channel]), (width, height), interpolation=how)
        for channel in range(image.shape[2])
    ]
    return np.stack(planes, axis=2)
