"""Bytes to pixels: colours, depths, orientation, geometry, and what is refused."""

import struct
import zlib
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import cv2
import numpy as np
import pytest

from tasks.config import PreprocessSettings
from tasks.images import Pixels, Unreadable, decode, inspect, prepare, resize, stored

PLENTY = 10_000_000
RED = (255, 0, 0)


def encoded(extension: str, rgb: np.ndarray) -> bytes:
    """An image file made by OpenCV from RGB(A) or grey values."""
    order = rgb if rgb.ndim == 2 else rgb[..., [2, 1, 0, *range(3, rgb.shape[2])]]
    return bytes(cv2.imencode(extension, np.ascontiguousarray(order))[1])


def plain(colour: tuple[int, ...], dtype: type = np.uint8, height: int = 20, width: int = 30) -> np.ndarray:
    return np.full((height, width, len(colour)), colour, dtype)


def noise(height: int = 40, width: int = 60) -> Pixels:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def with_orientation(jpeg: bytes, orientation: int) -> bytes:
    """The JPEG with an EXIF block that holds only the orientation."""
    tiff = struct.pack(">2sHIHHHIHHI", b"MM", 42, 8, 1, 0x112, 3, 1, orientation, 0, 0)
    exif = b"Exif\0\0" + tiff
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + jpeg[2:]


def reason_of(data: bytes, max_pixels: int = PLENTY) -> str:
    with pytest.raises(Unreadable) as caught:
        decode(data, max_pixels=max_pixels)
    assert str(caught.value) == caught.value.detail
    return caught.value.reason


@pytest.mark.parametrize("extension", [".jpg", ".png", ".bmp", ".webp", ".tiff", ".ppm", ".gif"])
def test_pure_red_is_red(extension: str) -> None:
    image = decode(encoded(extension, plain(RED)), max_pixels=PLENTY)
    assert image.shape == (20, 30, 3)
    assert image.dtype == np.uint8
    assert np.abs(image.astype(int) - RED).max() <= 4  # JPEG and GIF are not exact


@pytest.mark.parametrize("extension", [".tiff", ".png", ".ppm"])
def test_pure_red_in_16_bits_is_red(extension: str) -> None:
    image = decode(encoded(extension, plain((65535, 0, 0), np.uint16)), max_pixels=PLENTY)
    assert (image == RED).all()


@pytest.mark.parametrize(
    ("value", "expected"), [(65535, 255), (257 * 100, 100), (40000, 156), (128, 0), (129, 1)]
)
def test_16_bits_are_divided_by_257_and_rounded(value: int, expected: int) -> None:
    image = decode(encoded(".png", np.full((4, 4), value, np.uint16)), max_pixels=PLENTY)
    assert (image == expected).all()


def test_grey_is_repeated_over_the_channels() -> None:
    grey = np.arange(64, dtype=np.uint8).reshape(8, 8)
    assert (decode(encoded(".png", grey), max_pixels=PLENTY) == grey[..., None]).all()


@pytest.mark.parametrize("extension", [".png", ".webp"])
def test_transparency_is_composited_on_black(extension: str) -> None:
    image = decode(encoded(extension, plain((255, 0, 0, 128))), max_pixels=PLENTY)
    assert np.abs(image.astype(int) - (128, 0, 0)).max() <= 1


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
    assert (decode(tiff + pixels, max_pixels=PLENTY) == (128, 0, 0)).all()


def test_a_palette_is_looked_up() -> None:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 2, 1, 8, 3, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"PLTE", bytes([0, 0, 255, 255, 0, 0]))
    png += chunk(b"IDAT", zlib.compress(b"\0\0\1")) + chunk(b"IEND", b"")
    assert decode(png, max_pixels=PLENTY).tolist() == [[[0, 0, 255], [255, 0, 0]]]


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
    image = decode(with_orientation(encoded(".jpg", stored), orientation), max_pixels=PLENTY)
    assert image.shape == upright.shape
    assert np.abs(image.astype(int) - upright).mean() < 8


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_a_senseless_orientation_is_ignored(orientation: int) -> None:
    jpeg = encoded(".jpg", noise())
    assert (
        decode(with_orientation(jpeg, orientation), max_pixels=PLENTY) == decode(jpeg, max_pixels=PLENTY)
    ).all()


@pytest.mark.parametrize("extension", [".jpg", ".png", ".webp", ".tiff", ".bmp", ".ppm", ".gif"])
@pytest.mark.parametrize("share", [0.02, 0.1, 0.5, 0.9, 0.99])
def test_a_truncated_file_is_refused(extension: str, share: float) -> None:
    data = encoded(extension, noise())
    assert reason_of(data[: int(len(data) * share)]) in ("truncated", "damaged", "not-an-image")


