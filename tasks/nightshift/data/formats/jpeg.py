"""JPEG's header, ITU-T T.81: a chain of segments, the last of which is the start of the pixels."""

import re
import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from nightshift.data.formats.header import Header, UnreadableError, check_parts
from nightshift.data.formats.tiff import orientation

_MARKER: Final = re.compile(rb"\xff[^\x00\xff]")


class Segment(NamedTuple):
    """A part of a JPEG's header, with its marker and length: data[start:end]."""

    marker: int
    start: int
    end: int


def segments(data: bytes) -> Iterator[Segment]:
    """The segments of a JPEG's header, the start of the first scan last.

    Bytes between segments are passed over, as decoders do. Raises struct.error where the file ends early, and
    Unreadable.
    """
    at, found = 2, 0
    while marker := _MARKER.search(data, at):
        kind, start = data[marker.start() + 1], marker.start()
        if kind == 0x01 or 0xD0 <= kind <= 0xD7:  # these stand alone
            at = start + 2
            continue
        if kind in (0xD8, 0xD9):
            raise UnreadableError("damaged", f"JPEG has the marker 0xff{kind:02x} in its header")
        at = start + 2 + struct.unpack_from(">H", data, start + 2)[0]
        found += 1
        check_parts("JPEG", found)
        yield Segment(kind, start, at)
        if kind == 0xDA:
            return
    raise struct.error("no scan")


def header(data: bytes) -> Header:
    """Raises struct.error where the file ends early, Unreadable where it is none."""
    width = height = 0
    turned, at = 1, len(data)
    for marker, start, end in segments(data):
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack_from(">HH", data, start + 5)
        elif marker == 0xE1 and data.startswith(b"Exif\0\0", start + 4):
            turned = orientation(data[start + 10 : end])
        at = end
    # What looks like an end in the header belongs to a thumbnail.
    complete = at <= len(data) - 2 and (data.endswith(b"\xff\xd9") or data.find(b"\xff\xd9", at) >= 0)
    return Header("JPEG", width, height, complete, orientation=turned)
