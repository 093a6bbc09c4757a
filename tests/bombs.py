"""Small files that take much memory or time of a reader that believes them, made by formats' own rules."""

import struct
import zlib
from collections.abc import Callable

import cv2
import numpy as np


def exif(entries: int, size: int) -> bytes:
    """A TIFF directory in `size` bytes, each of whose entries claims all of them as its value."""
    claims = (struct.pack("<HHII", 1000 + entry, 1, size, 0) for entry in range(entries))
    body = b"II*\0" + struct.pack("<IH", 8, entries) + b"".join(claims) + bytes(4)
    return body + bytes(size - len(body))


def chunk(kind: bytes, body: bytes) -> bytes:
    """A part of a PNG."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, *chunks: bytes, depth: int = 8, colors: int = 2) -> bytes:
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colors, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(chunks) + chunk(b"IEND", b"")


def deep_png(side: int) -> bytes:
    """Black of 16 bits and four channels: eight bytes in memory for each pixel, next to none in the file."""
    rows = zlib.compress(bytes(side * (1 + 8 * side)), 9)
    return png(side, side, chunk(b"IDAT", rows), depth=16, colors=6)


def jpeg(before: bytes = b"", inside: bytes = b"", stray: bytes = b"") -> bytes:
    """A grey square with these bytes behind the start, in a segment of the header, and before the end."""
    plain = bytes(cv2.imencode(".jpg", np.zeros((16, 16, 3), np.uint8))[1])
    scan = plain.index(b"\xff\xda")
    segment = b"\xff\xec" + struct.pack(">H", 2 + len(inside)) + inside if inside else b""
    return plain[:2] + before + plain[2:scan] + segment + plain[scan:-2] + stray + plain[-2:]


def _exif_png(block: bytes) -> bytes:
    pixels = chunk(b"IDAT", zlib.compress(bytes(8 * 25)))
    return png(8, 8, chunk(b"eXIf", block), pixels)


def _exif_webp(block: bytes) -> bytes:
    plain = bytes(cv2.imencode(".webp", np.zeros((8, 8, 3), np.uint8), [cv2.IMWRITE_WEBP_QUALITY, 101])[1])
    extended = b"VP8X" + struct.pack("<IIHBHB", 10, 8, 7, 0, 7, 0)
    parts = extended + plain[12:] + b"EXIF" + struct.pack("<I", len(block)) + block
    return b"RIFF" + struct.pack("<I", 4 + len(parts)) + b"WEBP" + parts


def _exif_jpeg(block: bytes) -> bytes:
    body = b"Exif\0\0" + block[:60_000]
    return jpeg(b"\xff\xe1" + struct.pack(">H", 2 + len(body)) + body)


# Of each kind that carries EXIF blocks: the file with one. A TIFF is such a block itself.
CARRIERS: dict[str, Callable[[bytes], bytes]] = {
    "PNG": _exif_png,
    "WebP": _exif_webp,
    "JPEG": _exif_jpeg,
    "TIFF": bytes,
}


def empty_segments(segments: int, thumbnails: int) -> bytes:
    """A JPEG whose header has to be searched for thumbnails, since there are stray bytes before the end."""
    inside = b"\xff\xd8\xff" * thumbnails + b"\xff\xd9"
    return jpeg(b"\xff\xfe\0\2" * segments, inside, bytes(3))


def pages(number: int) -> bytes:
    """A TIFF of 800 kB and so many directories within each other, each of 65,535 entries."""
    entries = 12 * 0xFFFF
    body = bytearray(struct.pack("<2sHI", b"II", 42, 8).ljust(8 + 2 + entries + 4 * number + 4, b"\0"))
    for page in range(number):
        at = 8 + 4 * page
        struct.pack_into("<H", body, at, 0xFFFF)
        struct.pack_into("<I", body, at + 2 + entries, at + 4 if page + 1 < number else 0)
    return bytes(body)


def piled_strips(strips: int) -> bytes:
    """A TIFF in which each of many compressed strips is the whole of the same 16 kB."""
    strip = zlib.compress(bytes(2**24), 9)
    tags = {256: (4, 1, 16), 257: (4, 1, strips), 259: (3, 1, 8), 262: (3, 1, 1), 278: (4, 1, 1)}
    start = 8 + 2 + 12 * (len(tags) + 2) + 4
    tags |= {273: (4, strips, start + len(strip)), 279: (4, strips, start + len(strip) + 4 * strips)}
    entries = b"".join(struct.pack("<HHII", tag, *tags[tag]) for tag in sorted(tags))
    head = struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + entries + bytes(4)
    return head + strip + struct.pack("<I", start) * strips + struct.pack("<I", len(strip)) * strips
