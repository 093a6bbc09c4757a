"""TIFF's directories, TIFF 6.0; EXIF blocks are such directories too."""

import struct
from typing import Final, NamedTuple

from tasks.formats.header import Header

LAYOUT: Final = {256, 257, 273, 279, 324, 325}  # size, and where the pixels lie


class Tags(NamedTuple):
    """Whole-number tags of one TIFF directory and where the next one is (0: nowhere)."""

    values: dict[int, tuple[int, ...]]
    following: int

    def first(self, tag: int, default: int) -> int:
        return (self.values.get(tag) or (default,))[0]


def tags(data: bytes, start: int | None = None) -> Tags:
    """One directory, by default the first, of a TIFF or an EXIF block.

    Raises struct.error where the file ends early.
    """
    order = "<" if data[:2] == b"II" else ">"
    start = struct.unpack_from(order + "I", data, 4)[0] if start is None else start
    count = struct.unpack_from(order + "H", data, start)[0]
    values: dict[int, tuple[int, ...]] = {}
    for entry in range(start + 2, start + 2 + 12 * count, 12):
        tag, kind, length = struct.unpack_from(order + "HHI", data, entry)
        if code := {1: "B", 3: "H", 4: "I", 7: "B"}.get(kind):
            size = length * struct.calcsize(order + code)
            at = entry + 8 if size <= 4 else struct.unpack_from(order + "I", data, entry + 8)[0]
            if at + size <= len(data):
                values.setdefault(tag, struct.unpack_from(f"{order}{length}{code}", data, at))
            elif tag in LAYOUT:
                raise struct.error(f"tag {tag} lies behind the end")
    end = start + 2 + 12 * count
    following = struct.unpack_from(order + "I", data, end)[0] if end + 4 <= len(data) else 0
    return Tags(values, following)


def pieces(directory: Tags) -> list[tuple[int, int]]:
    """Offset and length in bytes of each strip or tile, as the directory says."""
    offsets = directory.values.get(273) or directory.values.get(324) or ()
    return list(zip(offsets, directory.values.get(279) or directory.values.get(325) or (), strict=False))


def header(data: bytes) -> Header:
    """Raises struct.error where the file ends early."""
    directory = tags(data)
    seen, following = {0}, directory.following
    while following not in seen and following + 2 <= len(data):
        seen.add(following)
        try:
            following = tags(data, following).following
        except struct.error:
            break
    complete = all(at + length <= len(data) for at, length in pieces(directory))
    turned = directory.first(274, 1)
    width, height = directory.first(256, 0), directory.first(257, 0)
    return Header("TIFF", width, height, complete, len(seen), turned if 1 <= turned <= 8 else 1)


def orientation(exif: bytes) -> int:
    """EXIF tag 274 of the first directory; 1 (upright) when there is none or it makes no sense."""
    try:
        value = tags(exif.removeprefix(b"Exif\0\0")).first(274, 1)
    except (struct.error, IndexError):
        return 1
    return value if 1 <= value <= 8 else 1
