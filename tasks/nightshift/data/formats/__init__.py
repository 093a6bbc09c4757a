"""Image files by their headers: format, size, frames, orientation, and whether the end of the file is there.

Nothing is decoded here, so a file that claims to be huge costs nothing, and no file name is trusted: the
first bytes decide. Sources: ITU-T T.81 (JPEG), PNG 3rd edition, RIFF WebP container, GIF89a, TIFF 6.0,
netpbm, ITU-T T.800 (JPEG 2000), ISO 23008-12 (AVIF, HEIC), NEP 1 (.npy), DICOM PS3.10.
"""

import re
import struct
from collections.abc import Callable
from typing import Final

from nightshift.data.formats import dicom, foreign, jpeg, netpbm, npy, tiff
from nightshift.data.formats.header import Header, UnreadableError, check_parts
from nightshift.data.formats.tiff import orientation

__all__ = ["Header", "UnreadableError", "inspect"]


def inspect(data: bytes) -> Header:
    """What the header says; raises Unreadable when it is none of ours."""
    if not data:
        raise UnreadableError("empty", "the file has no bytes")
    for magic, reader in _READERS:
        if magic.match(data):
            try:
                return reader(data)
            except (struct.error, IndexError) as error:
                raise UnreadableError(
                    "truncated", f"the header ends early after {len(data)} bytes"
                ) from error
    if what := foreign.named(data):
        raise UnreadableError("unsupported", what)
    raise UnreadableError(
        "not-an-image",
        f"it begins with {data[:8]!r}, which is no JPEG, PNG, WebP, BMP, GIF, TIFF, PPM, JPEG 2000, "
        "AVIF, HEIC, DICOM or .npy array",
    )


def _png(data: bytes) -> Header:
    width, height = struct.unpack_from(">II", data, 16)
    at, kind, frames, turned, parts = 8, b"", 1, 1, 0
    while kind != b"IEND" and at + 12 <= len(data):
        check_parts("PNG", parts := parts + 1)
        length, kind = struct.unpack_from(">I4s", data, at)
        if kind == b"acTL":
            frames = max(1, struct.unpack_from(">I", data, at + 8)[0])
        elif kind == b"eXIf":
            turned = orientation(data[at + 8 : at + 8 + length])
        at += 12 + length
    return Header("PNG", width, height, kind == b"IEND" and at <= len(data), frames, turned)


def _webp(data: bytes) -> Header:
    end = 8 + int(struct.unpack_from("<I", data, 4)[0])
    kind = data[12:16]
    if kind == b"VP8X":
        low_w, high_w, low_h, high_h = struct.unpack_from("<HBHB", data, 24)
        width, height = 1 + low_w + (high_w << 16), 1 + low_h + (high_h << 16)
    elif kind == b"VP8L":
        bits = struct.unpack_from("<I", data, 21)[0]
        width, height = 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    else:
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", data, 26))
    frames, turned, at, parts = 0, 1, 12, 0
    while kind == b"VP8X" and at + 8 <= min(end, len(data)):
        check_parts("WebP", parts := parts + 1)
        name, length = struct.unpack_from("<4sI", data, at)
        frames += name == b"ANMF"
        if name == b"EXIF":
            turned = orientation(data[at + 8 : at + 8 + length])
        at += 8 + length + length % 2
    return Header("WebP", width, height, end <= len(data), max(1, frames), turned)


def _bmp(data: bytes) -> Header:
    start, size = struct.unpack_from("<II", data, 10)
    if size == 12:
        width, height, _, depth = struct.unpack_from("<HHHH", data, 18)
        packed = 0
    else:
        width, height, _, depth, packed = struct.unpack_from("<iiHHI", data, 18)
    height = abs(height)  # negative: the rows are stored top down
    rows = (max(width, 0) * depth + 31) // 32 * 4 * height
    run_lengths = packed in (1, 2)
    return Header("BMP", width, height, run_lengths or start + rows <= len(data))


def _gif(data: bytes) -> Header:
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    at, frames, parts = 13 + _gif_palette(flags), 0, 0
    try:
        while data[at] in (0x21, 0x2C):  # an extension, an image
            check_parts("GIF", parts := parts + 1)
            image = data[at] == 0x2C
            at += 11 + _gif_palette(data[at + 9]) if image else 2
            while length := data[at]:  # pieces of 255 bytes, as a rule
                at += 1 + length
            at += 1
            frames += image
    except IndexError:
        pass  # the first image counts; the trailer and what follows it may be missing
    return Header("GIF", width, height, frames > 0, max(1, frames))


def _gif_palette(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _jpeg_2000(data: bytes) -> Header:
    start = data.find(b"\xff\x4f\xff\x51")  # the codestream's own size counts, not the container's
    if start < 0:
        raise UnreadableError("damaged", "JPEG 2000 has no codestream")
    right, bottom, left, top = struct.unpack_from(">IIII", data, start + 8)
    return Header("JPEG 2000", right - left, bottom - top, data.find(b"\xff\xd9", start) >= 0)


def _avif(data: bytes) -> Header:
    return _boxes(data, "AVIF")


def _heic(data: bytes) -> Header:
    return _boxes(data, "HEIC")


def _boxes(data: bytes, name: str) -> Header:
    """An image in ISO's boxes, by whatever it is coded."""
    sizes = [struct.unpack_from(">II", data, found.end() + 4) for found in re.finditer(b"ispe", data[:65536])]
    if not sizes:
        raise UnreadableError("damaged", f"{name} has no size")
    width, height = max(sizes, key=lambda size: size[0] * size[1])  # smaller ones are tiles and thumbnails
    at, complete, parts = 0, False, 0
    while at + 16 <= len(data):
        check_parts(name, parts := parts + 1)
        size, kind, long_size = struct.unpack_from(">I4sQ", data, at)
        end = at + (long_size if size == 1 else size or len(data) - at)
        if kind == b"mdat":
            complete = end <= len(data)
        if end < at + 8:
            break
        at = end
    return Header(name, width, height, complete, 2 if data[8:12] in SEQUENCES else 1)


SEQUENCES: Final = (b"avis", b"hevc", b"hevx", b"msf1")
_READERS: Final[tuple[tuple[re.Pattern[bytes], Callable[[bytes], Header]], ...]] = (
    (re.compile(rb"\xff\xd8\xff"), jpeg.header),
    (re.compile(rb"\x89PNG\r\n\x1a\n"), _png),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), _webp),
    (re.compile(rb"BM.{4}\0\0\0\0", re.DOTALL), _bmp),
    (re.compile(rb"GIF8[79]a"), _gif),
    (re.compile(rb"II\*\0|MM\0\*"), tiff.header),
    (re.compile(rb"P[1-6][\s#]"), netpbm.header),
    (re.compile(rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51"), _jpeg_2000),
    (re.compile(rb"\x93NUMPY"), npy.header),
    (re.compile(rb"....ftyp(?:avi[fs]|mi[fa][1f].{4}(?:.{4}){0,16}?avif)", re.DOTALL), _avif),
    (re.compile(rb"....ftyp(?:he[iv][cxms]|mif1|msf1)", re.DOTALL), _heic),
    (re.compile(rb".{128}DICM", re.DOTALL), dicom.header),
)
