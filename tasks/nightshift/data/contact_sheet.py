"""A contact sheet of files: whatever can be seen of them, for a person to judge.

Half an image is better than none here, so decoding is lenient; it happens in the same guarded processes.
"""

import io
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from nightshift import storage
from nightshift.config import PreprocessSettings
from nightshift.data.decoding.pool import DecoderPool
from nightshift.data.formats import UnreadableError, inspect
from nightshift.errors import InputError

CELL: Final = 160  # pixels
LINES: Final = 2  # of text below each picture
LINE: Final = 16  # pixels
COLUMNS: Final = 8
SHOWN: Final = 200  # files at most
LETTERS: Final = 22  # of a line
PAPER: Final = 255


class Picture(NamedTuple):
    """A file and what stands below it, beside its name."""

    uri: str
    caption: str


def contact_sheet(pictures: Sequence[Picture]) -> tuple[bytes, int]:
    """PNG of the first files of which anything can be seen, and their number.

    Raises InputError when nothing can be seen of any file.
    """
    settings = PreprocessSettings()
    shown = pictures[:SHOWN]
    with DecoderPool(glimpse, settings) as decoders:
        looks = list(decoders.map(_contents(shown, settings)))
    cells = [
        _cell(look, picture)
        for look, picture in zip(looks, shown, strict=True)
        if not isinstance(look, UnreadableError)
    ]
    if not cells:
        raise InputError(f"nothing can be seen of {len(shown)} files; there is no sheet to write")
    cells += [np.full_like(cells[0], PAPER)] * (-len(cells) % min(COLUMNS, len(cells)))
    columns = min(COLUMNS, len(cells))
    rows = [np.hstack(cells[at : at + columns]) for at in range(0, len(cells), columns)]
    written, data = cv2.imencode(".png", np.vstack(rows))
    if not written:
        raise InputError(f"a sheet of {len(cells)} pictures cannot be written as PNG")
    return data.tobytes(), sum(not isinstance(look, UnreadableError) for look in looks)


def glimpse(data: bytes, settings: PreprocessSettings) -> NDArray[np.uint8]:
    """What Pillow makes of a file, damaged or not, uint8 [h,w,3] BGR within a cell. Raises Unreadable.

    It changes Pillow for the whole process, so it is for a process of its own.
    """
    header = inspect(data)
    if header.width * header.height > settings.max_pixels:
        raise UnreadableError("too-large", f"it has {header.width}x{header.height} pixels")
    ImageFile.LOAD_TRUNCATED_IMAGES = True
    try:
        image = Image.open(io.BytesIO(data))
        image.thumbnail((CELL, CELL))
        return np.ascontiguousarray(np.asarray(image.convert("RGB"))[:, :, ::-1])
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UnreadableError("damaged", "nothing can be seen of it") from error


def _contents(pictures: Sequence[Picture], settings: PreprocessSettings) -> Iterator[bytes]:
    """The files' bytes; none for those that are gone or too large to look at."""
    for picture in pictures:
        try:
            yield storage.read(picture.uri, limit=int(settings.max_megabytes * 2**20))
        except (storage.MissingError, storage.TooLargeError):
            yield b""


def _cell(seen: NDArray[np.uint8], picture: Picture) -> NDArray[np.uint8]:
    cell = np.full((CELL + LINES * LINE, CELL, 3), PAPER, np.uint8)
    top, left = (CELL - seen.shape[0]) // 2, (CELL - seen.shape[1]) // 2
    cell[top : top + seen.shape[0], left : left + seen.shape[1]] = seen
    name = picture.uri.rpartition("/")[2]
    for number, text in enumerate((picture.caption, name)):
        # OpenCV's font has no other letters than ASCII's.
        shown = text.encode("ascii", "replace").decode()[-LETTERS:]
        at = (2, CELL + LINE * (number + 1) - 4)
        cv2.putText(cell, shown, at, cv2.FONT_HERSHEY_SIMPLEX, 0.38, (0, 0, 0), 1, cv2.LINE_AA)
    return cell
