"""Shards hold every readable image once, refusals hold the rest, and work done is found again."""

import hashlib
import json
from collections import Counter

import cv2
import numpy as np
import pytest
from safetensors.numpy import load

from nightshift import storage
from nightshift.config import PreprocessSettings
from nightshift.data import batches, index, shards
from nightshift.data.images import UnreadableError, prepare
from nightshift.data.labels import Label
from nightshift.data.prefetch import fetch
from nightshift.preprocess import preprocess, split_of
from nightshift.records import Message, Part, PartList, PartResult, SplitFolders
from nightshift.records.specs import PreprocessSpec

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
    store: str, files: dict[str, bytes], manifest: str | None = None, digest: str = "p" * 64, **changes
) -> PartResult:
    for key, data in files.items():
        storage.write(f"{store}/incoming/pets/b1/{key}", data)
    if manifest is not None:
        storage.write(f"{store}/incoming/pets/b1/manifest.csv", manifest.encode())
    name = "manifest.csv" if manifest is not None else None
    part = Part(batch="b1", keys=tuple(sorted(files)), manifest=name, digest=digest)
    kept = {name: changes.pop(name) for name in ("keys", "splits") if name in changes}
    part = part.model_copy(update=kept)
    uri = storage.write_record(f"{store}/plans/p.json", PartList(batches={}, parts=(part,))).uri
    message = Message(parts_uri=uri, parts=1, images=len(files))
    settings = SETTINGS.model_copy(update=changes)
    preprocess(PreprocessSpec(message=message, source=f"{store}/incoming/pets", settings=settings))
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
        assert split == split_of(Label("cat"), identity.hex(), (), SETTINGS)
    assert {split for split, *_ in found.values()} == {"train", "validation", "test"}


def test_an_unreadable_file_is_refused_with_its_reason_and_the_rest_goes_on(store):
    result = run(store, {"cat/1.png": png(1), "cat/2.png": b"not an image", "loose.png": png(2)})
    assert set(rows(result)) == {"b1/cat/1.png"}
    assert {refusal.key: refusal.reason for refusal in result.refusals} == {
        "b1/cat/2.png": "not-an-image",
        "b1/loose.png": "no-label",
    }
    (unreadable, _) = result.refusals
    assert unreadable.sha256 == hashlib.sha256(b"not an image").hexdigest()


def test_a_file_over_the_limit_or_gone_is_refused_and_the_rest_goes_on(store):
    files = {"cat/1.png": png(1), "cat/2.png": png(2, size=400)}
    keys = ("cat/0.png", "cat/1.png", "cat/2.png")
    result = run(store, files, keys=keys, max_megabytes=0.01)
    assert set(rows(result)) == {"b1/cat/1.png"}
    assert [(refusal.key, refusal.reason) for refusal in result.refusals] == [
        ("b1/cat/0.png", "gone"),
        ("b1/cat/2.png", "too-large"),
    ]
    assert "preprocess.max_megabytes" in result.refusals[1].detail


def test_the_index_says_of_every_row_where_it_is_and_what_it_was(store):
    text = "path,label,group,camera\nimages/1.png,cat,g1,front\nimages/2.png,dog,,\n"
    files = {"images/1.png": png(1, size=20), "images/2.png": png(2)}
    result = run(store, files, manifest=text)
    table = index.read(result.index).to_pylist()
    found = {row["key"]: row for row in table}
    first = found["b1/images/1.png"]
    assert (first["label"], first["group"], first["format"]) == ("cat", "g1", "PNG")
    assert (first["width"], first["height"], first["bytes"]) == (20, 20, len(files["images/1.png"]))
    assert json.loads(first["extra"]) == {"camera": "front"}
    assert found["b1/images/2.png"]["extra"] == ""
    pixels = rows(result)
    for row in table:
        shard = load(storage.read_artifact(result.shards[row["shard"]].file))
        assert np.array_equal(shard["images"][row["row"]], pixels[row["key"]][2])
        assert row["split"] == result.shards[row["shard"]].split


