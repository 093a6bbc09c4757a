"""Shards to tensors: labels by name, cuts, and augmentation that a seed decides."""

import pytest
import torch

from tasks import storage
from tasks.config import TrainSettings
from tasks.dataset import augment, centre_crop, load_split, standardised, stratified
from tasks.errors import InputError


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def still(**changes) -> TrainSettings:
    return TrainSettings(**{"crop_padding": 0, "flip": False, "rotation": 0.0, **changes})


def noise(count: int, side: int) -> torch.Tensor:
    return torch.randint(256, (count, side, side, 3), generator=generator(), dtype=torch.uint8)


def test_a_split_holds_its_images_labels_and_ids(ml_dataset):
    images, labels, ids = load_split(ml_dataset, "validation")
    assert (images.dtype, tuple(images.shape)) == (torch.uint8, (24, 8, 8, 3))
    assert labels.tolist() == [index % 4 for index in range(24)]
    assert (ids.dtype, tuple(ids.shape)) == (torch.uint8, (24, 32))


def test_labels_are_mapped_by_class_name(ml_dataset):
    reordered = ml_dataset.model_copy(update={"classes": ("new", *reversed(ml_dataset.classes))})
    labels = load_split(reordered, "test").labels
    assert labels[:4].tolist() == [4, 3, 2, 1]


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
    assert augment(stored, still(), 8, generator()).shape == (80, 3, 8, 8)


def test_nothing_to_change_changes_nothing():
    images = noise(3, 8)
    assert torch.equal(augment(images, still(), 8, generator()), images.permute(0, 3, 1, 2) / 255)


def test_a_shift_moves_by_at_most_the_padding_and_fills_with_black():
    images = torch.zeros((200, 9, 9, 3), dtype=torch.uint8)
    images[:, 4, 4] = 255
    shifted = augment(images, still(crop_padding=2), 9, generator())
    _, _, row, column = shifted.nonzero().T
    assert len(row) == 200 * 3
    assert set(row.tolist()) == set(column.tolist()) == {2, 3, 4, 5, 6}
    corner = augment(torch.full_like(images, 255), still(crop_padding=2), 9, generator())
    assert corner.min() == 0


def test_a_random_cut_is_a_window_of_the_stored_image():
    images = torch.arange(144, dtype=torch.uint8).view(1, 12, 12, 1).expand(50, 12, 12, 3)
    cut = (augment(images, still(), 8, generator())[:, 0] * 255).round()
    steps = torch.arange(8)[:, None] * 12 + torch.arange(8)
    assert torch.equal(cut - cut[:, :1, :1], steps.expand(50, 8, 8).float())
    assert len(cut[:, 0, 0].unique()) > 10


def test_flip_mirrors_about_half_of_the_images_left_to_right():
    images = noise(400, 8)
    flipped = augment(images, still(flip=True), 8, generator())
    plain = images.permute(0, 3, 1, 2) / 255
    mirrored = [torch.equal(a, b.flip(2)) for a, b in zip(flipped, plain, strict=True)]
    kept = [torch.equal(a, b) for a, b in zip(flipped, plain, strict=True)]
    assert 150 < sum(mirrored) < 250
    assert sum(mirrored) + sum(kept) == 400


def test_rotation_stays_within_its_degrees():
    images = torch.zeros((100, 17, 17, 3), dtype=torch.uint8)
    images[:, 8, 14] = 255  # six pixels to the right of the centre: 30 degrees are 3 rows
    turned = augment(images, still(rotation=30), 17, generator())
    row = turned.sum((1, 3)).argmax(1)
    assert row.min() < 7
    assert row.max() > 9
    assert 5 <= row.min() <= row.max() <= 11


def test_the_seed_decides_the_augmentation():
    settings = still(flip=True, crop_padding=2, rotation=15)
    first, again = (augment(noise(8, 8), settings, 8, generator(5)) for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, augment(noise(8, 8), settings, 8, generator(6)))


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
