"""What black and white are in every format, value by value: depth, maximum, polarity, transparency."""

import io
import struct

import cv2
import numpy as np
import pytest
from image_files import bits, bmp, noise, plain, png, saved, tiff
from PIL import Image

from nightshift.config import PreprocessSettings
from nightshift.data.images import UnreadableError, decode

SETTINGS = PreprocessSettings(image_size=32)


def seen(data: bytes) -> np.ndarray:
    return decode(data, SETTINGS).pixels


def greys(data: bytes) -> list[int]:
    """The only row of a grey image."""
    pixels = seen(data)
    assert (pixels == pixels[..., :1]).all()
    return pixels[0, :, 0].tolist()


def spread(largest: int, most: int = 300) -> list[int]:
    """Values from 0 to the largest, some of all where they are many."""
    return sorted({round(value) for value in np.linspace(0, largest, min(largest + 1, most))})


def share(value: int, largest: int) -> int:
    return round(value * 255 / largest)


MAXIMA = (1, 2, 3, 4, 7, 10, 15, 100, 127, 254, 255, 256, 300, 1000, 1023, 4095, 40000, 65534, 65535)


@pytest.mark.parametrize("maximum", MAXIMA)
@pytest.mark.parametrize("kind", [2, 5, 3, 6])
def test_netpbm_s_maximum_is_white(kind: int, maximum: int) -> None:
    values = spread(maximum)
    channels = 3 if kind in (3, 6) else 1
    header = f"P{kind}\n# its maximum\n{len(values)} 1\n{maximum}\n".encode()
    if kind > 3:
        depth = "B" if maximum < 256 else "H"
        body = struct.pack(f">{len(values) * channels}{depth}", *np.repeat(values, channels).tolist())
    else:
        body = " ".join(str(value) for value in values for _ in range(channels)).encode() + b"\n"
    assert greys(header + body) == [share(value, maximum) for value in values]


@pytest.mark.parametrize("maximum", [1, 2, 15, 100, 254])
def test_netpbm_s_maximum_is_as_pillow_takes_it(maximum: int) -> None:
    data = f"P5\n{maximum + 1} 1\n{maximum}\n".encode() + bytes(range(maximum + 1))
    assert greys(data) == np.asarray(Image.open(io.BytesIO(data)).convert("L"))[0].tolist()


def test_netpbm_s_values_over_the_maximum_are_white() -> None:
    assert greys(b"P5\n3 1\n15\n\x00\x10\xff") == greys(b"P2\n3 1\n15\n0 16 255\n") == [0, 255, 255]


@pytest.mark.parametrize("maximum", [b"0", b"65536", b"99999999"])
def test_a_maximum_that_netpbm_does_not_know_is_damage(maximum: bytes) -> None:
    with pytest.raises(UnreadableError, match="is white; it must be 1 to 65535") as caught:
        seen(b"P5\n1 1\n" + maximum + b"\n\0\0")
    assert caught.value.reason == "damaged"


@pytest.mark.parametrize(
    "data", [b"P1\n4 1\n0 1 0 1\n", b"P1\n4 1\n0101\n", b"P4\n4 1\n" + bits([0, 1, 0, 1], 1)]
)
def test_one_is_black_in_netpbm_s_bitmaps(data: bytes) -> None:
    assert greys(data) == [255, 0, 255, 0]


def png_row(values: list[int], depth: int) -> bytes:
    return struct.pack(f">{len(values)}H", *values) if depth == 16 else bits(values, depth)


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("clear", [None, 0, 1, -1])
def test_greys_of_png_and_the_one_that_is_transparent(depth: int, clear: int | None) -> None:
    values = spread(2**depth - 1)
    grey = values[clear] if clear is not None else None
    chunks = () if grey is None else ((b"tRNS", struct.pack(">H", grey)),)
    expected = [0 if value == grey else share(value, 2**depth - 1) for value in values]
    assert greys(png(depth, 0, png_row(values, depth), len(values), *chunks)) == expected


def test_of_a_transparent_grey_only_the_bits_of_its_depth_count() -> None:
    assert greys(png(4, 0, bits([3, 15], 4), 2, (b"tRNS", b"\xff\xf3"))) == [0, 255]


@pytest.mark.parametrize("depth", [8, 16])
def test_a_transparent_colour_of_png_is_black(depth: int) -> None:
    scale = 1 if depth == 8 else 257
    colour, other = [200 * scale, 100 * scale, 50 * scale], [200 * scale, 100 * scale, 50 * scale + scale]
    row = struct.pack(f">6{'B' if depth == 8 else 'H'}", *colour, *other)
    data = png(depth, 2, row, 2, (b"tRNS", struct.pack(">3H", *colour)))
    assert seen(data)[0].tolist() == [[0, 0, 0], [200, 100, 51]]


