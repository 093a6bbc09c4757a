"""PNG's transparency of one grey, chunk tRNS of PNG 3rd edition, which OpenCV leaves out."""

import struct


def transparent_grey(data: bytes) -> int | None:
    """The grey that is transparent, as decoded to 8 or 16 bits; None where none is. Raises struct.error."""
    depth, colour = data[24], data[25]
    at, kind = 8, b""
    while colour == 0 and kind != b"IDAT" and at + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        if kind == b"tRNS" and length == 2:
            largest = 2**depth - 1
            grey = int(struct.unpack_from(">H", data, at + 8)[0]) & largest
            return int(grey * 255 // largest) if depth < 8 else grey
        at += 12 + length
    return None
