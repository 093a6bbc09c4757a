"""What a header says: format, size, frames, orientation, and whether the file is whole."""

import io
import struct

import numpy as np
import pytest
from PIL import Image

from tasks.formats import Header, Unreadable, inspect, jpeg, tiff

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
    with pytest.raises(Unreadable) as caught:
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
        (b"\0\0\0\x20ftypheic" + bytes(20), "unsupported"),
        (b"II+\0" + bytes(20), "unsupported"),
        (b"\0\0\0\x20ftypavif" + bytes(20), "damaged"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "damaged"),
        (b"P6 x", "damaged"),
        (b"%PDF-1.7", "not-an-image"),
    ],
)
def test_what_has_no_header_of_ours_says_why(data: bytes, reason: str) -> None:
    assert reason_of(data) == reason
