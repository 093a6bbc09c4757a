"""DICOM: black and white by the file's own window, polarity and depth; what is refused, and in what words."""

import io
import sys
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels import compress
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLosslessSV1,
    RLELossless,
    generate_uid,
)

from nightshift.config import PreprocessSettings
from nightshift.data.decoding.pool import Decoded, DecoderPool, decode_for_shard
from nightshift.data.images import UnreadableError, decode, inspect

SETTINGS = PreprocessSettings(image_size=32)


def made(pixels: np.ndarray, bits: int, kind: str = "MONOCHROME2", **tags: Any) -> Dataset:
    """A data set with these pixels, [H,W], [H,W,3] or frames, of whole numbers with so many bits in use."""
    found = Dataset()
    found.file_meta = FileMetaDataset()
    found.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    found.file_meta.MediaStorageSOPClassUID = found.SOPClassUID = CTImageStorage
    found.file_meta.MediaStorageSOPInstanceUID = found.SOPInstanceUID = generate_uid()
    found.SamplesPerPixel = 3 if pixels.shape[-1] == 3 else 1
    found.Rows, found.Columns = pixels.shape[-2:] if found.SamplesPerPixel == 1 else pixels.shape[-3:-1]
    found.PhotometricInterpretation = kind
    if found.SamplesPerPixel == 3:
        found.PlanarConfiguration = 0
    found.BitsAllocated = 8 * pixels.dtype.itemsize
    found.BitsStored, found.HighBit = bits, bits - 1
    found.PixelRepresentation = int(pixels.dtype.kind == "i")
    found.PixelData = pixels.tobytes() + bytes(pixels.nbytes % 2)
    for name, value in tags.items():
        setattr(found, name, value)
    return found


def written(found: Dataset) -> bytes:
    buffer = io.BytesIO()
    found.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def greys(found: Dataset) -> list[int]:
    """The first row of a grey image."""
    pixels = decode(written(found), SETTINGS).pixels
    assert (pixels == pixels[..., :1]).all()
    return pixels[0, :, 0].tolist()


def row(*values: int, kind: type = np.uint16) -> np.ndarray:
    return np.array([values, values], kind)


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
def test_without_a_window_white_is_the_most_that_the_stored_bits_hold(bits: int) -> None:
    most = 2**bits - 1
    values = [0, most // 3, 2 * most // 3, most]
    pixels = row(*values, kind=np.uint8 if bits == 8 else np.uint16)
    expected = [round(value * 255 / most) for value in values]
    assert greys(made(pixels, bits)) == expected
    assert greys(made(pixels, bits, "MONOCHROME1")) == [255 - grey for grey in expected]


def test_signed_values_reach_from_their_least_to_their_most() -> None:
    pixels = row(-2048, 0, 1023, 2047, kind=np.int16)
    expected = [round((value + 2048) * 255 / 4095) for value in (-2048, 0, 1023, 2047)]
    assert greys(made(pixels, 12)) == expected
    rescaled = {"RescaleSlope": 2, "RescaleIntercept": -1000}
    assert greys(made(pixels, 12, **rescaled)) == expected


def linear(value: float, center: float, width: float) -> int:
    """PS3.3 C.11.2.1.2.1, for black 0 and white 255."""
    share = (value - (center - 0.5)) / (width - 1) + 0.5
    return round(255 * min(max(share, 0), 1))


def test_the_window_says_what_is_black_and_white() -> None:
    """A CT in Hounsfield units: air, water, tissue, bone."""
    stored = [0, 900, 1024, 1064, 1144, 2000, 4095]
    window = {"RescaleSlope": 1, "RescaleIntercept": -1024, "WindowCenter": 40, "WindowWidth": 400}
    expected = [linear(value - 1024, 40, 400) for value in stored]
    assert expected[0] == 0
    assert expected[-1] == 255
    assert 0 < expected[2] < expected[3] < expected[4] < 255
    assert greys(made(row(*stored), 12, **window)) == expected
    assert greys(made(row(*stored), 12, "MONOCHROME1", **window)) == [255 - grey for grey in expected]


def test_of_several_windows_the_first_counts() -> None:
    window = {"WindowCenter": [100, 2000], "WindowWidth": [201, 400]}
    assert greys(made(row(0, 100, 200, 300), 12, **window)) == [
        linear(v, 100, 201) for v in (0, 100, 200, 300)
    ]


def test_the_other_shapes_of_a_window() -> None:
    values = (0, 1000, 2000, 3000, 4000)
    window = {"WindowCenter": 2000, "WindowWidth": 2000}
    exact = [round(255 * min(max((value - 2000) / 2000 + 0.5, 0), 1)) for value in values]
    assert greys(made(row(*values), 12, VOILUTFunction="LINEAR_EXACT", **window)) == exact
    sigmoid = [round(255 / (1 + np.exp(-4 * (value - 2000) / 2000))) for value in values]
    assert greys(made(row(*values), 12, VOILUTFunction="SIGMOID", **window)) == sigmoid


def test_a_table_of_values_of_interest_comes_before_the_window() -> None:
    table = Dataset()
    table.LUTDescriptor, table.LUTData = [4, 0, 8], [255, 0, 128, 64]
    table["LUTDescriptor"].VR, table["LUTData"].VR = "US", "US"
    found = made(row(0, 1, 2, 3, 9), 12, WindowCenter=1, WindowWidth=2)
    found.VOILUTSequence = [table]
    assert greys(found) == [255, 0, 128, 64, 64]


def test_colours_palettes_and_ybr() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
    assert np.array_equal(decode(written(made(rgb, 8, "RGB")), SETTINGS).pixels, rgb)
    grey = np.full((4, 6, 3), 128, np.uint8)
    assert np.abs(decode(written(made(grey, 8, "YBR_FULL")), SETTINGS).pixels.astype(int) - 128).max() <= 1
    found = made(row(0, 1, 2, 0, kind=np.uint8), 8, "PALETTE COLOR")
    for at, name in enumerate(("Red", "Green", "Blue")):
        setattr(found, f"{name}PaletteColorLookupTableDescriptor", [3, 0, 16])
        found[f"{name}PaletteColorLookupTableDescriptor"].VR = "US"
        levels = np.array([65535 if at == index else 0 for index in range(3)], "<u2")
        setattr(found, f"{name}PaletteColorLookupTableData", levels.tobytes())
    seen = decode(written(found), SETTINGS).pixels
    assert seen[0].tolist() == [[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 0, 0]]


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless])
def test_transfer_syntaxes(syntax: str) -> None:
    found = made(row(0, 1365, 2730, 4095), 12)
    if syntax == RLELossless:
        compress(found, RLELossless)
    found.file_meta.TransferSyntaxUID = syntax
    assert greys(found) == [0, 85, 170, 255]


