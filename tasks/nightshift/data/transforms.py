"""What decoders give to upright 8-bit pixels, those to squares of one size, and what is done against noise.

Denoising and smoothing are off by default and come after the resize: the area filter has averaged much of a
camera's noise away by then, a strength means the same whatever the camera's resolution, and the work is that
of a small image.
"""

import math
from typing import Any, Final, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from nightshift.config import PreprocessSettings
from nightshift.data.formats import UnreadableError

Pixels = NDArray[np.uint8]
MARGIN: Final = 2
SOFTER: Final = 0.08  # pixels squared
SMOOTHING_RADIUS: Final = (
    10  # pixels; beyond it the recursive filter changes little at the sizes of a model's input
)


class Whole(NamedTuple):
    """The size of the file's image, in pixels, of which a scaled decoder gives 1/2, 1/4 or 1/8."""

    width: int
    height: int


def inner(pixels: Pixels, settings: PreprocessSettings) -> Pixels:
    """The centre of stored pixels, uint8 [side,side,C], that the model sees."""
    edge = (settings.side - settings.image_size) // 2
    middle = slice(edge, edge + settings.image_size)
    return np.ascontiguousarray(pixels[middle, middle])


def resize(image: Pixels, whole: Whole, side: int, how: str) -> Pixels:
    """uint8 [H,W,C] to [side,side,C]: `crop` the centre square, `letterbox` with black, or `stretch`.

    `image` is the whole or what scaled decoding made of it; both give the same, but for the decoder's own
    averaging: a crop begins where a pixel of either begins, at most half a pixel of the result off centre.
    """
    width, height = whole
    if how == "letterbox":
        longer = max(width, height)
        inner = _scale(
            image, whole, max(1, round(width * side / longer)), max(1, round(height * side / longer))
        )
        result = np.zeros((side, side, image.shape[2]), np.uint8)
        top, left = (side - inner.shape[0]) // 2, (side - inner.shape[1]) // 2
        result[top : top + inner.shape[0], left : left + inner.shape[1]] = inner
        return result
    if how == "crop":
        edge, step = min(width, height), scale_for(whole, side, how)
        left, top = ((length - edge) // 2 // step * step for length in whole)
        shrunk = -(-width // image.shape[1])
        rows = slice(top // shrunk, -(-(top + edge) // shrunk))
        columns = slice(left // shrunk, -(-(left + edge) // shrunk))
        image, whole = image[rows, columns], Whole(edge, edge)
    return _scale(image, whole, side, side)


def scale_for(whole: Whole, side: int, how: str) -> int:
    """8, 4, 2 or 1: by what a decoder may divide both sides and still give `resize` twice what it needs.

    Twice, because the decoder's filter is coarser than the resize that follows.
    """
    edge = max(whole) if how == "letterbox" else min(whole)
    return next((scale for scale in (8, 4, 2) if edge >= MARGIN * scale * side), 1)


def clean(image: Pixels, settings: PreprocessSettings) -> Pixels:
    """uint8 [H,W,3] denoised and smoothed as the settings say."""
    return smooth(denoise(image, settings.denoise, settings.denoise_strength), settings.smoothing)


def denoise(image: Pixels, method: str, strength: int) -> Pixels:
    """uint8 [H,W,3] without noise: `none`, `median`, `bilateral` or `nlmeans`, strength 1 to 10.

    Bilateral filter: Tomasi and Manduchi 1998. Non-local means: Buades, Coll and Morel, IPOL 2011, in the
    Lab colour space, with the windows that OpenCV recommends.
    """
    if method == "median":
        image = np.asarray(cv2.medianBlur(image, 2 * strength + 1), np.uint8)
    elif method == "bilateral":
        image = np.asarray(cv2.bilateralFilter(image, 5, 10 * strength, 2), np.uint8)
    elif method == "nlmeans":
        level = 3 * strength
        bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)  # the order that it takes to Lab
        cleaned = cv2.fastNlMeansDenoisingColored(bgr, None, level, level, 7, 21)
        image = np.asarray(cv2.cvtColor(cleaned, cv2.COLOR_BGR2RGB), np.uint8)
    return image


def smooth(image: Pixels, amount: float) -> Pixels:
    """uint8 [H,W,3] with even areas and sharp edges; 0 changes nothing.

    Recursive domain transform filter: Gastal and Oliveira, SIGGRAPH 2011.
    """
    if not amount:
        return image
    return np.asarray(cv2.edgePreservingFilter(image, None, cv2.RECURS_FILTER, SMOOTHING_RADIUS, amount))


def eight_bit(pixels: NDArray[Any], white: int | None = None) -> Pixels:
    """uint8 or uint16 to uint8, where `white` is the largest value; by default that of the type.

    Raises Unreadable for anything else.
    """
    scale = 1.0
    if white not in (None, 255 if pixels.dtype == np.uint8 else 65535):
        scale = 255 / white
    elif pixels.dtype == np.uint16:
        scale = 1 / 257  # 65535 / 257 is 255, rounded
    if scale != 1:  # OpenCV drops the axis of a single channel
        return np.asarray(cv2.convertScaleAbs(pixels, alpha=scale), np.uint8).reshape(pixels.shape)
    if pixels.dtype != np.uint8:
        raise UnreadableError(
            "unsupported", f"its pixels are {pixels.dtype}; only 8 and 16 bit whole numbers are read"
        )
    return pixels


def rgb(pixels: Pixels) -> Pixels:
    """OpenCV's uint8 grey, BGR or BGRA to RGB on black; raises Unreadable for other channels."""
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    if channels not in (1, 3, 4):
        raise UnreadableError("unsupported", f"it has {channels} channels; only grey, RGB and RGBA are read")
    code = {1: cv2.COLOR_GRAY2RGB, 3: cv2.COLOR_BGR2RGB, 4: cv2.COLOR_BGRA2RGB}[channels]
    colours = cv2.cvtColor(pixels, code)
    if channels == 4:
        opacity = cv2.cvtColor(np.ascontiguousarray(pixels[:, :, 3]), cv2.COLOR_GRAY2RGB)
        colours = cv2.multiply(colours, opacity, scale=1 / 255)
    return np.asarray(colours, np.uint8)


def channelled(pixels: Pixels, channels: int) -> Pixels:
    """uint8 [H,W,C] with the channels asked for: colours and grey become each other, all else must fit.

    Raises Unreadable.
    """
    has = pixels.shape[2]
    if has == channels:
        return pixels
    if {has, channels} != {1, 3}:
        raise UnreadableError(
            "channels",
            f"it has {has} channels, preprocess.channels is {channels}; only grey and RGB become each other",
        )
    code = cv2.COLOR_RGB2GRAY if channels == 1 else cv2.COLOR_GRAY2RGB
    return with_axis(cv2.cvtColor(pixels, code))


def with_axis(image: NDArray[Any]) -> Pixels:
    """[H,W] or [H,W,C] as [H,W,C]: OpenCV drops the axis of a single channel."""
    return np.asarray(image if image.ndim == 3 else image[..., None], np.uint8)


def upright(image: Pixels, orientation: int) -> Pixels:
    """Undo the EXIF orientation (1 to 8): transpose first, then mirror what has to be mirrored."""
    if orientation in (5, 6, 7, 8):
        image = with_axis(cv2.transpose(image))
    flip_tta = {2: 1, 3: -1, 4: 0, 6: 1, 7: -1, 8: 0}.get(orientation)  # 1: left and right, 0: up and down
    return image if flip_tta is None else with_axis(cv2.flip(image, flip_tta))


def _scale(image: Pixels, whole: Whole, width: int, height: int) -> Pixels:
    """Halve what is twice as large as needed or more, then low-pass and interpolate linearly.

    In whole numbers only, so that every processor gives the same pixels. The last pixels of a scaled image
    may lie partly outside the whole: its true size, not the number of its pixels, decides the ratio.
    """
    if image.shape[2] not in (1, 3, 4):  # of which OpenCV averages areas otherwise, or not at all
        planes = [image[..., channel, None] for channel in range(image.shape[2])]
        return np.concatenate([_scale(plane, whole, width, height) for plane in planes], axis=2)
    shrunk = -(-whole.width // image.shape[1])
    x, y = whole.width / shrunk / width, whole.height / shrunk / height  # pixels for one of the result
    while x >= 2 or y >= 2:
        image = _halved(image, 1 + (x >= 2), 1 + (y >= 2))
        x, y = (ratio / 2 if ratio >= 2 else ratio for ratio in (x, y))
    if (x, y) != (1, 1):
        image = _interpolated(image, x, y)[:height, :width]
    return np.ascontiguousarray(image)


def _halved(image: Pixels, x: int, y: int) -> Pixels:
    """Means of `x` times `y` pixels, each 1 or 2; the last of an odd number counts twice."""
    height, width = (-(-image.shape[0] // y), -(-image.shape[1] // x))
    below, right = height * y - image.shape[0], width * x - image.shape[1]
    if below or right:
        image = with_axis(cv2.copyMakeBorder(image, 0, below, 0, right, cv2.BORDER_REPLICATE))
    return with_axis(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA))


def _interpolated(image: Pixels, x: float, y: float) -> Pixels:
    """Shrink by `x` and `y`, each below 2, after a Gaussian low-pass along what shrinks; below 1 grows.

    A box as wide as a pixel of the result has the variance x^2 / 12. With a little more, less is left of what
    is too fine for the result than after OpenCV's area filter, in half of its time.
    """
    spread = [math.sqrt(ratio**2 / 12 + SOFTER) for ratio in (x, y)]
    taps = (3 if x > 1 else 1, 3 if y > 1 else 1)
    if max(taps) > 1:
        image = cv2.GaussianBlur(image, taps, spread[0], sigmaY=spread[1], borderType=cv2.BORDER_REPLICATE)
    return with_axis(cv2.resize(image, None, fx=1 / x, fy=1 / y, interpolation=cv2.INTER_LINEAR_EXACT))
