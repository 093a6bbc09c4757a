"""Image files made for the tests of decoding."""

import io
import struct
import zlib

import cv2
import numpy as np
from PIL import Image

from nightshift.data.transforms import Pixels


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


def bits(values: list[int], depth: int) -> bytes:
    """Values of so many bits one after the other, the highest bit first, filled up to whole bytes."""
    text = "".join(format(value, f"0{depth}b") for value in values)
    return int(text.ljust(-(-len(text) // 8) * 8, "0"), 2).to_bytes(-(-len(text) // 8), "big")


def png(depth: int, colour: int, row: bytes, width: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG of one row, with further chunks before its pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, 1, depth, colour, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(b"\0" + row))
    more = b"".join(chunk(*each) for each in chunks)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + more + pixels + chunk(b"IEND", b"")


def tiff(
    depth: int,
    photometric: int,
    pixels: bytes,
    width: int,
    height: int = 1,
    order: str = "<",
    samples: int = 1,
    **more: tuple[str, list[int]],
) -> bytes:
    """A TIFF of one plain strip; `more` are tags such as t339=("H", [2])."""
    tags = {
        **{256: ("I", [width]), 257: ("I", [height]), 258: ("H", [depth] * samples), 259: ("H", [1])},
        **{262: ("H", [photometric]), 273: ("I", [8]), 277: ("H", [samples]), 278: ("I", [height])},
        279: ("I", [len(pixels)]),
        **{int(name[1:]): value for name, value in more.items()},
    }
    start = 8 + len(pixels) + len(pixels) % 2
    entries, beyond = b"", b""
    for tag, (kind, values) in sorted(tags.items()):
        raw = struct.pack(f"{order}{len(values)}{kind}", *values)
        at = struct.pack(order + "I", start + 6 + 12 * len(tags) + len(beyond))
        beyond += raw if len(raw) > 4 else b""
        code = {"B": 1, "H": 3, "I": 4}[kind]
        entries += struct.pack(order + "HHI", tag, code, len(values))
        entries += at if len(raw) > 4 else raw.ljust(4, b"\0")
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", start)
    directory = struct.pack(order + "H", len(tags)) + entries + bytes(4)
    return head + pixels.ljust(start - 8, b"\0") + directory + beyond


def bmp(depth: int, row: bytes, width: int, palette: bytes = b"", masks: bytes = b"") -> bytes:
    """A BMP of one row."""
    row = row.ljust(-(-len(row) // 4) * 4, b"\0")
    start = 54 + len(masks) + len(palette)
    sizes = (40, width, 1, 1, depth, 3 if masks else 0, len(row), 0, 0, len(palette) // 4, 0)
    head = b"BM" + struct.pack("<IHHI", start + len(row), 0, 0, start)
    return head + struct.pack("<IiiHHIIiiII", *sizes) + masks + palette + row