def test_a_stage_that_is_killed_leaves_no_manifest_and_the_next_gives_the_same_bytes(store, monkeypatch):
    files = {f"cat/{seed}.png": png(seed) for seed in range(30)}
    whole = run(store, files, digest="1" * 64)

    def killed(*arguments, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("nightshift.preprocess.index.write", killed)
        with pytest.raises(KeyboardInterrupt):
            run(store, files, digest="2" * 64)
    assert not storage.exists(f"{store}/shards/{'2' * 64}/part.json")
    again = run(store, files, digest="2" * 64)
    assert [s.file.sha256 for s in again.shards] == [s.file.sha256 for s in whole.shards]
    assert again.index.sha256 == whole.index.sha256


def test_a_part_that_is_done_is_not_done_again(store):
    first = run(store, {"cat/1.png": png(1)})
    again = run(store, {"cat/1.png": png(1)})
    assert again == first  # the seconds that it took, too


@pytest.mark.parametrize("reason", sorted(shards.TRANSIENT))
def test_what_may_have_passed_refuses_a_file_for_one_night_only(store, monkeypatch, reason):
    files = {"cat/1.png": png(1), "cat/2.png": png(2)}

    def busy(uris, limit):
        for uri, fetched in zip(uris, fetch(uris, limit), strict=True):
            yield UnreadableError(reason, "for once") if uri.endswith("1.png") else fetched

    with monkeypatch.context() as patch:
        patch.setattr("nightshift.preprocess.fetch", busy)
        first = run(store, files)
    assert [refusal.reason for refusal in first.refusals] == [reason]
    assert shards.found(first.part) is None
    again = run(store, files)
    assert again.refusals == ()
    assert set(rows(again)) == {"b1/cat/1.png", "b1/cat/2.png"}
    assert run(store, files) == again


def test_what_never_passes_stays_refused_after_some_nights(store, monkeypatch, capsys):
    def hangs(uris, limit):
        for uri, fetched in zip(uris, fetch(uris, limit), strict=True):
            yield UnreadableError("timeout", "again") if uri.endswith("1.png") else fetched

    monkeypatch.setattr("nightshift.preprocess.fetch", hangs)
    files = {"cat/1.png": png(1), "cat/2.png": png(2)}
    tried = [run(store, files) for _ in range(5)]
    assert [result.tries for result in tried] == [1, 2, 3, 3, 3]
    assert [result.refusals for result in tried] == [tried[0].refusals] * 5
    assert "1 files stay refused after 3 tries" in capsys.readouterr().out
    monkeypatch.undo()


def test_a_part_that_lost_a_shard_is_done_again(store):
    first = run(store, {"cat/1.png": png(1)})
    storage.delete(first.shards[0].file.uri)
    again = run(store, {"cat/1.png": png(1)})
    assert again.shards == first.shards
    assert storage.exists(first.shards[0].file.uri)


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
    same = split_of(Label("cat"), "same", (), SETTINGS)
    assert found["b1/images/2.png"][0] == found["b1/images/3.png"][0] == same
    assert [refusal.reason for refusal in result.refusals] == ["no-label"]


def test_folders_called_like_splits_are_splits_in_the_store_too(store):
    sides = {"Training": "train", "val": "validation", "Test": "test"}
    names = [f"{side}/{name}/{n}.png" for side in sides for name in ("cat", "dog") for n in range(4)]
    files = {key: png(seed) for seed, key in enumerate([*names, "Test/5.png"])}
    listing = [storage.Stored(f"b1/{key}", 10, "etag", 1.0) for key in sorted(files)]
    (batch,) = batches.complete(listing, 600, [], Counter())
    (part,) = batches.cut(batch, SETTINGS, f"{store}/incoming/pets")
    assert part.splits == SplitFolders(outer=True, named=("test", "train", "validation"))
    plain = batches.part_digest(batch._replace(splits=None), SETTINGS, f"{store}/incoming/pets")
    assert plain != part.digest
    result = run(store, files, splits=part.splits)
    found = {key: (split, label) for key, (split, label, *_) in rows(result).items()}
    assert found == {f"b1/{key}": (sides[key.split("/")[0]], key.split("/")[1]) for key in names}
    assert [(refusal.key, refusal.reason) for refusal in result.refusals] == [("b1/Test/5.png", "no-label")]


def test_the_same_class_in_two_writings_is_one(store):
    files = {
        f"{name}/{seed}.png": png(seed) for seed, name in enumerate(["caf\u00e9", "cafe\u0301", "1", "1.0"])
    }
    assert {label for _, label, *_ in rows(run(store, files)).values()} == {"caf\u00e9", "1"}


def test_a_manifest_finds_its_files_however_accents_are_written(store):
    found = rows(run(store, {"cafe\u0301.png": png(1)}, manifest="path,label\ncaf\u00e9.png,cat\n"))
    assert [label for _, label, *_ in found.values()] == ["cat"]


def test_patients_stay_on_one_side_however_their_numbers_are_written(store):
    text = "path,label,group\n" + "".join(
        f"{visit}/{number}.png,cat,{end.format(number)}\n"
        for visit, end in (("a", "p{}"), ("b", "P{}"), ("c", "{}"), ("d", "{}.0"), ("e", "00{}"))
        for number in range(40)
    )
    files = {
        f"{visit}/{number}.png": png(number + 99 * at)
        for at, visit in enumerate("abcde")
        for number in range(40)
    }
    found = {key: split for key, (split, *_) in rows(run(store, files, manifest=text)).items()}
    assert len(set(found.values())) == 3
    for number in range(40):
        assert found[f"b1/a/{number}.png"] == found[f"b1/b/{number}.png"]
        assert len({found[f"b1/{visit}/{number}.png"] for visit in "cde"}) == 1


def test_splits_follow_the_fractions_and_never_move():
    settings = PreprocessSettings(validation_fraction=0.2, test_fraction=0.1)
    splits = [split_of(Label("cat"), str(number), (), settings) for number in range(5000)]
    assert abs(splits.count("test") / 5000 - 0.1) < 0.02
    assert abs(splits.count("validation") / 5000 - 0.2) < 0.02
    assert splits == [split_of(Label("cat"), str(number), (), settings) for number in range(5000)]


@pytest.mark.parametrize("validates", [True, False])
def test_a_source_without_validation_images_gives_some_of_its_training_images(store, validates):
    files = {f"images/{seed}.png": png(seed) for seed in range(60)}
    named = ["train" if seed < 48 else "val" if validates and seed > 54 else "test" for seed in range(60)]
    lines = [f"images/{seed}.png,cat,{split}" for seed, split in enumerate(named)]
    result = run(store, files, "\n".join(["path,label,split", *lines]), validation_fraction=0.3)
    splits = {key: split for key, (split, *_) in rows(result).items()}
    for seed, split in enumerate(named):
        kept = {split.replace("val", "validation")}
        taken = {"train", "validation"} if split == "train" and not validates else kept
        assert splits[f"b1/images/{seed}.png"] in taken
    assert 0 < list(splits.values()).count("validation") < 30


def test_a_source_with_training_and_validation_images_only_is_tested_on_the_latter(store):
    files = {f"images/{seed}.png": png(seed) for seed in range(60)}
    named = ["train" if seed < 48 else "val" for seed in range(60)]
    lines = [f"images/{seed}.png,cat,{split}" for seed, split in enumerate(named)]
    result = run(store, files, "\n".join(["path,label,split", *lines]), validation_fraction=0.3)
    splits = {key: split for key, (split, *_) in rows(result).items()}
    for seed, split in enumerate(named):
        assert (splits[f"b1/images/{seed}.png"] == "test") is (split == "val")
    assert 0 < list(splits.values()).count("validation") < 30
