"""Where a network looked: on images whose class is one bright quadrant, at that quadrant."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nightshift.data.dataset import load_split
from nightshift.evaluation.metrics import activation_maps
from nightshift.models import ensemble


@pytest.fixture
def test_images(ml_night):
    test = load_split(ml_night.dataset, "test")
    return test.images.numpy(), test.labels.numpy()


@pytest.mark.parametrize("flip_tta", [False, True])
def test_maps_have_the_size_of_the_images_and_reach_one(ml_night, test_images, flip_tta):
    network = ensemble.restore((ml_night.checkpoint,), ml_night.dataset, None, flip_tta=flip_tta)
    heat = activation_maps.maps(network, test_images[0], ml_night.dataset)
    assert (heat.shape, heat.dtype) == ((24, 8, 8), np.float32)
    assert heat.min() >= 0
    assert np.allclose(heat.max((1, 2)), 1)


class Brightness(nn.Module):
    """Its one feature is how bright a place is, and speaks for the second class."""

    def __init__(self) -> None:
        super().__init__()
        self.layer1 = nn.Conv2d(3, 1, 1, bias=False)
        nn.init.ones_(self.layer1.weight)
        self.fc = nn.Linear(1, 2, bias=False)
        self.fc.weight.data = torch.tensor([[-1.0], [1.0]])

    def forward(self, pixels: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.layer1(pixels).mean((2, 3)))
        return logits


def test_the_map_is_where_the_answer_comes_from(ml_night):
    images = np.zeros((2, 8, 8, 3), np.uint8)
    images[:, 4:] = 220  # bright enough on average for the second class
    images[0, 1:3, 5:7] = images[1, 6, 0] = 255
    heat = activation_maps.maps(Brightness(), images, ml_night.dataset)
    assert np.unravel_index(heat[0].argmax(), (8, 8)) == (1, 5)
    assert np.unravel_index(heat[1].argmax(), (8, 8)) == (6, 0)
    assert np.all(heat[:, :3, :4] == 0)  # what is darker than the mean speaks against it


def test_a_vote_looks_with_all_members(ml_ensemble, test_images):
    members = [ensemble.restore((member,), ml_ensemble.dataset, None) for member in ml_ensemble.members]
    voted = ensemble.restore(ml_ensemble.members, ml_ensemble.dataset, "soft")
    heat = activation_maps.maps(voted, test_images[0], ml_ensemble.dataset)
    alone = activation_maps.maps(members[0], test_images[0], ml_ensemble.dataset)
    assert heat.shape == alone.shape
    assert not np.allclose(heat, alone)


def test_the_network_is_not_changed_and_keeps_no_hook(ml_night, test_images):
    network = ensemble.restore((ml_night.checkpoint,), ml_night.dataset, None)
    first = activation_maps.maps(network, test_images[0], ml_night.dataset)
    again = activation_maps.maps(network, test_images[0], ml_night.dataset)
    assert np.array_equal(first, again)
    assert all(parameter.grad is None for parameter in network.parameters())


def test_overlays_are_colours_over_a_grey_picture():
    images = np.full((1, 2, 2, 3), 100, np.uint8)
    drawn = activation_maps.overlay(images, np.array([[[0, 1], [0, 0.5]]], np.float32))
    assert (drawn.shape, drawn.dtype) == ((1, 2, 2, 3), np.uint8)
    low, high = drawn[0, 0, 0].astype(int), drawn[0, 0, 1].astype(int)
    assert high[0] > low[0]  # yellow has red, dark blue has none
    assert low[2] > low[0]
    assert (
        activation_maps.overlay(np.zeros((1, 2, 2, 5), np.uint8), np.zeros((1, 2, 2), np.float32)).shape[3]
        == 3
    )
