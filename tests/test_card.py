"""The data card: what stands on the page, and what the picture shows, in pixels."""

import re
import warnings
from collections.abc import Sequence

import cv2
import numpy as np
import pyarrow as pa
import pytest

from nightshift.config import PreprocessSettings
from nightshift.data import drift, index
from nightshift.data.duplicates import DuplicateRow
from nightshift.records import SPLITS, Dataset, Drift, Duplicates, Split
from nightshift.report.data_card import Card, Reference, render
from nightshift.report.data_card_figure import COLOURS, LIMIT, NAME, STEP, TITLE, WIDTH, figure

Counts = dict[str, tuple[int, int, int]]
CELLS: Counts = {"platelets": (8, 0, 2), "red": (160, 20, 20), "white": (16, 2, 2)}


def table(counts: Counts) -> pa.Table:
    generator = np.random.default_rng(1)
    rows = [
        {
            "key": f"b/{name}/{split}-{number}.png",
            "label": name,
            "split": split,
            "format": "PNG" if number % 4 else "JPEG",
            "width": 100 + number,
            "height": 50,
            "bytes": 2000,
            "brightness": generator.uniform(0.4, 0.6),
            "contrast": generator.uniform(0.1, 0.3),
            "sharpness": generator.uniform(50, 500),
        }
        for name, numbers in counts.items()
        for split, count in zip(SPLITS, numbers, strict=True)
        for number in range(count)
    ]
    return pa.Table.from_pylist(rows, schema=index.SCHEMA).select(index.WITHOUT_THUMBNAILS)


def card(counts: Counts = CELLS, **changes) -> Card:
    rows = table(counts)
    keep = np.ones(rows.num_rows, np.bool_)
    per_split: dict[Split, dict[str, int]] = {
        split: {name: numbers[place] for name, numbers in counts.items() if numbers[place]}
        for place, split in enumerate(SPLITS)
    }
    dataset = Dataset(
        digest="ab" * 32,
        classes=tuple(sorted(counts)),
        shards=(),
        counts=per_split,
        mean=(0.5, 0.4, 0.3),
        std=(0.21, 0.22, 0.23),
        refused=3,
        image_size=32,
        preprocess=PreprocessSettings(image_size=32),
        source="s3://bucket/incoming/cells",
        batches={},
        profile=drift.profile(rows, keep),
        duplicates=Duplicates(merged=30, conflicting=2, near=4, near_excluded=True),
    )
    values = {
        "pipeline": "cells",
        "dataset": dataset,
        "index": rows,
        "drop": ~keep,
        "references": (),
        "refused": {"truncated": 2, "not-an-image": 1},
        "lines": [],
        "pixels": {name: np.full((3, 32, 32, 3), 90, np.uint8) for name in counts},
    }
    return Card(**{**values, **changes})


def reference(found: Card, **psi: float) -> Reference:
    other = Drift(of="data", against="champion", dataset="cd" * 32, psi=psi)
    return Reference(other, found.dataset.profile.model_copy(update={"classes": {"red": 5, "lost": 5}}))


def decoded(png: bytes) -> np.ndarray:
    assert png.startswith(b"\x89PNG")
    return cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)[:, :, ::-1]


def colour(name: Split) -> np.ndarray:
    return np.array([int(COLOURS[name][place : place + 2], 16) for place in (1, 3, 5)])


def text_of(page: bytes) -> str:
    """What a person reads, one cell after the other."""
    body = page.decode().split("<body>")[1]
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", body))


def test_the_page_has_every_number_and_needs_nothing_else():
    found = card()
    page = render(found._replace(references=[reference(found, brightness=0.02, classes=0.31)]), b"picture")
    text = text_of(page)
    for part in (
        "184 train images",
        "22 validation images",
        "24 test images",
        "20.0 imbalance",
        "1 red 160 20 20 200 87.0 %",
        "3 platelets 8 none 2 10 4.3 %",
        "brightness 0.020 stable",
        "classes 0.310 large drift",
        "New classes: platelets, white.",
        "Classes that have gone: lost.",
        "Exact copies merged: 30. Copies with contradicting labels left out: 2.",
        "36 duplicates left out",
        "height, pixels 50 50 50 50 50",
        "truncated 2",
        "standard deviation 0.2100 0.2200 0.2300",
    ):
        assert part in text, part
    widths = np.sort([100 + n for counts in CELLS.values() for count in counts for n in range(count)])
    five, half, most = (np.percentile(widths, share, method="nearest") for share in (5, 50, 95))
    assert f"width, pixels 100 {five} {half} {most} 259 " in text
    assert not re.findall(rb"""(?:src|href)=["'](?!data:)""", page)
    assert b"http" not in page


