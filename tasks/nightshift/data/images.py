"""Bytes to pixels: check, decode, orient, resize. The same code makes training shards and serves predictions.

Every picture becomes 8-bit RGB, or grey where one channel is asked for: grey is repeated, palettes are looked
up, what the format says is white becomes 255 (16 bits are divided by 257), and transparency is composited on
black (the colour of letterbox bars, and of what lies under most transparent pixels). Of an animation, the
first picture counts. Only .npy arrays have other numbers of channels. docs/images.md has each format's rule.

Each format has the decoder that refuses damage instead of filling the gap: libjpeg-turbo in strict mode for
JPEG; OpenCV for PNG, WebP, PPM and run-length coded BMP; Pillow for the other BMP, of which OpenCV takes some
palettes and alpha wrongly, and for TIFF, GIF, JPEG 2000 and AVIF, of which it returns damaged ones without a
word, with pi-heif for HEIC; pydicom for DICOM. Formats without checksums (BMP, PPM, uncompressed TIFF, DICOM)
and changed bits that make another valid stream (in JPEG, lossy WebP, AVIF and HEIC, LZW and fax codes) cannot
be told from an image that looks like that.

Scaled decoding against whole decoding, mean and largest difference in grey levels of the resized images:
12 megapixels to 224: 0.3 and 2; photos of 1800x1200 to 224: 0.2 and 3; sharp photos of 348x348 to 64: 0.3
and 12, to 32: 0.3 and 5.
"""

import functools
import itertools
import re
import struct
from bisect import bisect_left
from typing import Final, NamedTuple

import cv2
import numpy as np
import simplejpeg

from nightshift.config import PreprocessSettings
from nightshift.data.decoding import dicom, pillow
from nightshift.data.decoding.pillow import damaged
from nightshift.data.formats import Header, UnreadableError, inspect, jpeg, netpbm, npy, png
from nightshift.data.transforms import (
    Pixels,
    Whole,
    channelled,
    clean,
    eight_bit,
    inner,
    resize,
    rgb,
    scale_for,
    upright,
)

__all__ = ["Header", "Image", "Pixels", "UnreadableError", "decode", "inspect", "load", "prepare", "stored"]


class Image(NamedTuple):
    pixels: Pixels  # uint8 [H,W,C]
    format: str
    width: int  # of the file's whole image, upright
    height: int


def prepare(data: bytes, settings: PreprocessSettings) -> Pixels:
    """An image file as the model takes it, uint8 [image_size,image_size,C]: the centre of `stored`.

    Raises Unreadable.
    """
    return inner(stored(data, settings), settings)


def stored(data: bytes, settings: PreprocessSettings) -> Pixels:
    """An image file as a shard keeps it, uint8 [side,side,C]. Raises Unreadable."""
    return load(data, settings).pixels


def load(data: bytes, settings: PreprocessSettings) -> Image:
    """`stored` with what the file said about itself. Raises Unreadable."""
    pixels, header = _decode(data, settings, scaled=settings.scaled_decoding)
    small = resize(pixels, Whole(header.width, header.height), settings.side, settings.resize)
    return _image(clean(upright(small, header.orientation), settings), header)


def decode(data: bytes, settings: PreprocessSettings) -> Image:
    """An image file of any format with all its pixels. Raises Unreadable."""
    pixels, header = _decode(data, settings, scaled=False)
    return _image(upright(pixels, header.orientation), header)


def _image(pixels: Pixels, header: Header) -> Image:
    sides = (header.width, header.height)
    return Image(pixels, header.format, *(sides[::-1] if header.orientation > 4 else sides))


def _decode(data: bytes, settings: PreprocessSettings, *, scaled: bool) -> tuple[Pixels, Header]:
    """uint8 [H,W,C] as stored, and its header with the orientation that is still to be undone."""
    if len(data) > settings.max_megabytes * 2**20:
        raise UnreadableError(
            "too-large",
            f"the file has {len(data)} bytes, over the limit of {settings.max_megabytes} MiB; shrink it or "
            "raise preprocess.max_megabytes",
        )
    header = inspect(data)
    _admit(header, len(data), settings)
    whole = Whole(header.width, header.height)
    scale = scale_for(whole, settings.side, settings.resize) if scaled else 1
    try:
        if header.format == "JPEG":
            pixels = _jpeg(data, header, scale)
        elif header.format == "NPY":
            pixels = eight_bit(npy.pixels(data))
        elif header.format == "DICOM":
            pixels = dicom.pixels(data, header)
        elif header.format in ("PNG", "WebP", "PPM") or _run_lengths(data, header):
            pixels = _opencv(data, header)
        else:
            pixels, header = pillow.pixels(data, header)
        return channelled(pixels, settings.channels), header
    except MemoryError as error:
        raise UnreadableError(
            "too-much-memory",
            f"{header.format} of {header.width}x{header.height} pixels takes more memory to decode than "
            "there is; shrink it or raise preprocess.decode_megabytes",
        ) from error