@pytest.mark.parametrize("depth", [2, 4, 8])
def test_transparency_of_a_palette_is_composited(depth: int) -> None:
    palette = (b"PLTE", bytes([255, 0, 0, 0, 255, 0, 0, 0, 255]))
    data = png(depth, 3, bits([0, 1, 2], depth), 3, palette, (b"tRNS", bytes([0, 128])))
    assert seen(data)[0].tolist() == [[0, 0, 0], [0, 128, 0], [0, 0, 255]]


def test_opacity_of_png_in_8_and_16_bits() -> None:
    assert greys(png(8, 4, bytes([200, 128, 200, 255]), 2)) == [100, 200]
    assert greys(png(16, 4, struct.pack(">4H", 51400, 32896, 51400, 65535), 2)) == [100, 200]
    assert seen(png(16, 6, struct.pack(">4H", 51400, 0, 65535, 32896), 1))[0].tolist() == [[100, 0, 128]]


TIFFS = [
    (depth, white_is_zero, order)
    for depth in (1, 2, 4, 8, 12, 16)
    for white_is_zero in (False, True)
    for order in "<>"
    if depth < 12 or not white_is_zero or (depth, order) == (16, "<")
    if (depth, order) != (12, ">")
]


@pytest.mark.parametrize(("depth", "white_is_zero", "order"), TIFFS)
def test_greys_of_tiff_of_either_polarity(depth: int, white_is_zero: bool, order: str) -> None:
    values = spread(2**depth - 1)
    values += values[:1] * (len(values) % 2)  # Pillow reads whole pairs of 12 bits
    row = struct.pack(f"{order}{len(values)}H", *values) if depth == 16 else bits(values, depth)
    expected = [share(value, 2**depth - 1) for value in values]
    found = greys(tiff(depth, 0 if white_is_zero else 1, row, len(values), order=order))
    assert found == [255 - value for value in expected] if white_is_zero else found == expected


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        *((tiff(depth, 1, bytes(16), 4), f"1 x {depth} bits (unsigned, grey)") for depth in (6, 10, 14, 32)),
        (tiff(16, 0, bytes(8), 4, order=">"), "1 x 16 bits (unsigned, grey, 0 is white)"),
        (tiff(12, 0, bytes(6), 4), "1 x 12 bits (unsigned, grey, 0 is white)"),
        *((tiff(d, 1, bytes(16), 4, t339=("H", [2])), f"1 x {d} bits (signed, grey)") for d in (8, 16, 32)),
        *(
            (tiff(d, 1, bytes(16), 4, t339=("H", [3])), f"1 x {d} bits (floating point, grey)")
            for d in (16, 32)
        ),
        *((tiff(8, lab, bytes(12), 4, samples=3), "3 x 8 bits (unsigned, Lab)") for lab in (8, 9)),
        (tiff(16, 1, bytes(16), 4, samples=2), "2 x 16 bits (unsigned, grey)"),
    ],
)
def test_samples_of_a_tiff_that_are_not_read_are_named(data: bytes, kind: str) -> None:
    with pytest.raises(UnreadableError) as caught:
        seen(data)
    assert caught.value.reason == "unsupported"
    assert caught.value.detail == (
        f"TIFF of {kind} is not read; convert it to grey or RGB of 8 or 16 unsigned bits, as PNG or TIFF"
    )


@pytest.mark.parametrize("order", ["<", ">"])
def test_colours_of_a_tiff_of_16_bits_are_their_upper_8_bits(order: str) -> None:
    values = [0, 255, 256, 25700, 32768, 65535]
    data = tiff(16, 2, struct.pack(f"{order}6H", *values), 2, order=order, samples=3)
    assert seen(data)[0].ravel().tolist() == [value >> 8 for value in values]


def test_other_colours_of_tiff() -> None:
    inks = bytes([0, 0, 0, 0, 255, 0, 0, 0, 0, 0, 0, 255])
    assert seen(tiff(8, 5, inks, 3, samples=4))[0].tolist() == [[255, 255, 255], [0, 255, 255], [0, 0, 0]]
    palette = [*([65535, 0] * 1), *([0, 65535] * 1), *([0, 0] * 1)]
    assert seen(tiff(1, 3, bits([0, 1], 1), 2, t320=("H", palette)))[0].tolist() == [[255, 0, 0], [0, 255, 0]]
    assert greys(tiff(1, 1, bytes([0b1010]), 4, t266=("H", [2]))) == [0, 255, 0, 255]  # the lowest bit first
    assert greys(tiff(8, 1, bytes([200, 128, 200, 255]), 2, samples=2, t338=("H", [2]))) == [100, 200]


