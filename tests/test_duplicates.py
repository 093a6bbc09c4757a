"""Copies and look-alikes: what is merged, what contradicts itself, and which pairs a person would confirm."""

import csv
import hashlib
import io
from collections.abc import Callable

import cv2
import numpy as np
import pyarrow as pa
import pytest
from sklearn.datasets import load_digits

from nightshift.data import duplicates, index, near_duplicates


def table(*rows: tuple[str, str, str, str], hashes: list[int] | None = None) -> pa.Table:
    """An index of (key, content, label, split)."""
    return pa.Table.from_pylist(
        [
            {
                "key": key,
                "id": hashlib.sha256(content.encode()).digest(),
                "label": label,
                "split": split,
                "phash": hashes[place] if hashes else place,
            }
            for place, (key, content, label, split) in enumerate(rows)
        ],
        schema=index.SCHEMA,
    )


def perceptual_hash(image: np.ndarray) -> int:
    """The sign of the low frequencies of a 32x32 cosine transform about their median."""
    low = cv2.dct(np.float32(cv2.resize(image, (32, 32))))[:8, :8].ravel()
    return int.from_bytes(np.packbits(low > np.median(low[1:])).tobytes(), "big")


def pictures(images: list[np.ndarray], splits: list[str]) -> tuple[pa.Table, near_duplicates.Thumbnails]:
    rows = [(f"b/{place:05d}.png", str(place), "any", split) for place, split in enumerate(splits)]
    found = table(*rows, hashes=[perceptual_hash(image) for image in images])
    small = [cv2.resize(image, (16, 16), interpolation=cv2.INTER_AREA).ravel() for image in images]
    return found, np.stack(small).__getitem__


def everything(found: pa.Table) -> np.ndarray:
    return np.ones(found.num_rows, np.bool_)


@pytest.fixture(scope="module")
def scenes() -> list[np.ndarray]:
    """60 different pictures, 64x64: soft random fields, unlike one another."""
    generator = np.random.default_rng(3)
    fields = [cv2.GaussianBlur(generator.normal(size=(64, 64)), (0, 0), 4) for _ in range(60)]
    return [np.uint8(cv2.normalize(field, None, 40, 200, cv2.NORM_MINMAX)) for field in fields]


SOURCE = table(
    ("b/1.png", "cat", "cat", "train"),
    ("b/2.png", "cat", "cat", "validation"),
    ("b/3.png", "cat", "cat", "test"),
    ("b/4.png", "dog", "dog", "train"),
    ("b/5.png", "owl", "owl", "train"),
    ("b/6.png", "owl", "dog", "test"),
    ("b/7.png", "owl", "owl", "test"),
    ("b/8.png", "owl", "owl", "test"),
    ("b/9.png", "dog", "dog", "train"),
)


def dropped(found: pa.Table, exact: duplicates.Exact) -> list[str]:
    return sorted(np.array(found["key"].to_pylist())[exact.drop].tolist())


@pytest.mark.parametrize("seed", range(5))
def test_copies_leave_one_that_is_tested_on_whatever_the_order(seed):
    shuffled = SOURCE.take(pa.array(np.random.default_rng(seed).permutation(SOURCE.num_rows)))
    refused = duplicates.exact(shuffled, "refuse")
    assert dropped(shuffled, refused) == [f"b/{n}.png" for n in (1, 2, 5, 6, 7, 8, 9)]
    assert (refused.merged, refused.conflicting) == (3, 4)
    kept = duplicates.exact(shuffled, "keep")
    # b/5 has the smallest key, so its label stays; of the copies with that label, the first one of test.
    assert dropped(shuffled, kept) == [f"b/{n}.png" for n in (1, 2, 5, 6, 8, 9)]
    assert (kept.merged, kept.conflicting) == (5, 1)


def test_an_index_in_several_chunks_and_slices_is_read_right():
    joined = pa.concat_tables([SOURCE.slice(5, 3), SOURCE.slice(0, 5), SOURCE.slice(8)])
    assert dropped(joined, duplicates.exact(joined, "refuse")) == dropped(
        SOURCE, duplicates.exact(SOURCE, "refuse")
    )


