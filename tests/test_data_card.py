"""What the data card puts into MLflow: numbers by name, and pictures of rows that are in the data set."""

from collections import Counter

import numpy as np
from safetensors.numpy import load

from nightshift import storage
from nightshift.records import Drift, Duplicates, Profile
from nightshift.workflows.retrain.data_card import SHOWN_IMAGES, numbers, pictures


def test_numbers_can_be_compared_from_night_to_night(ml_dataset):
    dataset = ml_dataset.model_copy(
        update={
            "profile": Profile(images=50, classes={"a": 40, "b": 10}, histograms={}),
            "duplicates": Duplicates(merged=3, conflicting=2, near=1, near_excluded=True),
            "refused": 4,
        }
    )
    drift = Drift(of="new", against="previous", dataset="d", psi={"brightness": 0.3})
    found = {name: value for name, value, _ in numbers(dataset, [drift], Counter({"truncated": 4}))}
    assert found["images_train"] == sum(dataset.counts["train"].values())
    assert (found["images_refused"], found["refused/truncated"]) == (4, 4)
    assert (found["merged"], found["conflicting"], found["near"]) == (3, 2, 1)
    assert found["imbalance"] == 4
    assert found["drift/new/previous/brightness"] == 0.3


def test_pictures_show_each_class_without_what_is_left_out(ml_dataset):
    (train,) = [shard for shard in ml_dataset.shards if shard.split == "train"]
    labels = load(storage.read_artifact(train.file))["labels"]
    gone = tuple(int(row) for row in np.flatnonzero(labels == 0))
    dropped = train.model_copy(update={"drop": gone})
    dataset = ml_dataset.model_copy(update={"shards": (dropped,)})
    found = pictures(dataset)
    assert train.classes[0] not in found
    assert set(found) == set(train.classes[1:])
    assert all(images.shape == (SHOWN_IMAGES, 8, 8, 3) for images in found.values())
