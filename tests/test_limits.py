"""Readers of foreign bytes: what a small file may make of them in memory and in time."""

import importlib
import re
import struct
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import evil_files
import pytest
from bombs import CARRIERS, empty_segments, exif, pages, piled_strips, png
from waiting import patience

from nightshift.config import PreprocessSettings
from nightshift.data.decoding.pool import Decoded, DecoderPool, decode_for_shard
from nightshift.data.formats import UnreadableError, inspect, tiff
from nightshift.data.images import load
from nightshift.serving.loaded_model import Options


@pytest.fixture(scope="module")
def decoders() -> Iterator[DecoderPool[Decoded]]:
    """With time for honest work on a slow machine, and for none that grows with the square of a file."""
    settings = PreprocessSettings(image_size=16, decode_seconds=patience(5))
    with DecoderPool(decode_for_shard, settings) as pool:
        yield pool


@pytest.mark.parametrize("kind", CARRIERS)
def test_entries_that_claim_the_whole_file_take_no_memory(kind: str) -> None:
    data = CARRIERS[kind](exif(400, 60_000))
    tracemalloc.start()
    try:
        inspect(data)
        assert tracemalloc.get_traced_memory()[1] < 2 * 2**20
    finally:
        tracemalloc.stop()
    if kind != "TIFF":
        assert load(data, PreprocessSettings()).format == kind


@pytest.mark.parametrize(
    ("data", "verdict"),
    [
        (empty_segments(60_000, 20_000), "ok"),
        (empty_segments(70_000, 20_000), "damaged"),
        (pages(60_000), "damaged"),
        (piled_strips(60_000), "damaged"),
    ],
    ids=["segments and thumbnails", "too many segments", "pages within each other", "strips on each other"],
)
def test_no_file_takes_the_square_of_its_size(
    decoders: DecoderPool[Decoded], data: bytes, verdict: str
) -> None:
    (seen,) = decoders.map([data])
    assert (seen.reason if isinstance(seen, UnreadableError) else "ok") == verdict


def test_what_a_tiff_says_of_its_strips_is_read_whole_up_to_a_limit() -> None:
    data = piled_strips(60_000)
    assert len(tiff.pieces(tiff.tags(data))) == 60_000
    with pytest.raises(UnreadableError, match=f"at most {tiff.MOST_PIECES}"):
        inspect(piled_strips(tiff.MOST_PIECES + 1))


def test_what_lies_behind_a_png_takes_no_memory() -> None:
    data = png(16, 16) + struct.pack(">I4s", 2**31 + 8, b"IEND") + bytes(160)
    with DecoderPool(evil_files.growth, PreprocessSettings(decode_megabytes=4096)) as pool:
        (grown,) = pool.map([data])
    assert isinstance(grown, int), grown
    assert grown < 100 * 2**20


def limits() -> dict[str, float]:
    """The table of the guide: constant or setting -> value."""
    text = (
        (Path(__file__).parents[1] / "docs/security.md").read_text(encoding="utf-8").partition("## Limits")[2]
    )
    rows = re.findall(r"^\|[^|]*\|[^|]+\| ([\d,]+)(?: MiB)? \| `(\S+)` \|$", text, re.M)
    assert len(rows) == text.count("\n| ") - 1  # but for the head
    return {name: float(value.replace(",", "")) for value, name in rows}


def test_the_table_of_limits_says_what_the_code_says() -> None:
    found: dict[str, float] = {}
    for name in limits():
        owner, _, constant = name.rpartition(".")
        if owner == "preprocess":
            found[name] = getattr(PreprocessSettings(), constant)
        elif owner == "Options":
            found[name] = getattr(Options(), constant)
        else:
            found[name] = getattr(importlib.import_module(f"nightshift.{owner}"), constant)
    assert limits() == found


def test_no_limit_is_missing_in_the_table() -> None:
    root = Path(__file__).parents[1] / "tasks" / "nightshift" / "data"
    readers = [*(root / "formats").glob("*.py"), *(root / "sources").glob("*.py"), root / "labels.py"]
    readers += [root / "annotations.py", root / "images.py", *(root.parent / "serving").glob("*.py")]
    named = {name.rpartition(".")[2] for name in limits()}
    constant = re.compile(r"^((?:MOST|LONGEST|LARGEST|MAX)_\w+): Final = ", re.M)
    stated = {name for path in readers for name in constant.findall(path.read_text(encoding="utf-8"))}
    assert stated - named <= OWN


OWN = {
    "LONGEST_NAME",
    "LONGEST_KEY",
    "MOST_PIXELS",
}  # of names, and of what `ingest` looks into without decoding
