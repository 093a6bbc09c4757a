"""Odd, damaged and hostile files: each becomes an image or a reason, the same one every time."""

import csv
import functools
import io
import random
import re
import struct
import tarfile
import zlib
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from pillow_heif import register_heif_opener

from nightshift.config import PreprocessSettings
from nightshift.data.decoding.pool import Decoded, DecoderPool, decode_for_shard
from nightshift.data.images import UnreadableError

DATA = Path(__file__).parents[2] / "shared" / "data"
VERDICTS = Path(__file__).with_name("hostile_verdicts.md")
register_heif_opener()  # for writing
SETTINGS = PreprocessSettings(image_size=32, max_pixels=20_000_000)
REASONS = {"empty", "not-an-image", "unsupported", "too-large", "truncated", "damaged"}
FORMATS = {
    "JPEG": {},
    "JPEG progressive": {"progressive": True},
    "PNG": {},
    "WEBP": {},
    "WEBP lossless": {"lossless": True},
    "TIFF lzw": {"compression": "tiff_lzw"},
    "TIFF deflate": {"compression": "tiff_adobe_deflate"},
    "TIFF jpeg": {"compression": "jpeg"},
    "TIFF": {},
    "BMP": {},
    "GIF": {},
    "PPM": {},
    "JPEG2000": {},
    "AVIF": {},
    "HEIF": {},
}


@pytest.fixture(scope="module")
def decoders() -> Iterator[DecoderPool]:
    with DecoderPool(decode_for_shard, SETTINGS, processes=1) as pool:
        yield pool


def photo() -> Image.Image:
    """Smooth shapes with some noise, so that every coder has something to do."""
    generator = np.random.default_rng(0)
    coarse = generator.integers(0, 256, (6, 9, 3), dtype=np.uint8)
    smooth = cv2.resize(coarse, (144, 96), interpolation=cv2.INTER_CUBIC).astype(int)
    noise = generator.integers(-8, 9, (96, 144, 3))
    return Image.fromarray(np.clip(smooth + noise, 0, 255).astype(np.uint8))


def encoded(name: str) -> bytes:
    buffer = io.BytesIO()
    photo().save(buffer, name.split()[0], **FORMATS[name])
    return buffer.getvalue()


def verdicts(results: list[Decoded | UnreadableError]) -> list[str]:
    return ["ok" if isinstance(result, Decoded) else result.reason for result in results]


def same(first: Decoded | UnreadableError, second: Decoded | UnreadableError) -> bool:
    if isinstance(first, Decoded) and isinstance(second, Decoded):
        return first[1:] == second[1:] and np.array_equal(first.pixels, second.pixels)
    return (
        isinstance(first, UnreadableError)
        and isinstance(second, UnreadableError)
        and first.args == second.args
    )


def explanations() -> dict[str, str]:
    rows = re.findall(r"^\| `(.+?)` \| (\S+) \| .{20,} \|$", VERDICTS.read_text(encoding="utf-8"), re.M)
    return dict(rows)


def odd_files() -> dict[str, bytes]:
    archive = DATA / "odd-images.tar.xz"
    if not archive.exists():
        pytest.skip("the collection of odd images is not beside this checkout")
    with tarfile.open(archive) as pack:
        return {member.name: pack.extractfile(member).read() for member in pack if member.isfile()}  # type: ignore[union-attr]


def test_every_odd_file_ends_as_pillow_says_or_as_the_table_explains(decoders: DecoderPool) -> None:
    files = odd_files()
    with (DATA / "odd-images-pillow-verdict.csv").open(encoding="utf-8") as table:
        pillow = {row["path"]: row["verdict"] == "ok" for row in csv.DictReader(table)}
    first, second = (list(decoders.map(files[path] for path in pillow)) for _ in range(2))
    assert all(same(one, other) for one, other in zip(first, second, strict=True))
    ours = dict(zip(pillow, verdicts(first), strict=True))
    assert set(ours.values()) <= REASONS | {"ok"}
    apart = {path: verdict for path, verdict in ours.items() if (verdict == "ok") != pillow[path]}
    table_rows = explanations()
    unexplained = {
        path: verdict
        for path, verdict in apart.items()
        if not any(fnmatch(path, files) and verdict == reason for files, reason in table_rows.items())
    }
    assert not unexplained
    assert not [row for row in table_rows if not any(fnmatch(path, row) for path in apart)]
    assert len(apart) == 19


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_cut_anywhere_is_refused(decoders: DecoderPool, name: str) -> None:
    data = encoded(name)
    generator = random.Random(name)
    # BMP and PPM may end in a byte of padding or a line break that no pixel needs.
    cuts = [data[: generator.randrange(1, len(data) - 2)] for _ in range(60)]
    results = list(decoders.map([data, *cuts]))
    assert isinstance(results[0], Decoded)
    assert set(verdicts(results[1:])) <= REASONS