def test_a_jpeg_without_its_end_is_refused_though_its_thumbnail_has_one() -> None:
    jpeg = encoded(".jpg", noise())
    thumbnail = b"Exif\0\0" + encoded(".jpg", plain(RED))
    data = jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(thumbnail) + 2) + thumbnail + jpeg[2:]
    decode(data, max_pixels=PLENTY)
    assert reason_of(data[:-2]) == "truncated"


def test_a_png_without_its_end_is_refused() -> None:
    assert reason_of(encoded(".png", noise())[:-12]) == "truncated"


def test_bytes_behind_the_end_do_no_harm() -> None:
    for extension in (".jpg", ".png"):
        assert decode(encoded(extension, noise()) + b"trailer" * 9, max_pixels=PLENTY).shape == (40, 60, 3)


def test_a_damaged_png_is_refused() -> None:
    data = bytearray(encoded(".png", noise()))
    data[len(data) // 2] ^= 0xFF
    assert reason_of(bytes(data)) == "damaged"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"hello, I am a text file", "not-an-image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not-an-image"),
        (b"\xff\xd8\xff", "truncated"),
        (b"\x89PNG\r\n\x1a\n", "truncated"),
        (b"\0\0\0\x20ftypavif" + bytes(20), "unsupported"),
        (b"P6\n# no size\n", "damaged"),
    ],
)
def test_what_is_no_image_says_why(data: bytes, reason: str) -> None:
    assert reason_of(data) == reason


@pytest.mark.parametrize("extension", [".jpg", ".png", ".webp", ".tiff", ".bmp", ".gif", ".ppm"])
def test_too_many_pixels_are_refused_by_the_header_alone(extension: str) -> None:
    data = encoded(extension, noise())
    assert inspect(data)[1:3] == (60, 40)
    assert decode(data, max_pixels=2400).shape == (40, 60, 3)
    assert reason_of(data, max_pixels=2399) == "too-large"


def test_a_bomb_is_refused_before_it_is_unpacked() -> None:
    data = bytearray(encoded(".png", noise()))
    data[16:24] = struct.pack(">II", 60_000, 60_000)
    assert reason_of(bytes(data)) == "too-large"


def test_floating_point_pixels_are_refused() -> None:
    assert reason_of(bytes(cv2.imencode(".tiff", np.ones((4, 4), np.float32))[1])) == "unsupported"


def test_a_refusal_survives_a_process_boundary() -> None:
    with (
        ProcessPoolExecutor(1, get_context("spawn")) as pool,
        pytest.raises(Unreadable, match="the file has no bytes") as caught,
    ):
        pool.submit(decode, b"", max_pixels=PLENTY).result()
    assert caught.value.reason == "empty"


def test_crop_takes_the_centre_square() -> None:
    image = np.zeros((8, 16, 3), np.uint8)
    image[:, 4:12] = RED
    for side in (4, 8, 16):
        assert (resize(image, side, "crop") == RED).all()
        assert (resize(image.transpose(1, 0, 2), side, "crop") == RED).all()


def test_letterbox_keeps_everything_between_black_bars() -> None:
    result = resize(plain(RED, height=8, width=16), 8, "letterbox")
    assert (result[2:6] == RED).all()
    assert not result[:2].any()
    assert not result[6:].any()
    assert resize(plain(RED, height=1, width=1000), 8, "letterbox").any()


def test_stretch_keeps_everything_without_bars() -> None:
    image = plain(RED, height=8, width=16)
    image[:, :8] = 0
    result = resize(image, 8, "stretch")
    assert (result[:, 4:] == RED).all()
    assert not result[:, :4].any()


def test_shrinking_averages_areas() -> None:
    """Every pixel counts: a fine chessboard becomes grey, not black or white."""
    board = np.indices((64, 64)).sum(0) % 2 * 255
    result = resize(np.repeat(board[..., None], 3, 2).astype(np.uint8), 8, "stretch")
    assert np.abs(result.astype(int) - 128).max() <= 1


def test_the_right_size_is_left_alone() -> None:
    image = noise(32, 32)
    for how in ("crop", "letterbox", "stretch"):
        assert (resize(image, 32, how) == image).all()


def test_prepare_takes_the_model_s_side_or_the_one_asked_for() -> None:
    settings = PreprocessSettings(image_size=16, stored_size=24, resize="crop")
    data = encoded(".png", noise())
    assert prepare(data, settings).shape == (16, 16, 3)
    assert stored(data, settings).shape == (24, 24, 3)
    assert np.array_equal(prepare(data, settings), stored(data, settings)[4:20, 4:20])
    assert prepare(data, settings).flags.c_contiguous
    with pytest.raises(Unreadable, match=r"preprocess.max_pixels"):
        prepare(data, settings.model_copy(update={"max_pixels": 100}))
