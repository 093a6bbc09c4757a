"""Bytes to pixels: colours, depths, orientation, scaled decoding, and what is refused."""

import io
import struct
import zlib
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import cv2
import numpy as np
import pytest
from image_files import encoded, noise, plain, saved, with_orientation
from PIL import Image

from nightshift.config import PreprocessSettings
from nightshift.data.images import Pixels, UnreadableError, decode, load, prepare, stored

SETTINGS = PreprocessSettings(image_size=32)
RED = (255, 0, 0)


def seen(data: bytes) -> Pixels:
    return decode(data, SETTINGS).pixels


def reason_of(data: bytes, **changes: object) -> str:
    with pytest.raises(UnreadableError) as caught:
        decode(data, SETTINGS.model_copy(update=changes))
    assert str(caught.value) == caught.value.detail
    return caught.value.reason


@pytest.mark.parametrize("extension", [".jpg", ".png", ".bmp", ".webp", ".tiff", ".ppm", ".gif"])
def test_pure_red_is_red(extension: str) -> None:
    image = seen(encoded(extension, plain(RED)))
    assert image.shape == (20, 30, 3)
    assert image.dtype == np.uint8
    assert np.abs(image.astype(int) - RED).max() <= 4  # JPEG and GIF are not exact


@pytest.mark.parametrize("extension", [".tiff", ".png", ".ppm"])
def test_pure_red_in_16_bits_is_red(extension: str) -> None:
    image = seen(encoded(extension, plain((65535, 0, 0), np.uint16)))
    assert (image == RED).all()


def test_16_bits_are_divided_by_257_and_rounded() -> None:
    values = np.arange(65536).reshape(256, 256)
    image = seen(encoded(".png", values.astype(np.uint16)))
    assert np.array_equal(image, np.repeat(((values + 128) // 257)[..., None], 3, axis=2))


def test_grey_is_repeated_over_the_channels() -> None:
    grey = np.arange(64, dtype=np.uint8).reshape(8, 8)
    assert (seen(encoded(".png", grey)) == grey[..., None]).all()


@pytest.mark.parametrize("extension", [".png", ".webp"])
def test_transparency_is_composited_on_black(extension: str) -> None:
    image = seen(encoded(extension, plain((255, 0, 0, 128))))
    assert np.abs(image.astype(int) - (128, 0, 0)).max() <= 1


def test_transparency_is_rounded_exactly() -> None:
    colour, opacity = np.meshgrid(np.arange(256), np.arange(256))
    rgba = np.stack([colour, colour, colour, opacity], axis=2).astype(np.uint8)
    expected = (colour * opacity + 127) // 255
    assert np.array_equal(seen(encoded(".png", rgba))[..., 0], expected)


@pytest.mark.parametrize(("extra", "stored"), [(1, 128), (2, 255)], ids=["multiplied", "separate"])
def test_transparency_of_a_tiff_is_composited_once(extra: int, stored: int) -> None:
    """Its red is stored multiplied by the opacity, or not; both mean half of a full red."""
    pixels = bytes((stored, 0, 0, 128)) * 4
    tags = (
        (256, 2),
        (257, 2),
        (258, 8),
        (259, 1),
        (262, 2),
        (273, 0),
        (277, 4),
        (278, 2),
        (279, 16),
        (338, extra),
    )
    bits_at = 8 + 2 + 12 * len(tags) + 4
    values = dict(tags) | {258: bits_at, 273: bits_at + 8}
    entries = [(tag, 4 if tag == 273 else 3, 4 if tag == 258 else 1, value) for tag, value in values.items()]
    rows = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    tiff = (
        b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + rows + bytes(4) + struct.pack("<4H", 8, 8, 8, 8)
    )
    assert (seen(tiff + pixels) == (128, 0, 0)).all()


def test_a_palette_is_looked_up() -> None:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 2, 1, 8, 3, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"PLTE", bytes([0, 0, 255, 255, 0, 0]))
    png += chunk(b"IDAT", zlib.compress(b"\0\0\1")) + chunk(b"IEND", b"")
    assert seen(png).tolist() == [[[0, 0, 255], [255, 0, 0]]]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_undone(orientation: int) -> None:
    """Quadrants red, green, blue, grey, stored as a camera held in each of the eight ways would."""
    upright = np.zeros((32, 48, 3), np.uint8)
    upright[:16, :24], upright[:16, 24:], upright[16:, :24], upright[16:, 24:] = (
        RED,
        (0, 255, 0),
        (0, 0, 255),
        128,
    )
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),  # shown after a quarter turn clockwise
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    image = seen(with_orientation(encoded(".jpg", stored), orientation))
    assert image.shape == upright.shape
    assert np.abs(image.astype(int) - upright).mean() < 8


@pytest.mark.parametrize("extension", [".jpg", ".png", ".webp", ".tiff", ".bmp", ".ppm", ".gif"])
@pytest.mark.parametrize("share", [0.02, 0.1, 0.5, 0.9, 0.99])
def test_a_truncated_file_is_refused(extension: str, share: float) -> None:
    data = encoded(extension, noise())
    assert reason_of(data[: int(len(data) * share)]) in ("truncated", "damaged", "not-an-image")


def test_a_damaged_png_is_refused() -> None:
    data = bytearray(encoded(".png", noise()))
    data[len(data) // 2] ^= 0xFF
    assert reason_of(bytes(data)) == "damaged"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"hello, I am a text file", "not-an-image"),
        (b"<html><svg xmlns='http://www.w3.org/2000/svg'/></html>", "not-an-image"),
        (b"\xff\xd8\xff", "truncated"),
        (b"\x89PNG\r\n\x1a\n", "truncated"),
        (b"\0\0\0\x20ftypheic" + bytes(20), "damaged"),
        (b"\0\0\0\x20ftypavif" + bytes(20), "damaged"),
        (b"P6\n# no size\n", "damaged"),
    ],
)
def test_what_is_no_image_says_why(data: bytes, reason: str) -> None:
    assert reason_of(data) == reason


