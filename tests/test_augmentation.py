"""Random changes of training images: what each does, how far it goes, and that the seed decides it."""

import pytest
import torch

from nightshift.config import TrainSettings
from nightshift.errors import InputError
from nightshift.training.augmentation import augment, mix, shrunk, side_in

SINGLE_PROCESS = [
    {"flip": True},
    {"rotation": 20.0},
    {"jitter": 0.4},
    {"auto_augment": "randaugment"},
    {"auto_augment": "trivial"},
    {"cutout": 3},
    {"noise": 0.3},
    {"salt_pepper": 0.3},
    {"blur": 2.0},
]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def still(**changes) -> TrainSettings:
    return TrainSettings(**{"crop_padding": 0, "flip": False, "rotation": 0.0, **changes})


def noise(count: int, side: int) -> torch.Tensor:
    return torch.randint(256, (count, side, side, 3), generator=generator(), dtype=torch.uint8)


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


@pytest.mark.parametrize("changes", SINGLE_PROCESS, ids=str)
def test_each_change_keeps_shape_and_range_follows_the_seed_and_leaves_torch_s_own_state(changes):
    images = noise(32, 16)
    plain = augment(images, still(), 16, generator())
    state = torch.random.get_rng_state()
    first, again, other = (augment(images, still(**changes), 16, generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert first.shape == (32, 3, 16, 16)
    assert first.is_contiguous(memory_format=torch.channels_last)
    assert 0 <= first.min() <= first.max() <= 1
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first, plain)


def test_many_channels_are_changed_alike_but_for_lists_of_operations():
    images = torch.randint(256, (4, 8, 8, 5), generator=generator(), dtype=torch.uint8)
    for changes in SINGLE_PROCESS:
        if "auto_augment" in changes:
            with pytest.raises(InputError, match="is for images of 1 or 3 channels, got 5"):
                augment(images, still(**changes), 8, generator())
        else:
            assert augment(images, still(**changes), 8, generator()).shape == (4, 5, 8, 8)


def test_cutout_is_a_square_of_its_side_wherever_it_lies_inside():
    white = torch.full((400, 12, 12, 3), 255, dtype=torch.uint8)
    dark = (augment(white, still(cutout=3), 12, generator()) == 0).all(1)
    sizes = dark.sum((1, 2))
    assert sizes.max() == 9
    assert sizes.min() == 4  # in a corner
    assert dark.any(0).all()


def test_salt_and_pepper_are_black_and_white_and_few():
    grey = torch.full((200, 16, 16, 3), 128, dtype=torch.uint8)
    pixels = augment(grey, still(salt_pepper=0.2), 16, generator())
    share = ((pixels == 0) | (pixels == 1)).all(1).float().mean((1, 2))
    assert (pixels == 0).any()
    assert (pixels == 1).any()
    assert share.max() < 0.27
    assert share.mean() == pytest.approx(0.1, abs=0.02)


def test_jitter_stays_within_its_share():
    grey = torch.full((300, 4, 4, 3), 100, dtype=torch.uint8)
    ratio = augment(grey, still(jitter=0.3), 4, generator()) / (100 / 255)
    assert 0.69 < ratio.min() < 0.75
    assert 1.25 < ratio.max() < 1.31


def test_blur_takes_half_of_the_images():
    images = noise(400, 8)
    changed = augment(images, still(blur=1.0), 8, generator()) != images.permute(0, 3, 1, 2) / 255
    assert 150 < changed.flatten(1).any(1).sum() < 250


@pytest.mark.parametrize("changes", [{"mixup": 0.4}, {"cutmix": 1.0}, {"mixup": 0.4, "cutmix": 1.0}])
def test_mixing_blends_labels_as_it_blends_images(changes):
    """Class 0 is black and class 1 white, so the share of white must be the share of class 1."""
    labels = torch.arange(64) % 2
    pixels = labels.view(-1, 1, 1, 1).float().expand(64, 3, 8, 8).contiguous()
    mixed, shares = mix(pixels, labels, 2, still(**changes), generator(3))
    assert shares.shape == (64, 2)
    assert torch.allclose(shares.sum(1), torch.ones(64))
    assert torch.allclose(mixed.mean((1, 2, 3)), shares[:, 1], atol=1e-5)
    again, _ = mix(pixels, labels, 2, still(**changes), generator(3))
    assert torch.equal(mixed, again)


def test_without_mixing_labels_stay_numbers():
    pixels, labels = torch.rand(4, 3, 8, 8), torch.arange(4)
    assert mix(pixels, labels, 4, still(), generator()) == (pixels, labels)


def test_sides_grow_in_steps_to_the_whole_one_and_stay_there():
    settings = TrainSettings(epochs=9, progressive_resize_start=0.5)
    sides = [side_in(epoch, settings, 32) for epoch in range(1, 10)]
    assert sides[0] == 16
    assert sides == sorted(sides)
    assert all(side % 4 == 0 for side in sides)
    assert sides[6:] == [32, 32, 32]
    assert {side_in(epoch, TrainSettings(epochs=9), 30) for epoch in range(1, 10)} == {30}
    assert side_in(1, settings, 8) == 8


def test_shrunk_images_keep_their_mean_and_lose_what_is_too_fine():
    board = (torch.arange(32)[:, None] + torch.arange(32)) % 2.0
    pixels = board.expand(2, 3, 32, 32)
    small = shrunk(pixels, 16)
    assert small.shape == (2, 3, 16, 16)
    assert small.is_contiguous(memory_format=torch.channels_last)
    assert torch.allclose(small, torch.full_like(small, 0.5), atol=0.05)
    assert shrunk(pixels, 32) is pixels
