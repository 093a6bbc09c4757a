"""Image files made for the tests of decoding."""

import io
import struct

import cv2
import numpy as np
from PIL import Image

from tasks.transforms import Pixels


def encoded(extension: str, rgb: np.ndarray) -> bytes:
    """An image file made by OpenCV from RGB(A) or grey values."""
    order = rgb if rgb.ndim == 2 else rgb[..., [2, 1, 0, *range(3, rgb.shape[2])]]
    return bytes(cv2.imencode(extension, np.ascontiguousarray(order))[1])


def plain(colour: tuple[int, ...], dtype: type = np.uint8, height: int = 20, width: int = 30) -> np.ndarray:
    return np.full((height, width, len(colour)), colour, dtype)


def noise(height: int = 40, width: int = 60) -> Pixels:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def with_orientation(jpeg: bytes, orientation: int) -> bytes:
    """The JPEG with an EXIF block that holds only the orientation."""
    tiff = struct.pack(">2sHIHHHIHHI", b"MM", 42, 8, 1, 0x112, 3, 1, orientation, 0, 0)
    exif = b"Exif\0\0" + tiff
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + jpeg[2:]


def saved(image: Image.Image, format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()