def test_big_endian_too() -> None:
    found = made(row(0, 1365, 2730, 4095).byteswap(), 12)
    found.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    assert greys(found) == [0, 85, 170, 255]


def test_a_packing_without_a_decoder_is_named() -> None:
    found = made(row(0, 1), 12)
    found.PixelData = encapsulate([b"\xff\xd8\xff\xd9"])
    found["PixelData"].is_undefined_length = True
    found.file_meta.TransferSyntaxUID = JPEGLosslessSV1
    with pytest.raises(
        UnreadableError, match=r"JPEG Lossless.* is not read; convert it to Explicit VR Litt"
    ) as caught:
        decode(written(found), SETTINGS)
    assert caught.value.reason == "unsupported"


def test_what_would_be_unpacked_unseen_is_refused() -> None:
    found = made(np.zeros((400, 600), np.uint16), 12)
    found.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    with pytest.raises(
        UnreadableError, match="deflated DICOM is not read; convert it to Explicit VR Little Endian"
    ):
        inspect(written(found))


def test_of_several_frames_the_first_is_taken_or_the_file_refused() -> None:
    frames = np.stack([np.full((4, 6), level, np.uint8) for level in (200, 0, 0)])
    data = written(made(frames, 8, NumberOfFrames=3))
    assert (decode(data, SETTINGS).pixels == 200).all()
    with pytest.raises(UnreadableError) as caught:
        decode(data, SETTINGS.model_copy(update={"animated": "refuse"}))
    assert caught.value.reason == "animated"


def test_the_header_says_size_and_end() -> None:
    data = written(made(np.zeros((40, 60), np.uint16), 12))
    assert inspect(data)[:5] == ("DICOM", 60, 40, True, 1)
    assert not inspect(data[: len(data) // 2]).complete
    with pytest.raises(UnreadableError, match="over the limit of 2399 pixels"):
        decode(data, SETTINGS.model_copy(update={"max_pixels": 2399}))


def test_a_file_without_an_image_is_left_out() -> None:
    found = made(row(0, 1), 8)
    del found.PixelData, found.Rows, found.Columns
    with pytest.raises(UnreadableError, match="holds no image; leave it out") as caught:
        inspect(written(found))
    assert caught.value.reason == "unsupported"


@pytest.mark.parametrize("end", [132, 140, 200, 400, -1, -40])
def test_a_cut_file_is_refused(end: int) -> None:
    with pytest.raises(UnreadableError) as caught:
        decode(written(made(np.zeros((40, 60), np.uint16), 12))[:end], SETTINGS)
    assert caught.value.reason in ("truncated", "damaged", "unsupported")


def test_it_is_decoded_in_the_guarded_processes() -> None:
    data = written(made(np.zeros((40, 60), np.uint16), 12))
    with DecoderPool(decode_for_shard, SETTINGS) as decoders:
        first, second = decoders.map([data, data[:400]])
    assert isinstance(first, Decoded)
    assert first.format == "DICOM"
    assert isinstance(second, UnreadableError)


def test_without_its_extra_the_refusal_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    data = written(made(row(0, 1), 8))
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(
        UnreadableError, match=r"^DICOM needs the extra dicom of nightshift \(pydicom\)"
    ) as caught:
        inspect(data)
    assert caught.value.reason == "unsupported"
