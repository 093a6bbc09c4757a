"""Bytes to pixels: check, decode, orient, resize. The same code makes training shards and serves predictions.

Everything becomes 8-bit RGB: grey is repeated, palettes are looked up, 16 bits are divided by 257, and
transparency is composited on black (the colour of letterbox bars, and of what lies under most transparent
pixels). Of an animation, the first frame counts. Header and end of the file are checked before OpenCV sees
them, because OpenCV may return half an image without a word. Damage in the middle of the pixels of a JPEG or
a TIFF is not found here: their decoders fill the gap.
"""

import functools
import re
import struct
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from tasks.config import PreprocessSettings
from tasks.errors import InputError

Pixels = NDArray[np.uint8]
MAX_SIDE: Final = 65_500  # libjpeg's limit; beyond it OpenCV's resize overflows too


class Unreadable(InputError):  # noqa: N818
    """A file that does not become an image. `reason` is a code to count by, `detail` a sentence to read.

    Reasons: `empty`, `not-an-image`, `unsupported`, `too-large`, `truncated`, `damaged`.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail

    def __reduce__(self) -> tuple[type["Unreadable"], tuple[str, str]]:
        return type(self), (self.reason, self.detail)  # so that it survives a process boundary


class Header(NamedTuple):
    format: str
    width: int
    height: int
    complete: bool  # the end of the file is where the format says


def prepare(data: bytes, settings: PreprocessSettings) -> Pixels:
    """An image file as the model takes it, uint8 [image_size,image_size,3] RGB: the centre of `stored`.

    Raises Unreadable.
    """
    pixels = stored(data, settings)
    edge = (settings.side - settings.image_size) // 2
    inner = slice(edge, edge + settings.image_size)
    return np.ascontiguousarray(pixels[inner, inner])


def stored(data: bytes, settings: PreprocessSettings) -> Pixels:
    """An image file as a shard keeps it, uint8 [side,side,3] RGB. Raises Unreadable."""
    return resize(decode(data, max_pixels=settings.max_pixels), settings.side, settings.resize)


def decode(data: bytes, *, max_pixels: int) -> Pixels:
    """An image file (JPEG, PNG, WebP, BMP, GIF, TIFF, PPM) as uint8 [H,W,3] RGB, turned upright by EXIF.

    Raises Unreadable.
    """
    header = inspect(data)
    if header.width < 1 or header.height < 1:
        raise Unreadable("damaged", f"{header.format} header says {header.width}x{header.height} pixels")
    if header.width * header.height > max_pixels or max(header.width, header.height) > MAX_SIDE:
        raise Unreadable(
            "too-large",
            f"{header.format} of {header.width}x{header.height} pixels is over the limit of {max_pixels} "
            f"pixels or {MAX_SIDE} a side; shrink it or raise preprocess.max_pixels",
        )
    if not header.complete:
        raise Unreadable(
            "truncated", f"{header.format} ends early after {len(data)} bytes; copy the file again"
        )
    _silence_opencv()
    try:
        pixels, kinds, blocks = cv2.imdecodeWithMetadata(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except (cv2.error, MemoryError) as error:
        raise Unreadable("damaged", f"{header.format} cannot be decoded: {_first_line(error)}") from error
    if pixels is None or sorted(pixels.shape[:2]) != sorted((header.height, header.width)):
        raise Unreadable(
            "damaged", f"{header.format} of {len(data)} bytes cannot be decoded; its data is damaged"
        )
    exif = next((bytes(b) for k, b in zip(kinds, blocks, strict=True) if k == cv2.IMAGE_METADATA_EXIF), b"")
    # OpenCV turns TIFF upright and composites its transparency by itself, in this mode only TIFF.
    tiff = header.format == "TIFF"
    rgb = _rgb(_eight_bit(pixels), composited=tiff and pixels.dtype == np.uint8)
    return rgb if tiff else _upright(rgb, _orientation(exif))


def resize(image: Pixels, side: int, how: str) -> Pixels:
    """uint8 [H,W,3] to [side,side,3]: `crop` the centre square, `letterbox` with black, or `stretch`."""
    height, width = image.shape[:2]
    if how == "crop":
        square = min(height, width)
        top, left = (height - square) // 2, (width - square) // 2
        return _scale(image[top : top + square, left : left + square], side, side)
    if how == "stretch":
        return _scale(image, side, side)
    longer = max(height, width)
    inner = _scale(image, max(1, round(width * side / longer)), max(1, round(height * side / longer)))
    result = np.zeros((side, side, 3), np.uint8)
    top, left = (side - inner.shape[0]) // 2, (side - inner.shape[1]) // 2
    result[top : top + inner.shape[0], left : left + inner.shape[1]] = inner
    return result


def inspect(data: bytes) -> Header:
    """Format, size and completeness from the header alone; raises Unreadable when it is none of ours."""
    if not data:
        raise Unreadable("empty", "the file has no bytes")
    for magic, reader in _READERS:
        if magic.match(data):
            try:
                return reader(data)
            except (struct.error, IndexError) as error:
                raise Unreadable("truncated", f"the header ends early after {len(data)} bytes") from error
    if _FOREIGN.match(data):
        raise Unreadable(
            "unsupported", "JPEG 2000, AVIF, HEIC and JPEG XL are not read; convert it to PNG or JPEG"
        )
    raise Unreadable(
        "not-an-image", f"it begins with {data[:8]!r}, which is no JPEG, PNG, WebP, BMP, GIF, TIFF or PPM"
    )


def _scale(image: Pixels, width: int, height: int) -> Pixels:
    """Area averaging along what shrinks, then linear interpolation along what grows."""
    for target, method in (
        ((min(width, image.shape[1]), min(height, image.shape[0])), cv2.INTER_AREA),
        ((width, height), cv2.INTER_LINEAR),
    ):
        if target != (image.shape[1], image.shape[0]):
            image = np.asarray(cv2.resize(image, target, interpolation=method), np.uint8)
    return np.ascontiguousarray(image)


def _eight_bit(pixels: NDArray[Any]) -> Pixels:
    if pixels.dtype == np.uint16:
        return ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)  # 65535 / 257 is 255, rounded
    if pixels.dtype != np.uint8:
        raise Unreadable(
            "unsupported", f"its pixels are {pixels.dtype}; only 8 and 16 bit whole numbers are read"
        )
    return pixels


def _rgb(pixels: Pixels, *, composited: bool) -> Pixels:
    """OpenCV's grey, BGR or BGRA to RGB."""
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    if channels == 1:
        return np.repeat(pixels.reshape(*pixels.shape[:2], 1), 3, axis=2)
    if channels not in (3, 4):
        raise Unreadable("unsupported", f"it has {channels} channels; only grey, RGB and RGBA are read")
    rgb = pixels[:, :, 2::-1]
    if channels == 4 and not composited:
        rgb = ((rgb.astype(np.uint16) * pixels[:, :, 3:] + 127) // 255).astype(np.uint8)
    return np.ascontiguousarray(rgb)


def _upright(image: Pixels, orientation: int) -> Pixels:
    """Undo the EXIF orientation (1 to 8): transpose first, then mirror what has to be mirrored."""
    if orientation in (5, 6, 7, 8):
        image = image.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    return np.ascontiguousarray(image)


def _orientation(exif: bytes) -> int:
    """EXIF tag 274 of the first directory; 1 (upright) when there is none or it makes no sense."""
    exif = exif.removeprefix(b"Exif\0\0")
    try:
        value = _tiff_tags(exif).get(274, 1)
    except (struct.error, IndexError):
        return 1
    return value if 1 <= value <= 8 else 1


def _jpeg(data: bytes) -> Header:
    width = height = 0
    at = 2
    while True:
        while data[at] != 0xFF or data[at + 1] in (0x00, 0xFF):  # decoders skip stray bytes between the parts
            at += 1
        marker, length = data[at + 1], struct.unpack_from(">H", data, at + 2)[0]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack_from(">HH", data, at + 5)
        at += 2 + length
        if marker == 0xDA:  # the pixels begin: what looks like an end before this belongs to a thumbnail
            return Header("JPEG", width, height, data.find(b"\xff\xd9", at) >= 0)


def _png(data: bytes) -> Header:
    width, height = struct.unpack_from(">II", data, 16)
    at, kind = 8, b""
    while kind != b"IEND" and at + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        at += 12 + length
    return Header("PNG", width, height, kind == b"IEND" and at <= len(data))


def _webp(data: bytes) -> Header:
    complete = len(data) >= 8 + int(struct.unpack_from("<I", data, 4)[0])
    kind = data[12:16]
    if kind == b"VP8X":
        size = struct.unpack_from("<HBHB", data, 24)
        return Header("WebP", 1 + size[0] + (size[1] << 16), 1 + size[2] + (size[3] << 16), complete)
    if kind == b"VP8L":
        bits = struct.unpack_from("<I", data, 21)[0]
        return Header("WebP", 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF), complete)
    width, height = struct.unpack_from("<HH", data, 26)
    return Header("WebP", width & 0x3FFF, height & 0x3FFF, complete)