@pytest.mark.parametrize("name", FORMATS)
def test_flipped_bytes_cost_at_most_the_image(decoders: DecoderPool, name: str) -> None:
    data = encoded(name)
    generator = random.Random(name)
    files = []
    for number in range(150):
        broken = bytearray(data)
        for _ in range(generator.choice((1, 2, 8))):  # half of them in the header
            limit = min(len(data), 200) if number % 2 else len(data)
            broken[generator.randrange(limit)] ^= generator.randrange(1, 256)
        files.append(bytes(broken))
    first, second = (list(decoders.map(files)) for _ in range(2))
    assert all(same(one, other) for one, other in zip(first, second, strict=True))
    assert set(verdicts(first)) <= REASONS | {"ok", "too-much-memory"}


@pytest.mark.parametrize("name", ["PNG", "TIFF deflate"])
def test_a_flipped_byte_in_the_pixels_of_a_file_with_checksums_is_refused(
    decoders: DecoderPool, name: str
) -> None:
    data = encoded(name)
    files = []
    for at in range(len(data) // 10, len(data) * 9 // 10, len(data) // 100):
        broken = bytearray(data)
        broken[at] ^= 0x10
        files.append(bytes(broken))
    assert set(verdicts(list(decoders.map(files)))) == {"damaged"}


def test_a_jpeg_with_a_hole_is_refused(decoders: DecoderPool) -> None:
    """A sector of zeros, a sector missing, an end too early: what lenient decoders fill with grey."""
    buffer = io.BytesIO()
    photo().resize((1024, 768)).save(buffer, "JPEG")
    data = buffer.getvalue()
    scan = data.index(b"\xff\xda") + 14
    files = []
    for share in (0.1, 0.3, 0.5, 0.7, 0.9):
        at = scan + int((len(data) - scan) * share)
        files += [data[:at] + bytes(512) + data[at + 512 :], data[:at] + data[at + 512 :]]
        files.append(data[:at] + b"\xff\xd9" + data[at:])
    assert set(verdicts(list(decoders.map(files)))) == {"damaged"}


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, *chunks: bytes) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + chunk(b"IEND", b"")


@functools.cache
def bombs() -> dict[str, tuple[bytes, str]]:
    zeros = zlib.compress(bytes(64 * 2**20), 9)
    jpeg = bytearray(encoded("JPEG"))
    at = jpeg.index(b"\xff\xc0")
    jpeg[at + 5 : at + 9] = struct.pack(">HH", 65_000, 65_000)
    return {
        "a header of 60,000 x 60,000 pixels": (png(60_000, 60_000), "too-large"),
        "a JPEG of 65,000 x 65,000 pixels": (bytes(jpeg), "too-large"),
        "a GIF of 65,535 x 65,535 pixels": (b"GIF89a\xff\xff\xff\xff\0\0\0;", "too-large"),
        "a text chunk of 64 MiB": (png(8, 8, chunk(b"zTXt", b"a\0\0" + zeros)), "damaged"),
        "pixels of 64 MiB for 8 x 8": (png(8, 8, chunk(b"IDAT", zeros)), "ok"),
        "a million empty chunks": (png(8, 8, chunk(b"teSt", b"") * 1_000_000), "damaged"),
        "a million markers": (b"\xff\xd8\xff" + b"\xe0\0\x02\xff" * 1_000_000, "damaged"),
        "a million bytes between markers": (b"\xff\xd8\xff\xe0\0\x02" + b"\xff\0" * 1_000_000, "truncated"),
        "a TIFF whose directories go in circles": (
            b"II*\0\x08\0\0\0\x01\0\0\x01\x03\0\x01\0\0\0\x08\0\0\0\x08\0\0\0",
            "damaged",
        ),
        "a TIFF with 4 billion strips": (
            b"II*\0\x08\0\0\0\x01\0\x11\x01\x04\0\xff\xff\xff\xff\x08\0\0\0\0\0\0\0",
            "truncated",
        ),
        "a PPM of 10**30 pixels a side": (b"P6 " + b"9" * 31 + b" " + b"9" * 31 + b" 255\n", "too-large"),
        "numbers without end": (b"P6 " + b"9" * 100_000 + b" 1 255\n", "damaged"),
        "nothing but zeros": (bytes(1_000_000), "not-an-image"),
    }


@pytest.mark.parametrize("name", bombs())
def test_a_bomb_goes_off_nowhere(decoders: DecoderPool, name: str) -> None:
    data, reason = bombs()[name]
    assert verdicts(list(decoders.map([data]))) == [reason]


def test_bytes_and_pictures_behind_the_first_change_nothing(decoders: DecoderPool) -> None:
    second = io.BytesIO()
    photo().transpose(Image.Transpose.ROTATE_180).save(second, "PNG")
    for name in FORMATS:
        data = encoded(name)
        alone, trailed, followed = decoders.map([data, data + b"trailer" * 9, data + second.getvalue()])
        assert isinstance(alone, Decoded)
        assert same(alone, trailed), name
        assert same(alone, followed), name
