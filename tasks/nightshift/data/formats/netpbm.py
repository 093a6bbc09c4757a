"""netpbm's header, http://netpbm.sourceforge.net/doc: what is white is said by a maximum from 1 to 65535."""

import re
from typing import Final

from nightshift.data.formats.header import Header, UnreadableError

_GAP: Final = rb"(?:\s|#[^\n]*\n)+"  # comments may stand between the numbers
_PPM: Final = re.compile(rb"P([1-6])" + _GAP + rb"(\d+)" + _GAP + rb"(\d+)(?:" + _GAP + rb"(\d+))?\s")
BITMAPS: Final = (1, 4)  # of text and of bits; they state no maximum
TEXTS: Final = (2, 3)


def header(data: bytes) -> Header:
    """Raises Unreadable."""
    match = _match(data)
    kind, width, height = (int(match[group]) for group in (1, 2, 3))
    channels = 3 if kind in (3, 6) else 1
    start = match.end(3) + 1 if kind in BITMAPS else match.end()
    if kind == 4:
        row = (width + 7) // 8
    else:  # text has at least a digit for each number
        row = width * channels * (2 if kind > 3 and _maximum(match) > 255 else 1)
    return Header("PPM", width, height, start + row * height <= len(data))


def full_range(data: bytes) -> tuple[bytes, int]:
    """The file as a decoder that knows no maximum has to see it, and the value that is white in its result.

    OpenCV divides by the maximum only in text, up to 255, and rounds down.
    """
    match = _match(data)
    if int(match[1]) in BITMAPS:
        return data, 255
    maximum = _maximum(match)
    if int(match[1]) in TEXTS and maximum <= 255:
        data = data[: match.start(4)] + b"255" + data[match.end(4) :]
    return data, maximum


def _match(data: bytes) -> re.Match[bytes]:
    match = _PPM.match(data[:4096])
    if not match:
        raise UnreadableError("damaged", "PPM header has no width and height")
    if int(match[1]) not in BITMAPS:
        _maximum(match)
    return match


def _maximum(match: re.Match[bytes]) -> int:
    maximum = int(match[4] or 0)
    if not 1 <= maximum <= 65535:
        raise UnreadableError("damaged", f"PPM header says that {maximum} is white; it must be 1 to 65535")
    return maximum