@pytest.mark.parametrize("rows", [0, 1])
def test_a_data_set_without_copies_has_none(rows):
    found = duplicates.exact(SOURCE.slice(0, rows), "refuse")
    assert (found.drop.tolist(), found.copies) == ([False] * rows, ())


def test_the_listing_names_what_goes_and_why():
    pairs = [near_duplicates.Pair(0, 5, 3)]
    lines = duplicates.found(SOURCE, duplicates.exact(SOURCE, "keep"), pairs)
    listed = list(csv.DictReader(io.StringIO(duplicates.listing(lines).decode())))
    assert [(line["kind"], line["key"], line["other_key"], line["bits"]) for line in listed] == [
        ("conflict", "b/6.png", "b/7.png", ""),
        ("copy", "b/1.png", "b/3.png", ""),
        ("copy", "b/2.png", "b/3.png", ""),
        ("copy", "b/5.png", "b/7.png", ""),
        ("copy", "b/8.png", "b/7.png", ""),
        ("copy", "b/9.png", "b/4.png", ""),
        ("near", "b/1.png", "b/6.png", "3"),
    ]
    assert (listed[0]["label"], listed[0]["other_label"], listed[0]["other_split"]) == ("dog", "owl", "test")


def test_under_refuse_every_copy_of_a_contradiction_is_listed():
    exact = duplicates.exact(SOURCE, "refuse")
    lines = [line for line in duplicates.found(SOURCE, exact, []) if line.kind == "conflict"]
    assert [line.key for line in lines] == ["b/5.png", "b/6.png", "b/7.png", "b/8.png"]
    assert all({line.label, line.other_label} == {"dog", "owl"} for line in lines)


def test_names_of_strangers_cannot_become_formulas():
    names = ["=1+1", "+1+1", "-1-1", "@SUM(A1)", "\tx", 'a",=1', "line\nbreak"]
    source = table(*((name, "same", "=cmd()", "train") for name in names))
    text = duplicates.listing(duplicates.found(source, duplicates.exact(source, "keep"), [])).decode()
    rows = list(csv.reader(io.StringIO(text, newline="")))
    assert {len(row) for row in rows} == {8}
    assert {row[1].removeprefix("'") for row in rows[1:]} | {rows[1][4].removeprefix("'")} == set(names)
    assert not [cell for row in rows for cell in row if cell.startswith(("=", "+", "-", "@", "\t", "\r"))]


ALTERED: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "recompressed": lambda image: cv2.imdecode(cv2.imencode(".jpg", image, [1, 40])[1], 0),
    "brighter": lambda image: np.uint8(np.clip(image.astype(int) + 30, 0, 255)),
    "flatter": lambda image: np.uint8(image * 0.7 + 30),
    "smaller": lambda image: cv2.resize(image, (40, 40), interpolation=cv2.INTER_AREA),
}


@pytest.mark.parametrize("change", ALTERED.values(), ids=ALTERED.keys())
def test_altered_copies_of_held_out_images_are_found_and_nothing_else(scenes, change):
    images = [*scenes, *(change(scene) for scene in scenes[:20])]
    source, thumbnails = pictures(images, ["train"] * 40 + ["test"] * 20 + ["validation"] * 20)
    found = near_duplicates.near(source, thumbnails, 4, everything(source))
    assert [(pair.row, pair.other) for pair in found] == [(row, row + 60) for row in range(20)]
    swapped, _ = pictures(images, ["test"] * 60 + ["train"] * 20)
    assert [p.other for p in near_duplicates.near(swapped, thumbnails, 4, everything(swapped))] == list(
        range(20)
    )


def test_a_close_hash_alone_is_no_evidence(scenes):
    source, thumbnails = pictures(scenes[:2], ["train", "test"])
    equal = source.set_column(source.schema.get_field_index("phash"), "phash", pa.array([7, 7], pa.uint64()))
    assert near_duplicates.near(equal, thumbnails, 4, everything(equal)) == []


def test_what_is_left_out_takes_no_part_and_training_images_are_not_compared_with_each_other(scenes):
    source, thumbnails = pictures([scenes[0]] * 3, ["train", "train", "test"])
    assert [p.row for p in near_duplicates.near(source, thumbnails, 4, np.array([True, True, True]))] == [
        0,
        1,
    ]
    assert [p.row for p in near_duplicates.near(source, thumbnails, 4, np.array([False, True, True]))] == [1]
    assert near_duplicates.near(source, thumbnails, 4, np.array([True, True, False])) == []


