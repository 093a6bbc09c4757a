"""NumPy's file of one array, NEP 1, as an image with any number of channels. Nothing in it is executed."""

import math
import re
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nightshift.data.formats.header import Header, UnreadableError

_NPY: Final = re.compile(
    rb"\x93NUMPY\x01\0..\{'descr': '(\|u1|[<>]u2)', 'fortran_order': False, "
    rb"'shape': \((\d{1,6}), (\d{1,6})(?:, (\d{1,3}))?\), \} *\n",
    re.DOTALL,
)


class Layout(NamedTuple):
    """Where the pixels of an array are, and how: `kind` is NumPy's name of their type."""

    kind: str
    shape: tuple[int, int, int]  # [H,W,C]
    start: int


def layout(data: bytes) -> Layout:
    """Of a .npy file, as numpy.save writes it. Raises Unreadable."""
    found = _NPY.match(data[:256])
    if not found or found.end() != 10 + int.from_bytes(data[8:10], "little"):
        raise UnreadableError(
            "unsupported",
            "the .npy file holds something else than a uint8 or uint16 array [H,W] or [H,W,C] in C order; "
            "save such a one",
        )
    return Layout(found[1].decode(), (int(found[2]), int(found[3]), int(found[4] or 1)), found.end())


def pixels(data: bytes) -> NDArray[Any]:
    """uint8 or uint16 [H,W,C] of a whole file. Raises Unreadable."""
    kind, shape, start = layout(data)
    found = np.frombuffer(data, kind, count=math.prod(shape), offset=start).reshape(shape)
    return found.astype(found.dtype.newbyteorder("="))


def header(data: bytes) -> Header:
    """Raises Unreadable."""
    kind, (height, width, channels), start = layout(data)
    size = height * width * channels * int(kind[-1])
    return Header("NPY", width, height, start + size <= len(data))
