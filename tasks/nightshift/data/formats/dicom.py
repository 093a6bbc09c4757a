"""DICOM files (PS3.10) by their headers, with pydicom, which is an extra of its own."""

import io
from typing import TYPE_CHECKING, Final

from nightshift.data.formats.header import Header, UnreadableError, missing

if TYPE_CHECKING:
    from pydicom import FileDataset


DEFLATED: Final = b"1.2.840.10008.1.2.1.99"  # a transfer syntax


def read(data: bytes, *, pixels: bool) -> "FileDataset":
    """The data set of a file, with its pixels or without. Raises Unreadable."""
    if DEFLATED in data[:4096]:  # pydicom would unpack it at once, whatever its size
        raise UnreadableError(
            "unsupported", "deflated DICOM is not read; convert it to Explicit VR Little Endian"
        )
    try:
        import pydicom
    except ImportError as error:
        raise missing("DICOM", "dicom", "pydicom") from error
    try:
        return pydicom.dcmread(io.BytesIO(data), stop_before_pixels=not pixels)
    except Exception as error:  # it raises whatever its parsing runs into, also RecursionError
        raise UnreadableError(
            "damaged", f"DICOM cannot be read: {str(error)[:200] or type(error).__name__}"
        ) from error


def header(data: bytes) -> Header:
    """Raises Unreadable, also for what has no pixels, such as a report."""
    found = read(data, pixels=False)
    try:
        width, height = int(found.get("Columns") or 0), int(found.get("Rows") or 0)
        frames = int(found.get("NumberOfFrames") or 1)
        syntax = found.file_meta.get("TransferSyntaxUID")
        plain = syntax is not None and not syntax.is_encapsulated
        bits = int(found.get("BitsAllocated") or 8) * int(found.get("SamplesPerPixel") or 1)
    except (AttributeError, TypeError, ValueError) as error:
        raise UnreadableError("damaged", f"DICOM header cannot be read: {str(error)[:200]}") from error
    if not width or not height:
        raise UnreadableError("unsupported", "this DICOM file holds no image; leave it out")
    # What is packed may be shorter than its pixels, and ends early only for its decoder.
    complete = not plain or len(data) >= width * height * bits // 8
    return Header("DICOM", width, height, complete, max(1, frames))