@pytest.mark.parametrize("extension", [".jpg", ".png", ".webp", ".tiff", ".bmp", ".gif", ".ppm"])
def test_too_many_pixels_are_refused_by_the_header_alone(extension: str) -> None:
    data = encoded(extension, noise())
    assert decode(data, SETTINGS.model_copy(update={"max_pixels": 2400})).pixels.shape == (40, 60, 3)
    assert reason_of(data, max_pixels=2399) == "too-large"
    assert reason_of(data, max_side=59) == "too-large"


def test_floating_point_pixels_are_refused() -> None:
    assert reason_of(bytes(cv2.imencode(".tiff", np.ones((4, 4), np.float32))[1])) == "unsupported"


def test_a_refusal_survives_a_process_boundary() -> None:
    with (
        ProcessPoolExecutor(1, get_context("spawn")) as pool,
        pytest.raises(UnreadableError, match="the file has no bytes") as caught,
    ):
        pool.submit(decode, b"", SETTINGS).result()
    assert caught.value.reason == "empty"


def test_prepare_takes_the_model_s_side_or_the_one_asked_for() -> None:
    settings = PreprocessSettings(image_size=16, stored_size=24, resize="crop")
    data = encoded(".png", noise())
    assert prepare(data, settings).shape == (16, 16, 3)
    assert stored(data, settings).shape == (24, 24, 3)
    assert np.array_equal(prepare(data, settings), stored(data, settings)[4:20, 4:20])
    assert prepare(data, settings).flags.c_contiguous
    with pytest.raises(UnreadableError, match=r"preprocess.max_pixels"):
        prepare(data, settings.model_copy(update={"max_pixels": 100}))


def test_the_inks_of_a_cmyk_jpeg_become_rgb_as_pillow_makes_them() -> None:
    inks = np.random.default_rng(0).integers(0, 256, (6, 9, 4), dtype=np.uint8)
    data = saved(Image.fromarray(inks, "CMYK").resize((90, 60)), "JPEG", quality=95)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)
    assert np.abs(seen(data) - expected).max() <= 2