def _bmp(data: bytes) -> Header:
    if struct.unpack_from("<I", data, 14)[0] == 12:
        width, height = struct.unpack_from("<HH", data, 18)
    else:
        width, height = struct.unpack_from("<ii", data, 18)
    return Header("BMP", width, abs(height), True)  # rows may be stored top down: a negative height


def _gif(data: bytes) -> Header:
    width, height = struct.unpack_from("<HH", data, 6)
    return Header("GIF", width, height, True)


def _tiff(data: bytes) -> Header:
    tags = _tiff_tags(data)
    return Header("TIFF", tags.get(256, 0), tags.get(257, 0), True)


def _ppm(data: bytes) -> Header:
    # Comments may stand between the numbers.
    match = re.match(rb"P[1-6](?:\s|#[^\n]*\n)+(\d+)(?:\s|#[^\n]*\n)+(\d+)\s", data[:4096])
    if not match:
        raise Unreadable("damaged", "PPM header has no width and height")
    return Header("PPM", int(match[1]), int(match[2]), True)


def _tiff_tags(data: bytes) -> dict[int, int]:
    """Whole-number tags of the first directory of a TIFF or an EXIF block."""
    order = "<" if data[:2] == b"II" else ">"
    start = struct.unpack_from(order + "I", data, 4)[0]
    tags = {}
    for index in range(struct.unpack_from(order + "H", data, start)[0]):
        tag, kind = struct.unpack_from(order + "HH", data, start + 2 + index * 12)
        if code := {1: "B", 3: "H", 4: "I"}.get(kind):
            tags[tag] = int(struct.unpack_from(order + code, data, start + 10 + index * 12)[0])
    return tags


_READERS: Final[tuple[tuple[re.Pattern[bytes], Callable[[bytes], Header]], ...]] = (
    (re.compile(rb"\xff\xd8\xff"), _jpeg),
    (re.compile(rb"\x89PNG\r\n\x1a\n"), _png),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), _webp),
    (re.compile(rb"BM.{4}\0\0\0\0", re.DOTALL), _bmp),
    (re.compile(rb"GIF8[79]a"), _gif),
    (re.compile(rb"II\*\0|MM\0\*"), _tiff),
    (re.compile(rb"P[1-6][\s#]"), _ppm),
)
_FOREIGN: Final = re.compile(rb"....ftyp|\0\0\0\x0c(jP  |JXL )|\xff\x0a|\xff\x4f\xff\x51", re.DOTALL)


@functools.cache
def _silence_opencv() -> None:
    """What OpenCV prints about a damaged file, Unreadable says better."""
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
