"""A few numbers about an image by which duplicates and drift are found without reading pixels again."""

from typing import Final, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

THUMBNAIL: Final = 16  # side in pixels
HASHED: Final = 32  # side of the image that the hash is taken from


class Features(NamedTuple):
    brightness: float  # mean luma, 0 to 1
    contrast: float  # standard deviation of the luma, 0 to 0.5
    sharpness: float  # variance of the luma's Laplacian, in grey levels of 0 to 255 squared
    phash: int  # 64 bits
    thumbnail: bytes  # luma, uint8 [16,16], row by row


def features(pixels: NDArray[np.uint8]) -> Features:
    """Of uint8 [H,W,C]: RGB, grey, or other channels. Equal pixels give equal features on every machine.

    Luma is that of BT.601, of other channels their mean. The Laplacian's variance as a measure of focus:
    Pech-Pacheco et al., ICPR 2000.
    """
    luma = _luma(pixels)
    mean, deviation = (float(value[0, 0]) for value in cv2.meanStdDev(luma))
    edges = cv2.Laplacian(luma, cv2.CV_16S)
    spread = cv2.norm(edges, cv2.NORM_L2SQR) / edges.size - (cv2.sumElems(edges)[0] / edges.size) ** 2
    small = cv2.resize(luma, (HASHED, HASHED), interpolation=cv2.INTER_AREA)
    thumbnail = cv2.resize(small, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA)
    return Features(mean / 255, deviation / 255, spread, _phash(small), thumbnail.tobytes())


def _luma(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """uint8 [H,W] of uint8 [H,W,C]."""
    if pixels.shape[2] == 3:
        return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), np.uint8)
    # Channels are at most 32, so their sum fits; the division rounds down in whole numbers.
    return np.asarray(pixels.sum(2, dtype=np.uint16) // pixels.shape[2], np.uint8)


def _phash(luma: NDArray[np.uint8]) -> int:
    """64 bits, most significant first: which low frequencies of uint8 [32,32] are above their median.

    The DCT hash of Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions", 2010: the
    8 x 8 lowest frequencies without the constant row and column. Images that look alike differ in a few bits.
    """
    frequencies = (_WAVES @ luma.astype(np.int64) @ _WAVES.T).ravel()
    middle = np.sort(frequencies)[31:33].sum()
    return int.from_bytes(np.packbits(2 * frequencies > middle).tobytes())


# Rows 1 to 8 of the DCT-II in whole numbers, so that no rounding of a processor's own decides a bit.
_WAVES: Final = np.rint(
    4096 * np.cos(np.pi / HASHED * np.outer(np.arange(1, 9), np.arange(HASHED) + 0.5))
).astype(np.int64)