@pytest.mark.parametrize(
    ("format", "options"),
    [
        *(("TIFF", {"compression": name}) for name in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits")),
        ("JPEG2000", {}),
        ("JPEG2000", {"no_jp2": True}),
        ("WEBP", {"lossless": True}),
        ("BMP", {}),
        ("PPM", {}),
        ("PNG", {"interlace": 1}),
    ],
)
def test_lossless_files_keep_every_pixel(format: str, options: dict[str, object]) -> None:
    image = noise()
    assert np.array_equal(seen(saved(Image.fromarray(image), format, **options)), image)


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG", "TIFF", "AVIF"])
def test_of_several_pictures_the_first_is_taken_or_the_file_refused(format: str) -> None:
    colours = [Image.new("RGB", (60, 40), colour) for colour in ("red", "blue", "green")]
    data = saved(colours[0], format, save_all=True, append_images=colours[1:])
    assert np.abs(seen(data).astype(int) - RED).max() <= 4
    assert reason_of(data, animated="refuse") == "animated"
    decode(saved(colours[0], format), SETTINGS.model_copy(update={"animated": "refuse"}))


def test_a_turned_avif_is_turned_back() -> None:
    image = plain(RED, height=40, width=60)
    image[:, 30:] = 0
    exif = Image.Exif()
    exif[274] = 6
    turned = seen(saved(Image.fromarray(image), "AVIF", exif=exif, quality=100))
    assert turned.shape == (60, 40, 3)
    assert turned[:20, :, 0].min() > 200
    assert turned[40:].max() < 50


def test_a_file_of_too_many_bytes_is_refused_unread() -> None:
    assert reason_of(encoded(".png", noise()) + bytes(2**20), max_megabytes=1) == "too-large"


def test_a_few_stray_bytes_in_a_jpeg_do_no_harm() -> None:
    jpeg = encoded(".jpg", noise())
    tables, end = jpeg.index(b"\xff\xdb"), jpeg.rindex(b"\xff\xd9")
    assert np.array_equal(seen(jpeg[:tables] + b"stray" + jpeg[tables:]), seen(jpeg))
    assert np.array_equal(seen(jpeg[:end] + bytes(16) + jpeg[end:]), seen(jpeg))
    assert reason_of(jpeg[:tables] + b"stray" * 20 + jpeg[tables:]) == "damaged"
    assert reason_of(jpeg[:end] + b"stray" * 3 + jpeg[end:]) == "damaged"


def test_a_thumbnail_is_never_taken_for_the_image() -> None:
    """The EXIF segment claims to end inside its thumbnail, whose tables and pixels come next then."""
    thumbnail = encoded(".jpg", plain(RED))
    exif = b"Exif\0\0" + thumbnail
    jpeg = encoded(".jpg", noise())
    length = len(b"Exif\0\0") + thumbnail.index(b"\xff\xdb") - 3
    data = jpeg[:2] + b"\xff\xe1" + struct.pack(">H", length + 2) + exif + jpeg[2:]
    assert np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).shape == (20, 30, 3)
    assert reason_of(data) == "damaged"


def test_lossless_jpeg_is_unsupported() -> None:
    jpeg = bytearray(encoded(".jpg", noise()))
    jpeg[jpeg.index(b"\xff\xc0") + 1] = 0xC3
    assert reason_of(bytes(jpeg)) == "unsupported"


@pytest.mark.parametrize("resize", ["crop", "letterbox", "stretch"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_scaled_decoding_makes_nearly_the_same_pixels(resize: str, orientation: int) -> None:
    coarse = np.random.default_rng(0).integers(0, 256, (30, 45, 3), dtype=np.uint8)
    photo = cv2.resize(coarse, (901, 603), interpolation=cv2.INTER_CUBIC)
    data = with_orientation(encoded(".jpg", photo), orientation)
    settings = PreprocessSettings.model_validate({"image_size": 32, "resize": resize})
    scaled = load(data, settings)
    whole = load(data, settings.model_copy(update={"scaled_decoding": False}))
    assert scaled[1:] == whole[1:] == ("JPEG", *((901, 603) if orientation == 1 else (603, 901)))
    apart = np.abs(scaled.pixels.astype(int) - whole.pixels)
    assert 0 < apart.max() <= 16
    assert apart.mean() < 3


def test_every_orientation_gives_the_same_square() -> None:
    upright = cv2.GaussianBlur(noise(400, 300), (0, 0), 12)
    settings = PreprocessSettings(image_size=32)
    expected = stored(encoded(".jpg", upright), settings).astype(int)
    for orientation, turned in (
        (3, upright[::-1, ::-1]),
        (6, np.rot90(upright, 1)),
        (8, np.rot90(upright, -1)),
    ):
        square = stored(with_orientation(encoded(".jpg", turned), orientation), settings)
        assert np.abs(square - expected).max() <= 4


def test_a_png_that_counts_no_frames_shows_its_picture() -> None:
    png = encoded(".png", noise())
    animation = b"acTL" + bytes(8)
    chunk = struct.pack(">I", 8) + animation + struct.pack(">I", zlib.crc32(animation))
    assert np.array_equal(seen(png[:33] + chunk + png[33:]), noise())