@pytest.mark.parametrize("depth", [1, 4, 8])
def test_palettes_of_bmp(depth: int) -> None:
    palette = b"".join(bytes([index, 10, 20, 0]) for index in range(2**depth))
    last = 2**depth - 1
    assert seen(bmp(depth, bits([0, 1, last], depth), 3, palette))[0].tolist() == [
        [20, 10, index] for index in (0, 1, last)
    ]


def test_colours_of_bmp_of_every_depth() -> None:
    ends = [[255, 255, 255], [255, 0, 0], [0, 255, 0], [0, 0, 131]]
    assert seen(bmp(16, struct.pack("<4H", 0x7FFF, 0x7C00, 0x03E0, 0x0010), 4))[0].tolist() == ends
    masks = struct.pack("<3I", 0xF800, 0x7E0, 0x1F)
    assert seen(bmp(16, struct.pack("<4H", 0xFFFF, 0xF800, 0x07E0, 0x10), 4, masks=masks))[0].tolist() == ends
    assert seen(bmp(24, bytes([1, 2, 3, 4, 5, 6]), 2))[0].tolist() == [[3, 2, 1], [6, 5, 4]]
    assert seen(bmp(32, bytes([1, 2, 3, 0, 4, 5, 6, 255]), 2))[0].tolist() == [[3, 2, 1], [6, 5, 4]]
    with pytest.raises(UnreadableError, match="convert it to PNG or JPEG") as caught:
        seen(bmp(2, b"\0", 4, bytes(16)))
    assert caught.value.reason == "unsupported"


@pytest.mark.parametrize("clear", [None, 1])
def test_transparency_of_gif(clear: int | None) -> None:
    image = Image.fromarray(np.array([[0, 1, 2]], np.uint8)).convert("P")
    image.putdata([0, 1, 2])
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    options = {} if clear is None else {"transparency": clear}
    middle = [0, 255, 0] if clear is None else [0, 0, 0]
    assert seen(saved(image, "GIF", **options))[0].tolist() == [[255, 0, 0], middle, [0, 0, 255]]


def jpeg_2000(values: np.ndarray, depth: int) -> bytes:
    """A lossless grey JPEG 2000 of `depth` bits: the codec's own zero is half of the range."""
    held = 8 if depth <= 8 else 16
    moved = values + 2 ** (held - 1) - 2 ** (depth - 1)
    image = Image.fromarray(moved.astype(np.uint8 if held == 8 else np.uint16))
    data = bytearray(saved(image, "JPEG2000", no_jp2=True))
    assert data[42] == held - 1
    data[42] = depth - 1
    return bytes(data)


@pytest.mark.parametrize("depth", [4, 8, 10, 12, 16])
def test_greys_of_jpeg_2000_of_every_depth(depth: int) -> None:
    values = np.resize(np.array(spread(2**depth - 1, 1024)), (32, 32))
    expected = np.array([share(int(value), 2**depth - 1) for value in values.ravel()]).reshape(32, 32)
    assert np.array_equal(seen(jpeg_2000(values, depth))[..., 0], expected)


@pytest.mark.parametrize("depth", [8, 10, 12])
def test_avif_of_8_10_and_12_bits(depth: int) -> None:
    for part, level in ((0, 0), (0.5, 127.5), (1, 255)):
        value = round(part * (2**depth - 1))
        image = plain((value,) * 3, np.uint8 if depth == 8 else np.uint16, 16, 16)
        options = [cv2.IMWRITE_AVIF_DEPTH, depth, cv2.IMWRITE_AVIF_QUALITY, 100]
        assert np.abs(seen(bytes(cv2.imencode(".avif", image, options)[1])) - level).max() <= 1


@pytest.mark.parametrize(
    ("format", "options"), [("WEBP", {"lossless": True, "exact": True}), ("JPEG2000", {})]
)
def test_opacity_of_lossless_formats(format: str, options: dict[str, object]) -> None:
    rgba = np.dstack([noise(), np.random.default_rng(1).integers(0, 256, (40, 60), np.uint8)])
    expected = (rgba[..., :3].astype(int) * rgba[..., 3:] + 127) // 255
    assert np.array_equal(seen(saved(Image.fromarray(rgba), format, **options)), expected)
