"""Class folders with splits, under a prefix of a store, and with names that mean harm."""

import os
from pathlib import Path

import pytest
from source_files import folder
from test_storage import s3, s3_server

from nightshift import storage
from nightshift.config.clutter import LEFT_BEHIND
from nightshift.data.sources import find, ingest
from nightshift.errors import InputError

__all__ = ["s3", "s3_server"]  # fixtures: a real S3 server


def test_folders_called_like_splits_are_the_source_s_own_splits(tmp_path: Path) -> None:
    source = folder(
        tmp_path / "monday",
        "train/cat/a.png",
        "train/dog/a.png",
        "val/cat/x/a.png",
        "test/dog/a.png",
        "notes.txt",
    )
    batch = find(source)
    assert [(item.key, item.label, item.split) for item in batch.items] == [
        ("images/test/dog/a.png", "dog", "test"),
        ("images/train/cat/a.png", "cat", "train"),
        ("images/train/dog/a.png", "dog", "train"),
        ("images/val/cat/x/a.png", "cat", "validation"),
    ]
    assert batch.manifest is not None
    assert b"images/val/cat/x/a.png,cat,validation,\n" in batch.manifest
    assert batch.ignored == {"outside the class folders": 1}
    assert batch.notes == (
        "folders are taken as the source's own splits: test as test, train as train, val as validation",
    )


def test_classes_may_be_called_train_and_test_when_they_hold_files(tmp_path: Path) -> None:
    assert find(folder(tmp_path / "vehicles", "train/a.png", "test/a.png")).classes == {"test": 1, "train": 1}
    batch = find(folder(tmp_path / "more", "train/x/a.png", "bus/x/a.png"))
    assert batch.classes == {"bus": 1, "train": 1}
    assert batch.notes == (
        "folders called 'train' are not taken as splits: then all must be <split>/<class>/<image file> or "
        "<class>/<split>/<image file>",
    )


def test_a_folder_above_the_class_folders_is_doubted(tmp_path: Path) -> None:
    batch = find(folder(tmp_path / "batches", "monday/cat/a.png", "monday/dog/a.png"))
    assert batch.classes == {"monday": 2}
    assert batch.notes == ("there is one class, 'monday'; point at that folder if the classes are in it",)


def test_an_empty_split_is_said(tmp_path: Path) -> None:
    source = folder(tmp_path / "monday", "train/cat/a.png")
    (source / "test").mkdir()
    with pytest.raises(InputError, match=r"class folder 'test' of .* is empty; fill it or remove it"):
        find(source)


def test_a_path_too_long_for_a_key_is_refused(tmp_path: Path) -> None:
    folder(tmp_path / "monday" / "cat" / "/".join("d" * 450), "a.png")
    with pytest.raises(InputError, match=r"path 'cat/d/d.* is longer than 800 bytes; shorten it"):
        find(tmp_path / "monday")


@pytest.mark.parametrize("name", [b"cat/a\nb.png", b"cat/a\x1bb.png", b"cat/a\xe9.png", b"cat/a\\b.png"])
def test_names_that_are_not_text_are_refused(tmp_path: Path, name: bytes) -> None:
    source = folder(tmp_path / "monday", "cat/ok.png")
    with open(os.path.join(os.fsencode(source), name), "wb"):
        pass
    with pytest.raises(InputError, match=r"file name .* has control, undecodable or backslash characters"):
        find(source)


def test_accents_written_in_two_ways_are_one_class(tmp_path: Path) -> None:
    source = folder(tmp_path / "monday", "K\u00fcche/a.png", "Ku\u0308che/a.png")
    assert find(source).classes == {"K\u00fcche": 2}


@pytest.mark.parametrize("names", [("Cat", "cat"), ("1", "001"), ("\u00c9t\u00e9", "e\u0301te\u0301")])
def test_a_class_written_in_two_ways_is_one_too_many(tmp_path: Path, names: tuple[str, str]) -> None:
    source = folder(tmp_path / "monday", *(f"{name}/a.png" for name in names))
    with pytest.raises(InputError, match="differ only in case or in zeros before a number; make them one"):
        find(source)


