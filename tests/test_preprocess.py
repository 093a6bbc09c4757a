"""Shards hold every readable image once, refusals hold the rest, and work done is found again."""

import hashlib
import json

import cv2
import numpy as np
import pytest
from safetensors.numpy import load

from tasks import storage
from tasks.config import PreprocessSettings
from tasks.errors import InputError
from tasks.images import prepare
from tasks.preprocess import moments, preprocess, read_labels, split_of
from tasks.records import Message, Part, PartResult, PreprocessSpec

SETTINGS = PreprocessSettings(image_size=8)


def png(seed: int, size: int = 8) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), np.uint8)
    return cv2.imencode(".png", pixels)[1].tobytes()


@pytest.fixture
def store(tmp_path, monkeypatch):
    root = f"file://{tmp_path}"
    monkeypatch.setenv("NIGHTSHIFT_STORE", root)
    return root


def run(
    store: str, files: dict[str, bytes], manifest: str | None = None, digest: str = "p" * 64
) -> PartResult:
    for key, data in files.items():
        storage.write(f"{store}/incoming/pets/b1/{key}", data)
    if manifest is not None:
        storage.write(f"{store}/incoming/pets/b1/manifest.csv", manifest.encode())
    part = Part(batch="b1", keys=tuple(sorted(files)), manifest=manifest is not None, digest=digest)
    uri = storage.write(f"{store}/plans/p.json", f"[{part.model_dump_json()}]".encode()).uri
    message = Message(parts_uri=uri, parts=1, images=len(files))
    spec = PreprocessSpec(
        message=message, source=f"{store}/incoming/pets", pipeline="pets", settings=SETTINGS
    )
    preprocess(spec)
    return storage.read_record(f"{store}/shards/{digest}/part.json", PartResult)


def rows(result: PartResult) -> dict[str, tuple[str, str, np.ndarray, bytes]]:
    """key -> (split, class, pixels, id) of everything in the shards."""
    found = {}
    for shard in result.shards:
        data = storage.read_artifact(shard.file)
        tensors = load(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        for row, key in enumerate(json.loads(header["__metadata__"]["keys"])):
            name = shard.classes[int(tensors["labels"][row])]
            found[key] = (shard.split, name, tensors["images"][row], tensors["ids"][row].tobytes())
    return found


def test_every_image_is_in_one_shard_as_the_serving_code_would_see_it(store):
    files = {f"{name}/{seed}.png": png(seed) for seed, name in enumerate(["cat", "dog"] * 20)}
    found = rows(run(store, files))
    assert set(found) == {f"b1/{key}" for key in files}
    for key, data in files.items():
        split, name, pixels, identity = found[f"b1/{key}"]
        assert name == key.split("/")[0]
        assert np.array_equal(pixels, prepare(data, SETTINGS))
        assert identity == hashlib.sha256(data).digest()
        assert split == split_of(identity.hex(), SETTINGS)
    assert {split for split, *_ in found.values()} == {"train", "validation", "test"}


def test_an_unreadable_file_is_refused_with_its_reason_and_the_rest_goes_on(store):
    result = run(store, {"cat/1.png": png(1), "cat/2.png": b"not an image", "loose.png": png(2)})
    assert set(rows(result)) == {"b1/cat/1.png"}
    assert {refusal.key: refusal.reason for refusal in result.refusals} == {
        "b1/cat/2.png": "not-an-image",
        "b1/loose.png": "no-label",
    }
    (entry,) = storage.listing(f"{store}/quarantine/pets/b1")
    lines = storage.read(f"{store}/quarantine/pets/b1/{entry.key}").decode().splitlines()
    assert len(lines) == 2


def test_a_part_that_is_done_is_not_done_again(store):
    first = run(store, {"cat/1.png": png(1)})
    for shard in first.shards:
        storage.delete(shard.file.uri)
    again = run(store, {"cat/1.png": png(1)})
    assert again == first
    assert not storage.exists(first.shards[0].file.uri)


def test_the_same_part_gives_identical_bytes(store):
    files = {f"cat/{seed}.png": png(seed) for seed in range(10)}
    one = run(store, files, digest="1" * 64)
    two = run(store, files, digest="2" * 64)
    assert [shard.file.sha256 for shard in one.shards] == [shard.file.sha256 for shard in two.shards]


def test_a_manifest_gives_labels_splits_and_groups(store):
    text = "path,label,split,group\nimages/1.png,cat,test,\nimages/2.png,dog,,same\nimages/3.png,dog,,same\n"
    files = {f"images/{seed}.png": png(seed) for seed in (1, 2, 3, 4)}
    result = run(store, files, manifest=text)
    found = rows(result)
    assert found["b1/images/1.png"][:2] == ("test", "cat")
    assert found["b1/images/2.png"][0] == found["b1/images/3.png"][0] == split_of("same", SETTINGS)
    assert [refusal.reason for refusal in result.refusals] == ["no-label"]


def test_a_manifest_error_names_its_line():
    with pytest.raises(InputError, match=r"m\.csv, line 3: split must be one of train.* got 'tset'"):
        read_labels("path,label,split\na,cat,\nb,cat,tset\n", "m.csv")
    with pytest.raises(InputError, match="must have the columns path and label, got file, label"):
        read_labels("file,label\n", "m.csv")


def test_splits_follow_the_fractions_and_never_move():
    settings = PreprocessSettings(validation_fraction=0.2, test_fraction=0.1)
    splits = [split_of(str(number), settings) for number in range(5000)]
    assert abs(splits.count("test") / 5000 - 0.1) < 0.02
    assert abs(splits.count("validation") / 5000 - 0.2) < 0.02
    assert splits == [split_of(str(number), settings) for number in range(5000)]


def test_moments_agree_with_numpy():
    pixels = np.random.default_rng(0).integers(0, 256, (5, 6, 7, 3), np.uint8)
    mean, square = moments(pixels)
    assert np.allclose(mean, (pixels / 255).mean((0, 1, 2)))
    assert np.allclose(square, ((pixels / 255) ** 2).mean((0, 1, 2)))
