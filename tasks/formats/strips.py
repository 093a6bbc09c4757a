"""Strips and tiles of a TIFF: the checksums and ends of compressed ones, which libtiff ignores."""

import zlib

import simplejpeg

from tasks.formats import tiff
from tasks.formats.header import Unreadable


def check(data: bytes) -> None:
    """Raises Unreadable for damaged strips and tiles of a TIFF, and for those that lie over each other."""
    tags = tiff.tags(data)
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
            try:
                simplejpeg.decode_jpeg(bytes(tables[:-2]) + piece[2:] if tables else piece, "GRAY")
            except ValueError as error:
                if "nsupported" not in str(error):
                    raise _damaged(error) from error


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


def _damaged(said: object) -> Unreadable:
    return Unreadable("damaged", f"TIFF cannot be decoded: {said}")
