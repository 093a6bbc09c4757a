"""Shards: bounded in memory, one split each, bytes that depend on their rows alone."""

import json

import numpy as np
import pytest
from safetensors.numpy import load, save

from nightshift import storage
from nightshift.config import PreprocessSettings
from nightshift.data import shards
from nightshift.data.shards import Buffers, Filled, Row, moments
from nightshift.records import Split

SETTINGS = PreprocessSettings(image_size=8)


@pytest.fixture
def folder(tmp_path):
    return f"file://{tmp_path}"


def row(number: int, split: Split = "train", label: str = "cat") -> Row:
    pixels = np.full((8, 8, 3), number, np.uint8)
    return Row(pixels, split, {"key": f"b/{number}.png", "id": bytes([number]) * 32, "label": label})


def filled(*rows: Row) -> Filled:
    (found,) = Buffers(SETTINGS).fill(iter(rows))
    return found


def test_rows_are_let_go_by_split_when_a_shard_is_full(monkeypatch):
    monkeypatch.setattr(shards, "capacity", lambda settings: 2)
    buffers, found, memory = Buffers(SETTINGS), [], set()
    for filled in buffers.fill(row(number, "test" if number == 3 else "train") for number in range(6)):
        assert [facts["key"] for facts in filled.facts] == [f"b/{n}.png" for n in filled.pixels[:, 0, 0, 0]]
        found.append((filled.split, filled.pixels[:, 3, 3, 2].tolist()))
        memory.add(filled.pixels.ctypes.data)
        buffers.release(filled)
    assert found == [("train", [0, 1]), ("train", [2, 4]), ("train", [5]), ("test", [3])]
    assert len(memory) == 2  # of one split each, used again


@pytest.mark.parametrize(("changes", "images"), [({"image_size": 224}, 222), ({"channels": 32}, 1024)])
def test_a_shard_has_32_mib_whatever_the_images_are(changes, images):
    assert shards.capacity(PreprocessSettings(**changes)) == images


def test_a_shard_holds_its_rows_and_says_where_they_came_from(folder):
    rows = [row(1, label="dog"), row(2, label="cat")]
    shard = shards.write(folder, 0, filled(*rows))
    data = storage.read_artifact(shard.file)
    tensors = load(data)
    expected = {"images": filled(*rows).pixels, "labels": tensors["labels"], "ids": tensors["ids"]}
    assert load(save(expected)).keys() == tensors.keys()
    assert len(save(expected, metadata={"keys": '["b/1.png", "b/2.png"]'})) == len(data)
    assert shard.classes == ("cat", "dog")
    assert tensors["labels"].tolist() == [1, 0]
    assert tensors["images"][:, 0, 0, 0].tolist() == [1, 2]
    assert tensors["ids"].tobytes() == rows[0].facts["id"] + rows[1].facts["id"]
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    assert json.loads(header["__metadata__"]["keys"]) == ["b/1.png", "b/2.png"]


def test_equal_rows_give_equal_bytes(folder):
    one, two = (shards.write(folder, number, filled(row(1), row(2))) for number in (0, 1))
    assert one.file.sha256 == two.file.sha256


def test_moments_agree_with_numpy():
    pixels = np.random.default_rng(0).integers(0, 256, (5, 6, 7, 3), np.uint8)
    mean, square = moments(pixels)
    assert np.allclose(mean, (pixels / 255).mean((0, 1, 2)))
    assert np.allclose(square, ((pixels / 255) ** 2).mean((0, 1, 2)))