def _admit(header: Header, size: int, settings: PreprocessSettings) -> None:
    what = f"{header.format} of {header.width}x{header.height} pixels"
    if header.width < 1 or header.height < 1:
        raise UnreadableError("damaged", f"{header.format} header says {header.width}x{header.height} pixels")
    if header.width * header.height > settings.max_pixels:
        raise UnreadableError(
            "too-large",
            f"{what} is over the limit of {settings.max_pixels} pixels; shrink it or raise "
            "preprocess.max_pixels",
        )
    if max(header.width, header.height) > settings.max_side:
        raise UnreadableError(
            "too-large",
            f"{what} is over the limit of {settings.max_side} pixels a side; shrink it or raise "
            "preprocess.max_side",
        )
    if not header.complete:
        raise UnreadableError("truncated", f"{what} ends early after {size} bytes; copy the file again")
    if header.frames > 1 and settings.animated == "refuse":
        raise UnreadableError(
            "animated", f"{what} holds several pictures; export one or set preprocess.animated to first"
        )


def _jpeg(data: bytes, header: Header, scale: int) -> Pixels:
    """Strictly: whatever libjpeg warns of is damage, but for bytes that belong to nothing."""
    sides = {"min_height": -(-header.height // scale), "min_width": -(-header.width // scale)}
    wanted = sides if scale > 1 else {}
    try:
        try:
            pixels = simplejpeg.decode_jpeg(data, min_factor=scale, **wanted)
        except ValueError as error:
            pixels = simplejpeg.decode_jpeg(_without_strays(data, error), min_factor=scale, **wanted)
    except ValueError as error:
        if "nsufficient memory" in str(error):
            raise MemoryError from error
        if "precision" in str(error) or any(part.marker in UNREAD_JPEG for part in jpeg.segments(data)):
            raise UnreadableError(
                "unsupported", f"JPEG is of a kind that is not read ({error}); save it as a baseline JPEG"
            ) from error
        raise damaged(header, error) from error
    if pixels.shape[:2] != tuple(sides.values()):
        raise damaged(header, f"it is {pixels.shape[1]}x{pixels.shape[0]} pixels, not as its header says")
    return np.asarray(pixels, np.uint8)


def _without_strays(data: bytes, error: ValueError) -> bytes:
    """The JPEG without stray bytes that harm nothing; raises `error` again where there are none.

    Some cameras and editors leave a few bytes between two segments of the header, or pad the scan with
    zeros before the end. They are cut out, and what is left has to be flawless.
    """
    found = re.search(r"(\d+) extraneous bytes before marker", str(error))
    if not found:
        raise error
    segments = list(jpeg.segments(data))
    scan = segments[-1].end
    strays = segments[0].start - 2 + sum(b.start - a.end for a, b in itertools.pairwise(segments))
    if strays > MAX_STRAYS or not _thumbnails_inside(data, segments):
        raise error
    end = data.find(b"\xff\xd9", scan)
    padding = int(found[1])
    if strays or data[end - padding : end].strip(b"\0") or padding > end - scan:
        padding = 0
    if not strays and not padding:
        raise error
    header = b"".join(data[segment.start : segment.end] for segment in segments)
    return b"\xff\xd8" + header + data[scan : end - padding] + b"\xff\xd9"


def _thumbnails_inside(data: bytes, segments: list[jpeg.Segment]) -> bool:
    """Whether each thumbnail in a header begins and ends in one segment.

    A segment whose length is wrong may end inside its thumbnail, and then the thumbnail would be decoded.
    """
    starts = [segment.start for segment in segments]
    ends = [data.rfind(b"\xff\xd9", segment.start, segment.end) for segment in segments]
    return all(
        (number := bisect_left(starts, begin.start())) and begin.start() < ends[number - 1]
        for begin in re.finditer(rb"(?<!^)\xff\xd8\xff", data[: segments[-1].end])
    )


def _opencv(data: bytes, header: Header) -> Pixels:
    _silence()
    if header.format == "PNG":
        data = _still(data)
    white = None
    if header.format == "PPM":
        data, white = netpbm.full_range(data)
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        if error.code == cv2.Error.StsNoMem:
            raise MemoryError from error
        raise damaged(header, error) from error
    if pixels is None or pixels.shape[:2] != (header.height, header.width):
        raise damaged(header, f"the data among its {len(data)} bytes is damaged")
    if header.format == "PNG" and (grey := png.transparent_grey(data)) is not None:
        pixels[pixels == grey] = 0
    return rgb(eight_bit(pixels, white))


def _run_lengths(data: bytes, header: Header) -> bool:
    return header.format == "BMP" and data[14] != 12 and data[30] in (1, 2)


def _still(data: bytes) -> bytes:
    """A PNG without the parts that make it move: what is left is the picture that every decoder shows.

    Nor with what lies behind its end, where OpenCV looks for pixels if there are none before: it takes as
    much memory as a part there claims to have bytes.
    """
    kept, at, kind = [data[:8]], 8, b""
    while kind != b"IEND" and at + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        if kind not in (b"acTL", b"fcTL", b"fdAT"):
            kept.append(data[at : at + 12 + length])
        at += 12 + length
    return b"".join(kept)


@functools.cache
def _silence() -> None:
    """What the decoders print about a damaged file, Unreadable says better."""
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


UNREAD_JPEG: Final = {0xC3, *range(0xC5, 0xC8), *range(0xCB, 0xD0)} - {0xCC}  # lossless, hierarchical
MAX_STRAYS: Final = 64  # bytes that belong to nothing in a JPEG's header