def test_rows_that_are_left_out_are_not_measured():
    found = card()
    drop = np.array(found.index["width"]) > 150
    assert "width, pixels 100 100 " in text_of(render(found._replace(drop=drop), b""))
    assert " 150 height" in text_of(render(found._replace(drop=drop), b""))


def test_a_first_data_set_without_refusals_or_duplicates_says_so():
    text = text_of(render(card(refused={}), b""))
    assert "There is no earlier data set to compare with." in text
    assert "No file was refused." in text
    assert "duplicates.csv" not in text


def test_the_first_twenty_duplicates_are_shown_and_the_rest_counted():
    line = DuplicateRow("near", "b/one.png", "red", "train", "b/other.png", "white", "test", 2)
    lines = [line._replace(key=f"b/{number:02d}.png") for number in range(45)]
    page = render(card(lines=lines), b"").decode()
    assert page.count("b/other.png") == 20
    assert "The first 20 of 45." in page


def test_names_of_strangers_are_text_on_the_page_and_no_formula_in_the_picture():
    names = ["<script>alert(1)</script>", "$\\frac{$", "猫", "a\nb", "x" * 500, "&amp;", "%s{{7*7}}"]
    found = card(dict.fromkeys(names, (4, 1, 1)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        png = figure(found)
    page = render(found, png).decode()
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "{{7*7}}" in page


def test_bars_are_as_long_as_the_counts():
    picture = decoded(figure(card())).astype(int)
    for place, counts in enumerate([(160, 20, 20), (16, 2, 2), (8, 0, 2)]):
        line = picture[TITLE + 20 * place + 10, NAME:]
        for split, count in zip(SPLITS, counts, strict=True):
            length = (np.abs(line - colour(split)).max(axis=1) < 12).sum()
            assert length == pytest.approx(count * (WIDTH - NAME - 70) / 200, abs=2), (place, split)


def test_samples_stand_in_the_row_of_their_class():
    colours = {"red": (255, 0, 0), "white": (0, 255, 0), "platelets": (0, 0, 255)}
    pixels = {name: np.full((12, 32, 32, 3), value, np.uint8) for name, value in colours.items()}
    picture = decoded(figure(card(pixels=pixels)))
    rows = [np.argwhere((picture == value).all(axis=2)) for value in colours.values()]
    assert [len(places) for places in rows] == [8 * 44 * 44] * 3
    tops = [places[:, 0].min() for places in rows]
    assert np.diff(tops).tolist() == [STEP, STEP]
    assert {places[:, 1].min() for places in rows} == {NAME}


def test_the_reference_is_drawn_where_its_images_are():
    found = card()
    usual = reference(found, brightness=0.02)
    counts = usual.profile.histograms["brightness"]
    busiest = tuple(sum(counts) * (place == np.argmax(counts)) for place in range(len(counts)))
    histograms = {**usual.profile.histograms, "brightness": busiest}
    other = usual._replace(profile=usual.profile.model_copy(update={"histograms": histograms}))
    one, two = (decoded(figure(found._replace(references=[drawn]))).astype(int) for drawn in (usual, other))
    changed = np.argwhere(np.abs(one - two).max(axis=2) > 60)
    assert len(changed) > 200
    assert changed[:, 1].max() < WIDTH / 4  # the panel of the brightness


@pytest.mark.parametrize("classes", [1, 31, 100, 1000])
def test_any_number_of_classes_fits_a_readable_picture(classes):
    names = [f"class {number:04d} of a long list" for number in range(classes)]
    generator = np.random.default_rng(0)
    noise = {name: generator.integers(0, 256, (8, 44, 44, 3), np.uint8) for name in names}
    found = card(dict.fromkeys(names, (4, 1, 1)), pixels=noise)
    png = figure(found)
    assert len(png) <= LIMIT
    height, width, _ = decoded(png).shape
    assert width == WIDTH
    assert height <= 1700
    assert text_of(render(found, png)).count("of a long list") == classes


def test_a_split_without_images_and_a_class_without_samples_are_no_obstacle():
    counts: Counts = {"a": (5, 0, 1), "b": (5, 0, 1)}
    missing: dict[str, Sequence[np.ndarray]] = {}
    assert figure(card(counts, pixels=missing))
