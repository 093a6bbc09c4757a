"""What a header says: format, size, frames, orientation, and whether the file is whole."""

import io
import struct

import numpy as np
import pytest
from image_files import tiff as made_tiff
from PIL import Image

from nightshift.config import PreprocessSettings
from nightshift.data.formats import Header, UnreadableError, inspect, jpeg, tiff
from nightshift.data.images import decode

WHOLE = {
    "JPEG": ("JPEG", {}),
    "PNG": ("PNG", {}),
    "WebP": ("WEBP", {}),
    "BMP": ("BMP", {}),
    "GIF": ("GIF", {}),
    "TIFF": ("TIFF", {}),
    "PPM": ("PPM", {}),
    "JPEG 2000": ("JPEG2000", {}),
    "AVIF": ("AVIF", {}),
}


def picture(seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (40, 60, 3), dtype=np.uint8))


def saved(image: Image.Image, format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def reason_of(data: bytes) -> str:
    with pytest.raises(UnreadableError) as caught:
        inspect(data)
    return caught.value.reason


@pytest.mark.parametrize("name", WHOLE)
def test_size_and_completeness_come_from_the_header(name: str) -> None:
    format, options = WHOLE[name]
    data = saved(picture(), format, **options)
    assert inspect(data) == Header(name, 60, 40, complete=True)
    assert inspect(data + b"trailer") == Header(name, 60, 40, complete=True)
    assert not inspect(data[: len(data) * 3 // 4]).complete


@pytest.mark.parametrize(
    ("format", "options"),
    [
        ("WEBP", {"lossless": True}),
        ("WEBP", {"exif": b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0"}),
        ("JPEG", {"progressive": True}),
        ("JPEG2000", {"no_jp2": True}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("PNG", {"optimize": True}),
    ],
)
def test_every_kind_of_a_format_has_its_size(format: str, options: dict[str, object]) -> None:
    assert inspect(saved(picture(), format, **options))[1:4] == (60, 40, True)


@pytest.mark.parametrize("mode", ["1", "L", "RGB"])
def test_netpbm_of_every_depth_is_measured(mode: str) -> None:
    data = saved(picture().convert(mode), "PPM")
    assert inspect(data) == Header("PPM", 60, 40, complete=True)
    assert not inspect(data[:-1]).complete
    commented = data.replace(b"\n", b"\n# a comment\n", 1)
    assert inspect(commented) == Header("PPM", 60, 40, complete=True)


def test_netpbm_of_16_bits_needs_two_bytes_a_number() -> None:
    header = b"P5 3 2 65535\n"
    assert inspect(header + bytes(12)).complete
    assert not inspect(header + bytes(11)).complete


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG", "TIFF", "AVIF"])
def test_several_pictures_are_seen(format: str) -> None:
    data = saved(picture(), format, save_all=True, append_images=[picture(1), picture(2)])
    assert inspect(data).frames == (2 if format == "AVIF" else 3)
    assert inspect(saved(picture(), format)).frames == 1


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_is_found(format: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x112] = orientation
    assert inspect(saved(picture(), format, exif=exif)).orientation == orientation


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_a_senseless_orientation_means_upright(value: int) -> None:
    exif = Image.Exif()
    exif[0x112] = value
    assert inspect(saved(picture(), "JPEG", exif=exif)).orientation == 1


def test_a_first_picture_that_is_whole_is_enough_for_a_gif() -> None:
    data = saved(picture(), "GIF", save_all=True, append_images=[picture(1)])
    second = data.rindex(struct.pack("<BHHHH", 0x2C, 0, 0, 60, 40))
    assert inspect(data[:second])[3:5] == (True, 1)
    assert not inspect(data[: second // 2]).complete


def test_the_strips_of_a_tiff_must_lie_inside_the_file() -> None:
    data = saved(picture(), "TIFF", compression="tiff_lzw")
    pieces = tiff.pieces(tiff.tags(data))
    assert pieces
    at = data.index(struct.pack("<HH", 273, 4)) + 8
    beyond = data[:at] + struct.pack("<I", len(data)) + data[at + 4 :]
    assert inspect(data).complete
    assert not inspect(beyond).complete


@pytest.mark.parametrize("rows", [8, 3, 1])
@pytest.mark.parametrize("counts", [10**6, 5, 0])
def test_a_wrong_byte_count_of_a_plain_tiff_does_no_harm_where_all_pixels_are_there(
    rows: int, counts: int
) -> None:
    strips = range(0, 8, rows)
    pixels = bytes(range(80))
    tags = {"t273": ("I", [8 + 10 * row for row in strips]), "t278": ("I", [rows])}
    data = made_tiff(8, 1, pixels, 10, 8, **tags, t279=("I", [counts] * len(strips)))
    assert inspect(data) == Header("TIFF", 10, 8, complete=True)
    seen = decode(data, PreprocessSettings()).pixels
    assert np.array_equal(seen[..., 0], np.arange(80).reshape(8, 10))
    tags["t273"] = ("I", [len(data) - 9 + 10 * row for row in strips])
    assert not inspect(made_tiff(8, 1, pixels, 10, 8, **tags, t279=("I", [counts] * len(strips)))).complete


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"\0\0\1\0\1\0\x10\x10", "it is ICO or CUR, which is not read; convert it to PNG"),
        (b"\0\0\2\0\1\0\x10\x10", "it is ICO or CUR, which is not read; convert it to PNG"),
        (b"8BPS\0\1", "it is PSD, which is not read; convert it to PNG"),
        (b"DDS |\0\0\0", "it is DDS, which is not read; convert it to PNG"),
        (b"qoif\0\0\0\1", "it is QOI, which is not read; convert it to PNG"),
        (b"\0\0\2" + bytes(9) + b"\x10\0\x10\0\x18\0", "it is TGA, which is not read; convert it to PNG"),
        (b"\0\1\x09" + bytes(9) + b"\x10\0\x10\0\x08\0", "it is TGA, which is not read; convert it to PNG"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "it is JPEG XL, which is not read; convert it to PNG or JPEG"),
        (b"\xff\x0a\0", "it is JPEG XL, which is not read; convert it to PNG or JPEG"),
        (b"II+\0\x08\0", "it is BigTIFF, which is not read; convert it to TIFF or PNG"),
        (b"\0\0\0\x18ftypcrx \0", "it is a camera's raw file (CR3), which is not read"),
        (b"\0\0\0\x18ftypmp42", "it is a video or an unknown kind of HEIF, which is not read"),
        (b"P7\nWIDTH 1\n", "it is PAM or PFM, which is not read; convert it to PNG of 16 bits or .npy"),
        (b"PF\n1 1\n", "it is PAM or PFM, which is not read; convert it to PNG of 16 bits or .npy"),
        (b"v/1\x01\2\0", "it is OpenEXR, which is not read; convert it to PNG of 16 bits or .npy"),
        (b"#?RADIANCE\n", "it is Radiance HDR, which is not read"),
        (b"SIMPLE  =      T", "it is FITS, which is not read"),
        (b"\x0a\5\1\x08", "it is PCX, which is not read"),
        (b"%PDF-1.7", "it is a document (PDF or PostScript), which is not read"),
        (b"<?xml version='1.0'?>\n<svg xmlns='x'/>", "it is SVG, which is not read; convert it to PNG"),
        (b"PK\3\4", "it is an archive, which is not read; take the images out of it"),
    ],
)
def test_a_known_format_that_is_not_read_is_named(data: bytes, name: str) -> None:
    with pytest.raises(UnreadableError) as caught:
        inspect(data)
    assert caught.value.reason == "unsupported"
    assert caught.value.detail.startswith(name)


def test_the_first_of_two_equal_tags_counts() -> None:
    entries = [(256, 3, 1, 7), (257, 3, 1, 5), (256, 3, 1, 9)]
    data = b"II*\0\x08\0\0\0" + struct.pack("<H", 3) + b"".join(struct.pack("<HHII", *e) for e in entries)
    assert inspect(data)[1:3] == (7, 5)


def test_the_segments_of_a_jpeg_end_at_the_scan() -> None:
    data = saved(picture(), "JPEG")
    segments = list(jpeg.segments(data))
    assert [segment.marker for segment in segments[:1]] == [0xE0]
    assert segments[-1].marker == 0xDA
    assert data[segments[0].start : segments[0].start + 2] == b"\xff\xe0"


def test_a_thumbnail_s_size_is_not_taken_for_the_image_s() -> None:
    thumbnail = b"Exif\0\0" + saved(picture().resize((16, 16)), "JPEG")
    jpeg = saved(picture(), "JPEG")
    data = jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(thumbnail) + 2) + thumbnail + jpeg[2:]
    assert inspect(data)[1:4] == (60, 40, True)
    assert not inspect(data[:-2]).complete


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"\xff\xd8\xff\xd9", "damaged"),
        (b"\xff\xd8\xff\xe0\0", "truncated"),
        (b"II*\0\xff\xff\xff\xff", "truncated"),
        (b"RIFF\0\0\0\0WEBPVP8 ", "truncated"),
        (b"GIF89a", "truncated"),
        (b"\0\0\0\x20ftypheic" + bytes(20), "damaged"),
        (b"II+\0" + bytes(20), "unsupported"),
        (b"\0\0\0\x20ftypavif" + bytes(20), "damaged"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "damaged"),
        (b"P6 x", "damaged"),
        (b"<html><body>not found</body></html>", "not-an-image"),
    ],
)
def test_what_has_no_header_of_ours_says_why(data: bytes, reason: str) -> None:
    assert reason_of(data) == reason


def test_memory_for_a_strip_or_tile_is_that_of_its_image() -> None:
    """A decoder takes room for what a JPEG inside of a strip says, and for what a tile says."""
    pixels = saved(Image.new("L", (16, 8), 200), "JPEG")
    whole = made_tiff(8, 1, pixels, 16, 8, t259=("H", [7]))
    assert set(decode(whole, PreprocessSettings()).pixels.ravel()) == {200}
    at = pixels.index(b"\xff\xc0") + 5
    large = pixels[:at] + struct.pack(">HH", 58000, 58000) + pixels[at + 4 :]
    with pytest.raises(UnreadableError, match="a strip of 16x8 pixels holds a JPEG of 58000x58000"):
        decode(made_tiff(8, 1, large, 16, 8, t259=("H", [7])), PreprocessSettings())
    tiles = {f"t{tag}": ("I", [value]) for tag, value in ((322, 58000), (323, 58000), (324, 8), (325, 9))}
    with pytest.raises(UnreadableError, match="its tiles are 58000x58000 pixels of an image of 16x8"):
        decode(made_tiff(8, 1, bytes(9), 16, 8, t259=("H", [5]), **tiles), PreprocessSettings())
