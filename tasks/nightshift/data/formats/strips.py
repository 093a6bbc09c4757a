"""Strips and tiles of a TIFF: their sizes, and what libtiff ignores of compressed ones."""

import struct
import zlib
from typing import Final

import simplejpeg

from nightshift.data.formats import jpeg, tiff
from nightshift.data.formats.header import UnreadableError

LARGEST_TILE: Final = 2**12  # pixels a side, of tiles that are larger than their image


def check(data: bytes) -> None:
    """Raises Unreadable for damaged strips and tiles of a TIFF, and for those that lie over each other."""
    tags = tiff.tags(data)
    width, height = _size(tags)
    compression, tables = tags.first(259, 1), tags.values.get(tiff.TABLES, ())
    pieces = tiff.pieces(tags)
    if compression != 1 and sum(min(length, len(data)) for _, length in pieces) > 2 * len(data):
        raise _damaged("its strips lie over each other")  # each would be read again
    if max(tables, default=0) > 255:
        raise _damaged("its JPEG tables are no bytes")
    for at, length in pieces:
        piece = data[at : at + length]
        if compression in (8, 32946):
            _inflate(piece)
        elif compression == 7:
            _fits(piece, width, height)
            try:
                simplejpeg.decode_jpeg(bytes(tables[:-2]) + piece[2:] if tables else piece, "GRAY")
            except ValueError as error:
                if "nsupported" not in str(error):
                    raise _damaged(error) from error


def _size(tags: tiff.Tags) -> tuple[int, int]:
    """Width and height in pixels of a strip or tile. Raises Unreadable for tiles without a bound."""
    whole = tags.first(256, 0), tags.first(257, 0)
    if not {322, 323} & tags.values.keys():
        return whole[0], min(tags.first(278, 2**32 - 1), whole[1])
    sides = tags.first(322, whole[0]), tags.first(323, whole[1])
    if any(side > max(LARGEST_TILE, of) for side, of in zip(sides, whole, strict=True)):
        raise _damaged("its tiles are {}x{} pixels of an image of {}x{}".format(*sides, *whole))
    return sides


def _fits(piece: bytes, width: int, height: int) -> None:
    """Raise Unreadable for a JPEG larger than its strip or tile: a decoder takes memory for it."""
    try:
        found = jpeg.header(piece)
    except struct.error as error:
        raise _damaged(error) from error
    if found.width > width or found.height > height:
        raise _damaged(f"a strip of {width}x{height} pixels holds a JPEG of {found.width}x{found.height}")


def _inflate(piece: bytes) -> None:
    """Unpack a strip to nowhere, a little at a time: what is left of it is copied. Raises Unreadable."""
    inflater = zlib.decompressobj()
    try:
        for start in range(0, len(piece), 2**14):
            left = piece[start : start + 2**14]
            while left and not inflater.eof:
                inflater.decompress(left, 2**20)
                left = inflater.unconsumed_tail
    except zlib.error as error:
        raise _damaged(error) from error
    if not inflater.eof:
        raise _damaged("a strip ends early")


def _damaged(said: object) -> UnreadableError:
    return UnreadableError("damaged", f"TIFF cannot be decoded: {said}")
