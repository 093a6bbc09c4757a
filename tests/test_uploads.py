"""Labels that are corrected by uploading again: the newest upload of an image says its label."""

from pathlib import Path

import pytest
from test_assemble import album, dataset_of, drop, night, photo, store
from test_storage import s3, s3_server
from waiting import wait_for

from nightshift import storage
from nightshift.data import uploads
from nightshift.data.labels import READY
from nightshift.data.sources import find, ingest
from nightshift.data.uploads import Said, newest
from nightshift.errors import InputError

__all__ = ["s3", "s3_server", "store"]  # fixtures

INCOMING = "incoming/pets"


def folder(path: Path, files: dict[str, bytes]) -> Path:
    for key, data in files.items():
        (path / key).parent.mkdir(parents=True, exist_ok=True)
        (path / key).write_bytes(data)
    return path


def upload(path: Path, store: str) -> None:
    with find(path) as batch:
        ingest(batch, f"{store}/{INCOMING}")


def test_images_that_moved_to_another_class_have_its_label(store: str, tmp_path: Path) -> None:
    photos = folder(tmp_path / "set", album(60))
    upload(photos, store)
    _, first = night()
    (photos / "cat" / "0001.png").rename(photos / "dog" / "c1.png")
    (photos / "cat" / "0003.png").rename(photos / "dog" / "c3.png")
    upload(photos, store)
    _, second = night()
    assert (first.images, second.images) == (60, 60)
    then, now = dataset_of(first), dataset_of(second)
    assert (now.duplicates.corrected, now.duplicates.conflicting) == (2, 0)
    moved = {
        name: sum(now.counts[split].get(name, 0) - then.counts[split].get(name, 0) for split in now.counts)
        for name in ("cat", "dog")
    }
    assert moved == {"cat": -2, "dog": 2}


def test_a_set_whose_classes_are_renamed_has_the_new_names(store: str, tmp_path: Path) -> None:
    photos = folder(tmp_path / "set", album(60))
    upload(photos, store)
    for old, new in (("cat", "kitten"), ("dog", "puppy")):
        (photos / old).rename(photos / new)
    upload(photos, store)
    _, assembled = night()
    dataset = dataset_of(assembled)
    assert dataset.classes == ("kitten", "puppy")
    assert (assembled.images, dataset.duplicates.corrected) == (60, 60)


def test_a_third_upload_corrects_the_second(store: str, tmp_path: Path) -> None:
    photos = folder(tmp_path / "set", album(60))
    for key in ("cat/first.png", "dog/second.png", "cat/third.png"):
        (photos / key).write_bytes(photo(1000))
        upload(photos, store)
        (photos / key).unlink()
    _, assembled = night()
    dataset = dataset_of(assembled)
    found = dataset.duplicates
    assert (assembled.images, found.corrected, found.merged, found.conflicting) == (61, 1, 1, 0)
    assert sum(counts["cat"] for counts in dataset.counts.values()) == 31


def test_a_contradiction_within_one_upload_stays_one(store: str, tmp_path: Path) -> None:
    files = album(60)
    photos = folder(tmp_path / "set", {**files, "dog/copy.png": files["cat/0001.png"]})
    upload(photos, store)
    _, assembled = night()
    duplicates = dataset_of(assembled).duplicates
    assert (assembled.images, duplicates.conflicting, duplicates.corrected) == (59, 2, 0)


def test_a_later_batch_corrects_an_earlier_one(store: str) -> None:
    files = album(60)
    drop(store, "b", files)
    drop(store, "a", {"dog/copy.png": files["cat/0001.png"]})
    _, assembled = night()
    dataset = dataset_of(assembled)
    assert (assembled.images, dataset.duplicates.corrected) == (60, 1)
    assert sum(counts["dog"] for counts in dataset.counts.values()) == 31


def test_a_manifest_says_its_labels_anew_when_it_is_written(store: str) -> None:
    files = album(60)
    rows = [f"{key},{key.partition('/')[0]}" for key in files]
    drop(store, "a", files, "path,label\n" + "\n".join(rows) + "\n")
    drop(store, "b", {"dog/copy.png": files["cat/0001.png"]})
    assert dataset_of(night()[1]).duplicates.corrected == 1
    drop(store, "a", {}, "path,label\n" + "\n".join(reversed(rows)) + "\n")
    dataset = dataset_of(night()[1])
    assert dataset.duplicates.corrected == 1
    assert sum(counts["cat"] for counts in dataset.counts.values()) == 30


def test_which_copy_is_right_is_part_of_the_data_sets_digest(store: str) -> None:
    files = album(60)
    drop(store, "a", files)
    drop(store, "b", {"dog/copy.png": files["cat/0001.png"]})
    _, before = night()
    storage.write(f"{store}/{INCOMING}/a/cat/0001.png", files["cat/0001.png"])  # the same file once more
    planned, after = night()
    assert dataset_of(after).counts != dataset_of(before).counts
    assert after.digest != before.digest
    assert planned.data_digest == night()[0].data_digest


def test_a_night_without_images_says_how_many_contradict_each_other(store: str) -> None:
    files = {f"{name}/{n}.png": photo(n) for n in range(9) for name in ("cat", "dog")}
    drop(store, "a", files)
    with pytest.raises(InputError, match=r"could be used: 0 are refused, and of 18 another copy has another"):
        night()


@pytest.mark.parametrize(
    ("times", "batches", "label"),
    [
        ([Said(1, 0), Said(9, 1)], "aa", "dog"),
        ([Said(9, 1), Said(1, 0)], "aa", "cat"),
        ([Said(1, 0), Said(9, 0)], "aa", None),  # one upload
        ([Said(1, 0), Said(9, 0)], "ab", "dog"),
        ([Said(9, 0), Said(9, 0)], "ab", None),  # at once
        ([Said(9, 0), None], "ab", None),  # it is gone
        ([None, None], "ab", None),
    ],
)
def test_the_newest_upload_is_right_where_one_is(times: list[Said], batches: str, label: str | None) -> None:
    assert newest(["cat", "dog"], times, list(batches)) == label


@pytest.mark.parametrize("marker", [b"", b"done", b"[1]", b'{"ended": 3}', b'{"ended": ["x"]}', b"\xff"])
def test_a_marker_of_another_client_tells_of_no_upload(store: str, marker: bytes) -> None:
    uri = f"{store}/{INCOMING}/a"
    storage.write(f"{uri}/cat/1.png", b"x")
    storage.write(f"{uri}/{READY}", marker)
    assert len(uploads.ended(uri, storage.listing(uri))) == 1


def test_uploads_are_told_apart_in_s3_too(s3: str, tmp_path: Path) -> None:
    """Its times may be whole seconds, so the second upload begins in the next one."""
    photos = folder(tmp_path / "set", {"cat/0.png": photo(0), "cat/1.png": photo(1), "dog/2.png": photo(2)})
    upload(photos, s3)
    uri = f"{s3}/{INCOMING}/set"
    (ended,) = uploads.ended(uri, storage.listing(uri))

    def later() -> bool:
        storage.write(f"{s3}/clock", b"")
        (clock,) = (stored for stored in storage.listing(s3) if stored.key == "clock")
        return clock.modified > ended

    wait_for(later, "the store's clock to go on")
    (photos / "cat" / "1.png").rename(photos / "dog" / "1.png")
    upload(photos, s3)
    said = uploads.said(f"{s3}/{INCOMING}", ["set/cat/1.png", "set/dog/1.png"], 600)
    assert said["set/cat/1.png"].upload < said["set/dog/1.png"].upload
