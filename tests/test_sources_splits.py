"""Splits as others lay them out: other words, other depths, and what is said where none is recognised."""

import zipfile
from pathlib import Path

import numpy as np
import pytest
from source_files import folder

from nightshift.data import labels
from nightshift.data.labels import split_named
from nightshift.data.sources import Batch, find
from nightshift.data.sources.folders import UNLABELLED
from nightshift.errors import InputError

DOUBT = "not taken as splits: then all must be <split>/<class>/<image file> or <class>/<split>/<image file>"


def seen(batch: Batch) -> set[tuple[str, str, str | None]]:
    return {(item.key.removeprefix("images/"), item.label, item.split) for item in batch.items}


@pytest.mark.parametrize(
    ("word", "split"),
    [
        *((word, "train") for word in ("train", "Train", "TRAIN", "training", "Training", "train_set")),
        *((word, "train") for word in ("Training Set", "train-images", "seg_train", "training.data")),
        *((word, "validation") for word in ("val", "Val", "valid", "validation", "Validation_Set", "dev")),
        *((word, "test") for word in ("test", "Testing", "TEST", "test_images", "seg_test", "test_dataset")),
        *((word, None) for word in ("", "trainer", "cat", "data", "set", "train_test", "train2", "contest")),
    ],
)
def test_words_for_splits(word: str, split: str | None) -> None:
    assert split_named(word) == split


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("Training/{}/1.png", "Testing/{}/1.png"),
        ("brain/Training/{}/1.png", "brain/Testing/{}/1.png"),
        ("seg_train/seg_train/{}/1.png", "seg_test/seg_test/{}/1.png"),
        ("{}/train/1.png", "{}/test/1.png"),
        ("set/{}/Train/x/1.png", "set/{}/Test/1.png"),
    ],
)
def test_splits_of_others_are_splits(tmp_path: Path, train: str, test: str) -> None:
    files = [form.format(label) for form in (train, test) for label in ("glioma", "none")]
    wanted = {
        (form.format(label), label, split)
        for form, split in ((train, "train"), (test, "test"))
        for label in ("glioma", "none")
    }
    batch = find(folder(tmp_path / "monday", *files))
    assert seen(batch) == wanted
    assert any("are taken as the source's own splits: " in note for note in batch.notes)
    with zipfile.ZipFile(tmp_path / "tuesday.zip", "w") as pack:
        for file in files:
            pack.writestr(file, file)
    with find(tmp_path / "tuesday.zip") as packed:
        assert {(label, split) for _, label, split in seen(packed)} == {row[1:] for row in wanted}


def test_what_the_words_mean_is_said(tmp_path: Path) -> None:
    batch = find(folder(tmp_path / "monday", "Training/a/1.png", "dev/b/1.png", "Test/a/1.png"))
    assert batch.notes == (
        "folders are taken as the source's own splits: Test as test, Training as train, dev as validation",
    )


def test_test_images_without_labels_are_left_out_and_counted(tmp_path: Path) -> None:
    batch = find(
        folder(tmp_path / "monday", "train/cat/1.png", "train/dog/2.png", "test/3.png", "test/4.png")
    )
    assert seen(batch) == {("train/cat/1.png", "cat", "train"), ("train/dog/2.png", "dog", "train")}
    assert batch.ignored == {UNLABELLED: 2}


def test_splits_without_classes_are_doubted(tmp_path: Path) -> None:
    batch = find(folder(tmp_path / "monday", "train/images/1.png", "test/images/2.png"))
    assert batch.notes[1] == (
        "there is one class, 'images', below the splits; the images must lie in class folders"
    )


@pytest.mark.parametrize(
    ("files", "classes", "names"),
    [
        (("train/x/1.png", "test/x/2.png", "docs/3.png"), {"train", "test", "docs"}, "'test', 'train'"),
        (("train/1.png", "test/2.png"), {"train", "test"}, "'test', 'train'"),
        (("cat/train/1.png", "cat/test/2.png", "dog/3.png"), {"cat", "dog"}, "'test', 'train'"),
        (("cat/Training/1.png", "dog/training/2.png"), {"cat", "dog"}, "'Training', 'training'"),
    ],
)
def test_what_looks_like_splits_but_is_taken_for_classes_is_said(
    tmp_path: Path, files: tuple[str, ...], classes: set[str], names: str
) -> None:
    batch = find(folder(tmp_path / "monday", *files))
    assert set(batch.classes) == classes
    assert batch.notes == (f"folders called {names} are {DOUBT}",)


def test_an_empty_split_is_still_said(tmp_path: Path) -> None:
    source = folder(tmp_path / "monday", "Training/cat/1.png")
    (source / "Testing").mkdir()
    with pytest.raises(InputError, match=r"class folder 'Testing' of .* is empty"):
        find(source)


def test_a_manifest_may_use_the_same_words() -> None:
    rows = labels.read(b"path,label,split\na,x,Training\nb,x,DEV\nc,x,testing\nd,x,\n", "m.csv")
    assert [label.split for label in rows.values()] == ["train", "validation", "test", None]


def test_arrays_may_use_the_same_words(tmp_path: Path) -> None:
    pixels, numbers = np.zeros((1, 4, 4), np.uint8), np.array([0])
    np.savez(
        tmp_path / "a.npz",
        x_training=pixels,
        y_training=numbers,
        testing_images=pixels,
        testing_labels=numbers,
    )
    with find(tmp_path / "a.npz") as batch:
        assert {item.split for item in batch.items} == {"train", "test"}
