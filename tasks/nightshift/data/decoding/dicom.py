"""DICOM images as a viewer first shows them: rescaled, through the file's own window, and white as white.

What decides is the file, as PS3.3 C.11 says: the rescale or modality LUT, then the first window or VOI LUT.
Without a window, black and white are the ends of what the stored bits can hold. MONOCHROME1 is turned into
the greys of MONOCHROME2; palettes and YBR become RGB. Of several frames the first counts.
"""

from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from nightshift.data.formats import Header, UnreadableError, dicom
from nightshift.data.transforms import Pixels

if TYPE_CHECKING:
    from pydicom import Dataset

GREYS: Final = ("MONOCHROME1", "MONOCHROME2")
FAR: Final = 1e12  # beyond every stored value


def pixels(data: bytes, header: Header) -> Pixels:
    """uint8 [H,W,3]. Raises Unreadable."""
    found = dicom.read(data, pixels=True)
    try:
        seen = _seen(found)
    except (UnreadableError, MemoryError):
        raise
    except Exception as error:  # decoders and tables raise whatever they run into
        said = (str(error).splitlines() or [type(error).__name__])[0][:200]
        if "plugin" in str(error) or isinstance(error, NotImplementedError):
            raise UnreadableError(
                "unsupported",
                f"DICOM of transfer syntax {found.file_meta.TransferSyntaxUID.name} is not read; convert it "
                "to Explicit VR Little Endian",
            ) from error
        raise UnreadableError("damaged", f"DICOM cannot be decoded: {said}") from error
    if seen.shape[:2] != (header.height, header.width):
        raise UnreadableError(
            "damaged", f"DICOM is {seen.shape[1]}x{seen.shape[0]} pixels, not as its header says"
        )
    return np.repeat(seen[..., None], 3, axis=2) if seen.ndim == 2 else seen


def _seen(found: "Dataset") -> Pixels:
    from pydicom.pixels import apply_color_lut, pixel_array

    stored = pixel_array(found, index=0)
    kind = found.PhotometricInterpretation
    if kind in GREYS:
        grey = _grey(found, stored)
        inverse = (kind == "MONOCHROME1") != (found.get("PresentationLUTShape") == "INVERSE")
        return 255 - grey if inverse else grey
    if kind == "PALETTE COLOR":
        bits = 16 if found.RedPaletteColorLookupTableDescriptor[2] > 8 else 8
        return _levels(apply_color_lut(stored, found)[..., :3], 0, 2**bits - 1)
    return _levels(stored, 0, 2**found.BitsStored - 1)


def _grey(found: "Dataset", stored: NDArray[Any]) -> Pixels:
    from pydicom.pixels import apply_modality_lut, apply_voi_lut, apply_windowing

    values = apply_modality_lut(stored, found)
    if found.get("VOILUTSequence"):
        bits = found.VOILUTSequence[0].LUTDescriptor[2]
        return _levels(apply_voi_lut(values, found), 0, 2**bits - 1)
    if found.get("WindowWidth") is not None and found.get("WindowCenter") is not None:
        with np.errstate(over="ignore"):  # of the exponential in SIGMOID, far out
            low, high = apply_windowing(np.array([-FAR, FAR]), found)
            return _levels(apply_windowing(values, found), low, high)
    bits, signed = found.BitsStored, found.PixelRepresentation == 1
    ends = np.array([-(2 ** (bits - 1)), 2 ** (bits - 1) - 1] if signed else [0, 2**bits - 1])
    low, high = apply_modality_lut(ends.astype(stored.dtype), found)
    return _levels(values, min(low, high), max(low, high))


def _levels(values: NDArray[Any], low: float, high: float) -> Pixels:
    """Values from `low`, black, to `high`, white, as uint8."""
    share = (values.astype(np.float64) - low) * (255 / (high - low))
    return np.clip(np.rint(share), 0, 255).astype(np.uint8)