def test_a_folder_of_batches_is_not_taken_for_classes(tmp_path: Path) -> None:
    ingest(find(folder(tmp_path / "monday", "cat/a.png")), f"file://{tmp_path}/store")
    with pytest.raises(InputError, match="holds batches, not class folders"):
        find(f"file://{tmp_path}/store")


def test_a_file_uri_is_a_folder(tmp_path: Path) -> None:
    source = folder(tmp_path / "monday", "cat/a.png")
    assert find(f"file://{source}") == find(source)


def test_other_addresses_are_refused() -> None:
    with pytest.raises(InputError, match=r"https://x/y.zip has an address of no known kind; give a folder"):
        find("https://x/y.zip")
    with pytest.raises(InputError, match=r"s3://b/y.tar.gz is a single file; download it"):
        find("s3://b/y.tar.gz")


def test_class_folders_under_a_prefix_become_a_batch(s3: str) -> None:
    for key in ("raw/monday/cat/a.png", "raw/monday/cat/.hidden", "raw/monday/dog/b.png", "raw/monday/x.txt"):
        storage.write(f"{s3}/{key}", key.encode())
    batch = find(f"{s3}/raw/monday/")
    assert (batch.name, batch.classes) == ("monday", {"cat": 1, "dog": 1})
    assert batch.ignored == {LEFT_BEHIND: 1, "outside the class folders": 1}
    result = ingest(batch, f"{s3}/incoming/pets")
    assert (result.uploaded, result.bytes) == (2, 40)
    assert storage.read(f"{s3}/incoming/pets/monday/dog/b.png") == b"raw/monday/dog/b.png"
    assert ingest(find(f"{s3}/raw/monday"), f"{s3}/incoming/pets").skipped == 2


def test_what_a_listing_says_is_the_same_is_not_read_again(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    storage.write(f"{s3}/more/monday/cat/a.png", b"a")
    batch = find(f"{s3}/more/monday")
    ingest(batch, f"{s3}/target")

    def refuse(uri: str) -> bytes:
        raise AssertionError(f"{uri} was read")

    monkeypatch.setattr(storage, "read", refuse)
    assert ingest(batch, f"{s3}/target").skipped == 1


def test_the_longest_name_is_one_that_a_store_on_a_disk_takes(tmp_path: Path, s3: str) -> None:
    name = "漢" * 80 + "x" * 11 + ".png"
    assert len(name.encode()) == 255
    source = folder(tmp_path / "monday", f"cat/{name}", "dog/1.png")
    assert ingest(find(source), f"{s3}/long").uploaded == 2
    assert storage.read(f"{s3}/long/monday/cat/{name}") == f"content of cat/{name}".encode()


def test_a_manifest_under_a_prefix_becomes_a_batch(s3: str) -> None:
    storage.write(f"{s3}/lab/manifest.csv", b"path,label,split,site\nx/a.png,cat,val,Bern\n")
    storage.write(f"{s3}/lab/other.csv", b"path,label\nx/b.png,dog\n")
    for name in ("a", "b"):
        storage.write(f"{s3}/lab/x/{name}.png", name.encode())
    batch = find(f"{s3}/lab")
    assert batch.manifest == b"path,label,split,group,site\nimages/x/a.png,cat,validation,,Bern\n"
    assert batch.ignored == {"not named in the manifest": 2}
    assert find(f"{s3}/lab/manifest.csv") == batch
    assert find(f"{s3}/lab/other.csv").classes == {"dog": 1}
    with pytest.raises(InputError, match=r"s3://test/lab/none.csv does not exist"):
        find(f"{s3}/lab/none.csv")


def test_an_empty_prefix_is_said(s3: str) -> None:
    with pytest.raises(InputError, match="nothing is stored under s3://test/nowhere"):
        find(f"{s3}/nowhere")
