"""The index of many parts as one table: rows, thumbnails on demand, places in shards."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from nightshift.data import index
from nightshift.data.index import SCHEMA, THUMBNAIL, Index
from nightshift.records import Artifact, PartResult, Shard

NOWHERE = Artifact(uri="file:///x", sha256="0" * 64, size=1)


def fact(number: int, shard: int, row: int) -> dict:
    return {
        "key": f"b/{number}.png",
        "id": bytes([number]) * 32,
        "label": "cat",
        "split": "train",
        "group": "",
        "shard": shard,
        "row": row,
        "format": "PNG",
        "width": 8,
        "height": 8,
        "bytes": 100,
        "brightness": 0.5,
        "contrast": 0.1,
        "sharpness": 3.0,
        "phash": 2**64 - 1 - number,
        "thumbnail": bytes([number]) * THUMBNAIL**2,
        "extra": "",
    }


def part(folder: str, name: str, facts: list[dict], shards: int) -> PartResult:
    shard = Shard(file=NOWHERE, split="train", images=1, classes=("cat",))
    written = index.write(f"{folder}/{name}", facts)
    return PartResult(part=name, batch="b", shards=(shard,) * shards, index=written, refusals=(), seconds=1.0)


@pytest.fixture
def combined(tmp_path):
    """Two parts: rows 0 to 2 in two shards, rows 3 and 4 in one."""
    folder = f"file://{tmp_path}"
    one = part(folder, "one", [fact(0, 0, 0), fact(1, 1, 0), fact(2, 1, 1)], 2)
    two = part(folder, "two", [fact(3, 0, 0), fact(4, 0, 1)], 1)
    with ThreadPoolExecutor(2) as pool:
        return Index.of(pool, [one, two])


def test_rows_of_all_parts_stand_in_the_order_of_the_parts(combined):
    assert combined.rows["key"].to_pylist() == [f"b/{number}.png" for number in range(5)]
    assert combined.rows["phash"].to_pylist()[0] == 2**64 - 1
    assert "thumbnail" not in combined.rows.column_names
    assert combined.shards.tolist() == [0, 1, 1, 2, 2]


def test_thumbnails_come_in_the_order_asked_for(combined):
    found = combined.thumbnails(np.array([4, 0, 3]))
    assert found.shape == (3, THUMBNAIL**2)
    assert found[:, 0].tolist() == [4, 0, 3]


def test_marked_rows_are_found_in_their_shards(combined):
    assert combined.places(np.array([False, True, True, False, True])) == {1: (0, 1), 2: (1,)}


def test_equal_rows_give_equal_bytes(tmp_path):
    one, two = (index.write(f"file://{tmp_path}/{name}", [fact(1, 0, 0)]) for name in "ab")
    assert one.sha256 == two.sha256
    assert index.read(one).schema.equals(SCHEMA)


def test_a_source_without_a_usable_image_has_an_empty_index():
    with ThreadPoolExecutor(1) as pool:
        empty = Index.of(pool, [])
    assert empty.rows.num_rows == 0
    assert empty.places(np.zeros(0, bool)) == {}
