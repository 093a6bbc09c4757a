"""HEIC, as phones write it: colours, depth, opacity, orientation, and the refusal without its extra."""

import io
import sys

import numpy as np
import pillow_heif
import pytest
from image_files import noise, plain
from PIL import Image

from nightshift.config import PreprocessSettings
from nightshift.data.decoding.pool import Decoded, DecoderPool, decode_for_shard
from nightshift.data.images import UnreadableError, decode, inspect, load

SETTINGS = PreprocessSettings(image_size=32)
RED = (255, 0, 0)


def heic(image: Image.Image, **options: object) -> bytes:
    buffer = io.BytesIO()
    made = pillow_heif.from_pillow(image)
    made.save(buffer, quality=-1, **{"chroma": 444, **options})
    return buffer.getvalue()


def test_a_heic_is_seen_with_its_size_and_colours() -> None:
    data = heic(Image.fromarray(plain(RED, height=40, width=60)))
    header = inspect(data)
    assert header.format == "HEIC"
    assert (header.complete, header.frames) == (True, 1)
    image = decode(data, SETTINGS)
    assert (image.format, image.width, image.height) == ("HEIC", 60, 40)
    assert image.pixels.shape == (40, 60, 3)
    assert np.abs(image.pixels.astype(int) - RED).max() <= 3


def test_a_lossless_heic_has_the_pixels_that_were_put_in() -> None:
    image = noise(64, 64)
    found = decode(heic(Image.fromarray(image), matrix_coefficients=0), SETTINGS).pixels
    assert np.array_equal(found, image)


@pytest.mark.parametrize("level", [0, 341, 682, 1023])
def test_10_bits_become_8(level: int) -> None:
    deep = np.full((32, 32, 3), level << 6, np.uint16)
    made = pillow_heif.from_bytes("RGB;16", (32, 32), deep.tobytes())
    buffer = io.BytesIO()
    made.save(buffer, quality=-1, chroma=444, matrix_coefficients=0)
    found = decode(buffer.getvalue(), SETTINGS).pixels
    assert np.abs(found.astype(int) - round(level * 255 / 1023)).max() <= 1


def test_grey_is_repeated_and_opacity_composited_on_black() -> None:
    grey = np.full((32, 32), 100, np.uint8)
    assert np.abs(decode(heic(Image.fromarray(grey)), SETTINGS).pixels.astype(int) - 100).max() <= 1
    clear = decode(heic(Image.fromarray(plain((255, 0, 0, 128), height=32, width=32))), SETTINGS).pixels
    assert np.abs(clear.astype(int) - (128, 0, 0)).max() <= 3


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_phone_s_orientation_is_undone_once(orientation: int) -> None:
    upright = np.zeros((32, 64, 3), np.uint8)
    upright[:16, :32] = RED
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x112] = orientation
    picture = Image.fromarray(np.ascontiguousarray(stored))
    buffer = io.BytesIO()
    made = pillow_heif.from_pillow(picture)
    made.save(buffer, quality=-1, chroma=444, exif=exif.tobytes())
    found = load(buffer.getvalue(), PreprocessSettings(image_size=64, resize="letterbox"))
    assert (found.width, found.height) == (64, 32)
    assert found.pixels[16:32, :32, 0].mean() > 240
    assert found.pixels[16:32, 33:].max() < 20
    assert found.pixels[33:].max() < 20


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
def test_a_truncated_heic_is_refused(share: float) -> None:
    data = heic(Image.fromarray(noise(64, 64)))
    with pytest.raises(UnreadableError) as caught:
        decode(data[: int(len(data) * share)], SETTINGS)
    assert caught.value.reason in ("truncated", "damaged")


def test_too_many_pixels_are_refused_by_the_header_alone() -> None:
    with pytest.raises(UnreadableError, match=r"HEIC of 64x64 pixels is over the limit") as caught:
        decode(heic(Image.fromarray(noise(64, 64))), SETTINGS.model_copy(update={"max_pixels": 4095}))
    assert caught.value.reason == "too-large"


def test_it_is_decoded_in_the_guarded_processes() -> None:
    data = heic(Image.fromarray(noise(64, 64)))
    with DecoderPool(decode_for_shard, SETTINGS) as decoders:
        first, second = decoders.map([data, data[:-100]])
    assert isinstance(first, Decoded)
    assert first.format == "HEIC"
    assert isinstance(second, UnreadableError)


def test_without_its_extra_the_refusal_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    data = heic(Image.fromarray(noise(64, 64)))
    monkeypatch.setitem(sys.modules, "pi_heif", None)
    with pytest.raises(UnreadableError) as caught:
        decode(data, SETTINGS)
    assert (caught.value.reason, caught.value.detail) == (
        "unsupported",
        "HEIC needs the extra heic of nightshift (pi-heif), which is not installed here; install it, or "
        "convert the file to PNG or JPEG",
    )
