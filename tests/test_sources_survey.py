"""What a dry run finds out about a batch, from the content of its files."""

import cv2
import numpy as np
import pytest

from nightshift.data.sources import Batch, Item
from nightshift.data.sources.preview import (
    CONTRADICTION,
    CUT,
    DUPLICATE,
    IMPOSSIBLE,
    TWO_LABELS,
    Class,
    survey,
)


def encoded(kind: str, seed: int, width: int = 8, height: int = 6) -> bytes:
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return bytes(cv2.imencode(kind, image)[1])


PNG, JPEG = encoded(".png", 1), encoded(".jpg", 2, 20, 10)


def batch(**files: tuple[str, bytes]) -> Batch:
    """A batch of files; a name's last underscore stands for the dot."""
    items = [
        Item(f"{label}/{'.'.join(name.rsplit('_', 1))}", label, data) for name, (label, data) in files.items()
    ]
    return Batch("monday", tuple(items))


def test_counts_sizes_and_formats_come_from_the_content() -> None:
    found = survey(batch(a_png=("cat", PNG), b_jpg=("cat", JPEG), c_dat=("dog", encoded(".png", 3))))
    third = len(encoded(".png", 3))
    assert found.formats == {"PNG": 2, "JPEG": 1}
    assert found.classes == {"cat": Class(2, len(PNG) + len(JPEG), {}), "dog": Class(1, third, {})}
    assert (found.files, found.bytes) == (3, len(PNG) + len(JPEG) + third)
    assert (found.bytes_at[0], found.bytes_at[100]) == (min(len(PNG), third), len(JPEG))
    assert found.pixels_at == {0: 48, 5: 48, 50: 48, 95: 200, 100: 200}
    assert found.suspects == {}


def test_splits_of_the_source_are_counted_by_class() -> None:
    items = [Item(f"images/{i}.png", "cat", PNG + b"%d" % i, "test" if i else "train") for i in range(3)]
    assert survey(Batch("monday", tuple(items))).classes["cat"].splits == {"train": 1, "test": 2}


@pytest.mark.parametrize(
    ("name", "data", "trouble", "words"),
    [
        ("a_png", b"", "empty", "cat/a.png: the file has no bytes"),
        ("a_png", b"MZ\x90\x00" * 9, "not-an-image", "cat/a.png: "),
        ("a_png", JPEG, CONTRADICTION, "cat/a.png: it is JPEG"),
        ("a_JPG", PNG, CONTRADICTION, "cat/a.JPG: it is PNG"),
        ("a_png", PNG[:16] + bytes(4) + PNG[20:], IMPOSSIBLE, "cat/a.png: PNG of 0x6 pixels"),
        ("a_png", PNG[:16] + b"\xff" * 8 + PNG[24:], IMPOSSIBLE, "cat/a.png: PNG of 4294967295x4294967295"),
        ("a_png", PNG[:-20], CUT, "cat/a.png: PNG ends early after"),
    ],
)
def test_suspicious_files_are_named(name: str, data: bytes, trouble: str, words: str) -> None:
    found = survey(batch(**{name: ("cat", data)})).suspects
    assert list(found) == [trouble]
    assert found[trouble].count == 1
    assert found[trouble].examples[0].startswith(words)


def test_a_format_is_in_brackets_where_there_is_none() -> None:
    found = survey(batch(a_png=("cat", b""), b_png=("cat", b"MZ" * 9), c_png=("cat", PNG)))
    assert found.formats == {"(empty)": 1, "(not-an-image)": 1, "PNG": 1}
    assert found.pixels_at[0] == 48


def test_the_same_bytes_under_one_and_under_two_labels() -> None:
    found = survey(batch(a_png=("cat", PNG), b_png=("cat", PNG), c_png=("dog", PNG))).suspects
    assert found[DUPLICATE].examples == ["cat/b.png is cat/a.png"]
    assert found[TWO_LABELS].examples == ["dog/c.png (dog) is cat/a.png (cat)"]


def test_empty_files_are_not_duplicates() -> None:
    assert list(survey(batch(a_png=("cat", b""), b_png=("dog", b""))).suspects) == ["empty"]


def test_only_the_first_examples_are_kept_but_all_are_counted() -> None:
    found = survey(Batch("monday", tuple(Item(f"cat/{i}.png", "cat", b"") for i in range(30)))).suspects
    assert found["empty"].count == 30
    assert [each.split(":")[0] for each in found["empty"].examples] == [f"cat/{i}.png" for i in range(5)]


def test_a_file_that_cannot_be_read_does_not_end_the_survey(tmp_path) -> None:
    found = survey(Batch("monday", (Item("cat/a.png", "cat", tmp_path / "gone.png"),))).suspects
    assert found["cannot be read"].count == 1


def test_progress_adds_up() -> None:
    done: list[int] = []
    survey(batch(a_png=("cat", PNG), b_png=("cat", PNG)), advance=done.append)
    assert sum(done) == 2