def test_the_nearest_hash_is_named_then_the_smallest_key(scenes):
    hashes = [0b0, 0b111, 0b1, 0b10]
    rows = [
        ("d", "1", "x", "train"),
        ("a", "2", "x", "test"),
        ("c", "3", "x", "test"),
        ("b", "4", "x", "test"),
    ]
    source, thumbnails = table(*rows, hashes=hashes), pictures([scenes[0]] * 4, ["any"] * 4)[1]
    assert near_duplicates.near(source, thumbnails, 4, everything(source)) == [near_duplicates.Pair(0, 3, 1)]


def test_different_handwritten_digits_are_kept():
    images = [np.uint8(image * 15) for image in load_digits().images]
    splits = ["test" if place % 5 == 0 else "train" for place in range(len(images))]
    source, thumbnails = pictures([cv2.resize(image, (32, 32)) for image in images], splits)
    assert len(near_duplicates.near(source, thumbnails, 4, everything(source))) <= 5


@pytest.mark.parametrize("level", [0, 128])
def test_thousands_of_blank_images_are_all_found_and_few_are_compared(level):
    count = 3000
    splits = ["train" if place % 2 else "test" for place in range(count)]
    noise = np.random.default_rng(0).integers(0, 3, (count, 256), np.uint8)
    source = table(*((f"{n:05d}", str(n), "x", split) for n, split in enumerate(splits)), hashes=[9] * count)
    asked = 0

    def thumbnails(rows: np.ndarray) -> np.ndarray:
        nonlocal asked
        asked += len(rows)
        return noise[rows] + np.uint8(level)

    found = near_duplicates.near(source, thumbnails, 4, everything(source))
    assert [pair.row for pair in found] == list(range(1, count, 2))
    assert {pair.other for pair in found} == {0}
    assert asked < 5 * count


def test_of_a_crowd_with_one_hash_the_first_of_each_thumbnail_stays():
    hashes = np.array([5] * 40 + [6] * 3, np.uint64)
    shades = np.repeat(np.arange(43) % 2, 256).reshape(43, 256).astype(np.uint8)
    held = np.arange(43)[::-1].copy()
    assert near_duplicates._without_crowds(held, hashes, shades.__getitem__).tolist() == [42, 41, 40, 39, 38]


def test_black_is_not_white_and_noise_is_not_a_picture(scenes):
    black, white = np.zeros((1, 256), np.uint8), np.full((1, 256), 255, np.uint8)
    assert near_duplicates.alike(black, black + np.uint8(3)).all()
    assert not near_duplicates.alike(black, white).any()
    assert not near_duplicates.alike(black, cv2.resize(scenes[0], (16, 16)).reshape(1, 256)).any()


@pytest.mark.parametrize("bits", [0, 1, 3, 4, 6, 8, 16])
def test_the_search_finds_exactly_the_pairs_that_comparing_all_finds(bits):
    generator = np.random.default_rng(bits)
    first = np.unique(generator.integers(0, 2**63, 400, np.uint64))
    flips = np.array(
        [sum(1 << int(b) for b in generator.choice(64, n % 18, False)) for n in range(400)], np.uint64
    )
    second = np.unique(generator.permutation(first)[:300] ^ flips[:300])
    chunks = list(near_duplicates.close(first, second, bits))
    found = {(int(i), int(j), int(d)) for part in chunks for i, j, d in zip(*part, strict=True)}
    distance = np.bitwise_count(first[:, None] ^ second[None, :])
    assert found == {(int(i), int(j), int(distance[i, j])) for i, j in np.argwhere(distance <= bits)}
    assert len(found) >= 10


def test_pairs_are_spread_in_chunks_without_losing_any():
    counts = np.array([0, 3, 0, 5, 1, 0, 7, 0])
    chunks = [np.stack(chunk) for chunk in near_duplicates._spread(counts, 4)]
    assert max(chunk.shape[1] for chunk in chunks) == 4
    expected = [(i, turn) for i, count in enumerate(counts) for turn in range(count)]
    assert list(map(tuple, np.concatenate(chunks, axis=1).T.tolist())) == expected
