"""Formats that are known and not read, by their first bytes, so that a refusal names them."""

import re
from typing import Final

PHOTO: Final = "convert it to PNG or JPEG"
FLAT: Final = "convert it to PNG"
DEEP: Final = "convert it to PNG of 16 bits or .npy"
LOOKED_AT: Final = 1024  # bytes; a pattern with two gaps takes the square of their length
ANY: Final = re.DOTALL
FOREIGN: Final[tuple[tuple[re.Pattern[bytes], str, str], ...]] = (
    (re.compile(rb"\0\0\0\x0cJXL |\xff\x0a"), "JPEG XL", PHOTO),
    (re.compile(rb"II\+\0|MM\0\+"), "BigTIFF", "convert it to TIFF or PNG"),
    (re.compile(rb"II\xbc\x01"), "JPEG XR", PHOTO),
    (re.compile(rb"....ftypcrx ", ANY), "a camera's raw file (CR3)", PHOTO),
    (re.compile(rb"FUJIFILMCCD-RAW|IIRO|IIRS|IIU\0"), "a camera's raw file", PHOTO),
    (re.compile(rb"....ftyp", ANY), "a video or an unknown kind of HEIF", PHOTO),
    (re.compile(rb"\x1aE\xdf\xa3|RIFF....AVI ", ANY), "a video", PHOTO),
    (re.compile(rb"\0\0[\1\2]\0[^\0]\0", ANY), "ICO or CUR", FLAT),
    (re.compile(rb"8BPS"), "PSD", FLAT),
    (re.compile(rb"DDS "), "DDS", FLAT),
    (re.compile(rb"qoif"), "QOI", FLAT),
    (re.compile(rb"gimp xcf"), "XCF", FLAT),
    (re.compile(rb"icns"), "ICNS", FLAT),
    (re.compile(rb"\x0a[\0-\5]\x01[\1\2\4\x08]"), "PCX", FLAT),
    (re.compile(rb"\x01\xda[\0\1][\1\2]"), "SGI", FLAT),
    (re.compile(rb"\x59\xa6\x6a\x95"), "Sun raster", FLAT),
    (re.compile(rb"P7\s|P[Ff]\s"), "PAM or PFM", DEEP),
    (re.compile(rb"\x76\x2f\x31\x01"), "OpenEXR", DEEP),
    (re.compile(rb"#\?(RADIANCE|RGBE)"), "Radiance HDR", DEEP),
    (re.compile(rb"SIMPLE  ="), "FITS", DEEP),
    (re.compile(rb"\x89HDF"), "HDF5", DEEP),
    (re.compile(rb".{344}n[i+]1\0", ANY), "NIfTI", DEEP),
    (re.compile(rb"%PDF-|%!PS"), "a document (PDF or PostScript)", PHOTO),
    (
        re.compile(
            rb"(\xef\xbb\xbf)?\s*(<\?xml[^>]*>)?\s*(<!--.{0,1000}?-->\s*)?(<!DOCTYPE svg[^>]*>\s*)?<svg\b",
            ANY,
        ),
        "SVG",
        FLAT,
    ),
    (
        re.compile(rb"PK\x03\x04|\x1f\x8b|Rar!\x1a|7z\xbc\xaf\x27\x1c"),
        "an archive",
        "take the images out of it",
    ),
    # Without any mark at its start: kind of palette and image, then its depth in bits.
    (re.compile(rb".[\0\1][\1-\3\x09-\x0b].{13}[\x08\x0f\x10\x18\x20].", ANY), "TGA", FLAT),
)


def named(data: bytes) -> str:
    """What a file of a known format is and what to do with it; empty where no format is recognised."""
    start = data[:LOOKED_AT]
    for magic, name, advice in FOREIGN:
        if magic.match(start):
            return f"it is {name}, which is not read; {advice}"
    return ""
