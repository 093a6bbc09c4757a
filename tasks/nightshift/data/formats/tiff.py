"""TIFF's directories, TIFF 6.0; EXIF blocks are such directories too."""

import struct
from typing import Final, NamedTuple

from nightshift.data.formats.header import MOST_PARTS, Header, UnreadableError

LAYOUT: Final = {256, 257, 273, 279, 324, 325}  # size, and where the pixels lie
PIECES: Final = {273, 279, 324, 325}  # of each strip or tile
TABLES: Final = 347  # of JPEG in TIFF
MOST_PIECES: Final = 2**18  # rows of 65,500 pixels in three planes, or 50 million pixels in tiles of 16
LONGEST_TABLES: Final = 2**16  # bytes
MOST_ENTRIES: Final = 4096  # of a directory, that are looked at
SAMPLES: Final = {1: "unsigned", 2: "signed", 3: "floating point", 5: "complex", 6: "complex"}
COLOURS: Final = {
    **{0: "grey, 0 is white", 1: "grey", 2: "RGB", 3: "palette", 4: "mask", 5: "CMYK", 6: "YCbCr"},
    **dict.fromkeys((8, 9, 10), "Lab"),
    **{32803: "a camera's raw colours", 34892: "a camera's raw colours", 32844: "LogL", 32845: "LogLuv"},
}
MOST_VALUES: Final = 16  # of any other tag, that are read: nobody asks for more


class Tags(NamedTuple):
    """Whole-number tags of one TIFF directory and where the next one is (0: nowhere)."""

    values: dict[int, tuple[int, ...]]
    following: int

    def first(self, tag: int, default: int) -> int:
        return (self.values.get(tag) or (default,))[0]


def tags(data: bytes, start: int | None = None) -> Tags:
    """One directory, by default the first, of a TIFF or an EXIF block.

    Every entry may claim the whole file for its values, so no more of them are read than are of use. Raises
    struct.error where the file ends early, Unreadable where there are more pieces than an image has.
    """
    order = "<" if data[:2] == b"II" else ">"
    start = struct.unpack_from(order + "I", data, 4)[0] if start is None else start
    count = struct.unpack_from(order + "H", data, start)[0]
    values: dict[int, tuple[int, ...]] = {}
    for entry in range(start + 2, start + 2 + 12 * min(count, MOST_ENTRIES), 12):
        tag, kind, length = struct.unpack_from(order + "HHI", data, entry)
        if code := {1: "B", 3: "H", 4: "I", 7: "B"}.get(kind):
            size = length * struct.calcsize(order + code)
            at = entry + 8 if size <= 4 else struct.unpack_from(order + "I", data, entry + 8)[0]
            if at + size <= len(data):
                read = min(length, _most(tag, length))
                values.setdefault(tag, struct.unpack_from(f"{order}{read}{code}", data, at))
            elif tag in LAYOUT:
                raise struct.error(f"tag {tag} lies behind the end")
    return Tags(values, _following(data, start))


def _most(tag: int, length: int) -> int:
    """How many values of a tag are read. Raises Unreadable."""
    if tag in PIECES:
        if length > MOST_PIECES:
            raise UnreadableError(
                "damaged", f"TIFF has {length} strips or tiles, at most {MOST_PIECES} are read"
            )
        return MOST_PIECES
    return LONGEST_TABLES if tag == TABLES else MOST_VALUES


def _following(data: bytes, start: int) -> int:
    """Where the directory after the one at `start` is (0: nowhere). Raises struct.error."""
    order = "<" if data[:2] == b"II" else ">"
    end = start + 2 + 12 * int(struct.unpack_from(order + "H", data, start)[0])
    return int(struct.unpack_from(order + "I", data, end)[0]) if end + 4 <= len(data) else 0


def pieces(directory: Tags) -> list[tuple[int, int]]:
    """Offset and length in bytes of each strip or tile, as the directory says."""
    offsets = directory.values.get(273) or directory.values.get(324) or ()
    return list(zip(offsets, directory.values.get(279) or directory.values.get(325) or (), strict=False))


def header(data: bytes) -> Header:
    """Raises struct.error where the file ends early."""
    directory = tags(data)
    seen, following = {0}, directory.following
    while following not in seen and following + 2 <= len(data) and len(seen) < MOST_PARTS:
        seen.add(following)
        following = _following(data, following)
    needed = _needed(directory)
    complete = all(at + (needed or length) <= len(data) for at, length in pieces(directory)[:-1])
    if last := pieces(directory)[-1:]:
        ((at, length),) = last
        complete = complete and at + (_last(directory, needed) if needed else length) <= len(data)
    turned = directory.first(274, 1)
    width, height = directory.first(256, 0), directory.first(257, 0)
    return Header("TIFF", width, height, complete, len(seen), turned if 1 <= turned <= 8 else 1)


def _needed(directory: Tags) -> int:
    """Bytes of a whole strip or tile that is stored plainly, whatever its byte count says; 0: the count."""
    if directory.first(259, 1) != 1 or directory.first(262, 1) == 6:
        return 0
    width = directory.first(322, directory.first(256, 0))
    rows = directory.first(323, min(directory.first(278, 2**32 - 1), directory.first(257, 0)))
    return _row(directory, width) * rows


def _last(directory: Tags, needed: int) -> int:
    """Bytes of the last of such pieces: a strip has the rows that are left."""
    rows, height = directory.first(278, 2**32 - 1), directory.first(257, 0)
    if 322 in directory.values or rows >= height or not height % max(rows, 1):
        return needed
    return _row(directory, directory.first(256, 0)) * (height % rows)


def _row(directory: Tags, width: int) -> int:
    samples = directory.first(277, 1) if directory.first(284, 1) == 1 else 1
    return (width * samples * directory.first(258, 1) + 7) // 8


def unread(directory: Tags) -> str:
    """What is said of an image whose samples are not read."""
    bits, kind = directory.first(258, 1), SAMPLES.get(directory.first(339, 1), "unknown")
    colours = COLOURS.get(directory.first(262, 1), "unknown colours")
    return (
        f"TIFF of {directory.first(277, 1)} x {bits} bits ({kind}, {colours}) is not read; convert it to "
        "grey or RGB of 8 or 16 unsigned bits, as PNG or TIFF"
    )


def orientation(exif: bytes) -> int:
    """EXIF tag 274 of the first directory; 1 (upright) when there is none or it makes no sense."""
    try:
        value = tags(exif.removeprefix(b"Exif\0\0")).first(274, 1)
    except (struct.error, UnreadableError):
        return 1
    return value if 1 <= value <= 8 else 1
