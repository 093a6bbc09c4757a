"""Shards to tensors: labels by name and cuts."""

from pathlib import Path

import numpy as np
import pytest
import torch

from nightshift import storage
from nightshift.data import dataset
from nightshift.data.dataset import Images, centre_crop, load_split, standardised, stratified
from nightshift.errors import InputError, OutageError


def test_a_split_holds_its_images_labels_and_ids(ml_dataset):
    images, labels, ids = load_split(ml_dataset, "validation")
    assert (images.dtype, tuple(images.shape)) == (torch.uint8, (24, 8, 8, 3))
    assert labels.tolist() == [index % 4 for index in range(24)]
    assert (ids.dtype, tuple(ids.shape)) == (torch.uint8, (24, 32))


def test_labels_are_mapped_by_class_name(ml_dataset):
    reordered = ml_dataset.model_copy(update={"classes": ("new", *reversed(ml_dataset.classes))})
    labels = load_split(reordered, "test").labels
    assert labels[:4].tolist() == [4, 3, 2, 1]


def test_many_images_lie_in_a_file_that_goes_with_them(ml_dataset, monkeypatch, tmp_path):
    """As many bytes as are asked for are never held in memory of the process."""
    cache = tmp_path / "cache"
    monkeypatch.setenv("NIGHTSHIFT_CACHE", str(cache))
    held = load_split(ml_dataset, "test")
    assert not cache.exists()
    monkeypatch.setattr(dataset, "IN_MEMORY", 0)
    read = load_split(ml_dataset, "test")
    mapped = f"{cache}/"
    assert mapped in Path("/proc/self/maps").read_text()
    assert list(cache.iterdir()) == []
    assert all(torch.equal(one, other) for one, other in zip(held, read, strict=True))
    batches = [batch.images.numpy() for batch in read.batches(5)]
    assert np.array_equal(np.concatenate(batches), held.images.numpy())
    del read, batches
    assert mapped not in Path("/proc/self/maps").read_text()
    assert load_split(ml_dataset, "train").images.untyped_storage().filename is None


def test_a_disk_without_room_for_the_images_is_said(ml_dataset, monkeypatch, tmp_path):
    monkeypatch.setenv("NIGHTSHIFT_CACHE", str(tmp_path / "file" / "cache"))
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(dataset, "IN_MEMORY", 0)
    with pytest.raises(OutageError, match=r"0\.0 GB of images do not fit into .*/cache .*NIGHTSHIFT_CACHE"):
        load_split(ml_dataset, "test")


def test_a_class_that_the_data_set_lacks_is_refused(ml_dataset):
    smaller = ml_dataset.model_copy(update={"classes": ml_dataset.classes[1:]})
    with pytest.raises(InputError, match="bottom-left"):
        load_split(smaller, "test")


def test_an_empty_split_is_refused(ml_dataset):
    shards = tuple(shard for shard in ml_dataset.shards if shard.split != "test")
    with pytest.raises(InputError, match="has no test images"):
        load_split(ml_dataset.model_copy(update={"shards": shards}), "test")


def test_a_damaged_shard_is_refused_with_its_address(ml_dataset):
    shard = ml_dataset.shards[0]
    broken = shard.model_copy(update={"file": storage.write(shard.file.uri, b"not safetensors")})
    with pytest.raises(InputError, match=r"train\.safetensors is not safetensors"):
        load_split(ml_dataset.model_copy(update={"shards": (broken,)}), "train")


def test_larger_stored_images_are_cut_to_the_centre_except_for_training(ml_build):
    dataset = ml_build(side=8, stored=12)
    stored = load_split(dataset, "train").images
    assert stored.shape[1:] == (12, 12, 3)
    assert load_split(dataset, "test").images.shape[1:] == (8, 8, 3)
    assert torch.equal(centre_crop(stored, 8), stored[:, 2:10, 2:10])


def test_standardised_pixels_use_the_data_set_s_statistics(ml_dataset):
    dataset = ml_dataset.model_copy(update={"mean": (0.5, 0.25, 0.0), "std": (0.5, 0.25, 0.0)})
    pixels = standardised(torch.full((1, 3, 2, 2), 0.5), dataset)
    assert pixels[0, :, 0, 0].tolist() == pytest.approx(
        [0.0, 1.0, 500.0]
    )  # a constant channel is not divided by zero


def test_stratified_choice_gives_rare_classes_their_share_and_follows_the_seed():
    labels = torch.tensor([0] * 90 + [1] * 8 + [2] * 2)
    chosen = stratified(labels, 30, seed=1)
    assert torch.bincount(labels[chosen]).tolist() == [20, 8, 2]
    assert torch.equal(chosen, stratified(labels, 30, seed=1))
    assert not torch.equal(chosen, stratified(labels, 30, seed=2))
    assert len(stratified(labels, 500, seed=1)) == 100


def test_shares_of_a_split_are_all_of_it_once(ml_dataset):
    shard = next(shard for shard in ml_dataset.shards if shard.split == "train")
    dropped = shard.model_copy(update={"drop": (0, 5, 79)})
    dataset = ml_dataset.model_copy(update={"shards": (dropped, shard)})
    whole = load_split(dataset, "train")
    assert len(whole.labels) == 77 + 80
    for world in (1, 2, 3):
        parts = [load_split(dataset, "train", rank, world) for rank in range(world)]
        together = Images.joined(parts)
        ours, theirs = (np.lexsort(each.ids.numpy().T) for each in (together, whole))
        for name in ("images", "labels", "ids"):
            assert torch.equal(getattr(together, name)[ours], getattr(whole, name)[theirs])
        assert max(len(part.labels) for part in parts) - min(len(part.labels) for part in parts) <= 1
