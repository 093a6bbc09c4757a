"""Decoding with Pillow: TIFF, GIF, JPEG 2000, AVIF, HEIC, and BMP that OpenCV takes wrongly.

Pillow turns TIFF and HEIC upright itself, and takes 16-bit colours to their upper 8 bits.
"""

import functools
import io
import warnings
from typing import Final

import cv2
import numpy as np
from PIL import AvifImagePlugin, BmpImagePlugin, GifImagePlugin, ImageFile, Jpeg2KImagePlugin, TiffImagePlugin

from nightshift.data.formats import Header, UnreadableError, strips, tiff
from nightshift.data.formats.header import missing
from nightshift.data.transforms import Pixels, eight_bit, rgb

PLUGINS: Final[dict[str, type[ImageFile.ImageFile]]] = {
    "BMP": BmpImagePlugin.BmpImageFile,
    "TIFF": TiffImagePlugin.TiffImageFile,
    "GIF": GifImagePlugin.GifImageFile,
    "JPEG 2000": Jpeg2KImagePlugin.Jpeg2KImageFile,
    "AVIF": AvifImagePlugin.AvifImageFile,
}
TURNED: Final = ("TIFF", "HEIC")  # by Pillow or libheif already


def pixels(data: bytes, header: Header) -> tuple[Pixels, Header]:
    """uint8 [H,W,3], and the header with the size and the orientation of these. Raises Unreadable."""
    _silence()
    if header.format == "TIFF":
        strips.check(data)
        _check_samples(data)
    try:
        with _plugin(header.format)(io.BytesIO(data)) as image:
            if not _fits(image, header):
                raise damaged(header, f"its size is {image.width}x{image.height}, not as its header says")
            if image.mode in ("I", "F", "LAB"):
                raise _unsupported(data, header, f"pixels of mode {image.mode}")
            image.load()
            turned = 1 if header.format in TURNED else image.getexif().get(274, 1)
            header = header._replace(width=image.width, height=image.height, orientation=turned)
            return _eight_bit_rgb(image, data, header), header
    except (UnreadableError, MemoryError):
        raise
    except Exception as error:  # plugins raise whatever their parsing runs into
        if "nsupported" in str(error) or "unknown pixel mode" in str(error):
            raise _unsupported(data, header, str(error)[:200]) from error
        raise damaged(header, error) from error


def _fits(image: ImageFile.ImageFile, header: Header) -> bool:
    """Whether an image has the size of its header, turned or not; HEIC cuts off what its codec filled up."""
    if header.format == "HEIC":
        return image.width * image.height <= header.width * header.height
    return image.size in ((header.width, header.height), (header.height, header.width))


def damaged(header: Header, said: object) -> UnreadableError:
    first = (str(said).splitlines() or [type(said).__name__])[0][:200]
    return UnreadableError("damaged", f"{header.format} cannot be decoded: {first}")


@functools.cache
def _silence() -> None:
    """What plugins warn of, Unreadable says better."""
    warnings.filterwarnings("ignore", module=r"PIL\.")


def _plugin(name: str) -> type[ImageFile.ImageFile]:
    if name != "HEIC":
        return PLUGINS[name]
    try:
        from pi_heif import HeifImageFile, options
    except ImportError as error:
        raise missing("HEIC", "heic", "pi-heif") from error
    options.DECODE_THREADS = 1  # each process decodes one image
    plugin: type[ImageFile.ImageFile] = HeifImageFile
    return plugin


def _eight_bit_rgb(image: ImageFile.ImageFile, data: bytes, header: Header) -> Pixels:
    if image.mode.startswith("I;16"):
        white, inverted = _white(data, header, 16)
        grey = eight_bit(np.asarray(image).astype(np.uint16), white)
        return rgb(255 - grey if inverted else grey)
    if image.has_transparency_data:
        rgba = np.asarray(image.convert("RGBA"))
        return rgb(np.asarray(cv2.cvtColor(rgba, cv2.COLOR_RGBA2BGRA), np.uint8))
    colours = np.array(image.convert("RGB"))
    return eight_bit(colours, _white(data, header, 8)[0]) if header.format == "JPEG 2000" else colours


def _white(data: bytes, header: Header, bits: int) -> tuple[int, bool]:
    """The largest value that Pillow gives for grey of a file, and whether that is black.

    Pillow keeps 12 bits of a TIFF as they are, and moves the bits of JPEG 2000 to the upper ones.
    """
    if header.format == "JPEG 2000":
        depth = min(
            bits, (data[data.find(b"\xff\x4f\xff\x51") + 42] & 127) + 1
        )  # Ssiz of the first component
        return (2**depth - 1) << (bits - depth), False
    tags = tiff.tags(data)
    return 2 ** tags.first(258, bits) - 1, tags.first(262, 1) == 0


def _check_samples(data: bytes) -> None:
    """Refuse samples that Pillow takes for unsigned whole numbers though they are not."""
    tags = tiff.tags(data)
    if any(kind not in (1, 4) for kind in tags.values.get(339, ())):  # unsigned, undefined
        raise UnreadableError("unsupported", tiff.unread(tags))


def _unsupported(data: bytes, header: Header, said: str) -> UnreadableError:
    if header.format == "TIFF":
        return UnreadableError("unsupported", tiff.unread(tiff.tags(data)))
    return UnreadableError(
        "unsupported", f"{header.format} of this kind is not read ({said}); convert it to PNG or JPEG"
    )
