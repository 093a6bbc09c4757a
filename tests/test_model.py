"""Networks by settings, and weights that survive the way through the store."""

import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from nightshift.config import TrainSettings
from nightshift.errors import InputError
from nightshift.models import build as model


def build(image_size: int = 8, classes: int = 4, seed: int = 0, **settings) -> nn.Module:
    return model.build(TrainSettings(**settings), classes=classes, image_size=image_size, seed=seed).eval()


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_every_depth_gives_logits_for_the_class_count(name):
    network = build(model=name, width=0.125, classes=7)
    assert network(torch.zeros(2, 3, 8, 8)).shape == (2, 7)


def test_at_full_width_it_is_torchvision_s_network():
    from torchvision.models import resnet18

    ours = build(stem="imagenet", classes=1000).state_dict()
    theirs = resnet18().state_dict()
    assert {name: value.shape for name, value in ours.items()} == {n: v.shape for n, v in theirs.items()}


def test_width_scales_channels_in_eights():
    network = build(width=0.25)
    assert network.fc.in_features == 128
    assert build(width=0.125).fc.in_features == 64
    assert build(width=0.3).conv1.out_channels == 16
    assert parameters(network) < parameters(build(width=0.5)) / 3


def test_auto_stem_keeps_small_images_large():
    assert build(image_size=64, width=0.125).conv1.stride == (1, 1)
    assert build(image_size=96, width=0.125).conv1.stride == (2, 2)
    assert build(image_size=96, width=0.125, stem="small").conv1.stride == (1, 1)


def test_the_seed_decides_the_weights_and_leaves_the_global_state_alone():
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    first, again, other = (model.to_bytes(build(width=0.125, seed=seed)) for seed in (3, 3, 4))
    assert first == again != other
    assert torch.equal(torch.rand(1), expected)


def test_weights_come_back_from_safetensors():
    settings = TrainSettings(width=0.125)
    network = build(width=0.125, seed=5)
    again = model.restore(model.to_bytes(network), settings, classes=4, image_size=8)
    pixels = torch.rand(2, 3, 8, 8)
    assert torch.equal(network(pixels), again(pixels))
    assert not again.training


def test_weights_of_another_network_are_refused():
    data = model.to_bytes(build(width=0.125), {"classes": ["a", "b"]})
    with pytest.raises(InputError, match=r"does not hold a resnet18 of width 0\.25 for 4 classes"):
        model.restore(data, TrainSettings(width=0.25), classes=4, image_size=8)
    with pytest.raises(InputError, match="does not hold"):
        model.restore(b"junk", TrainSettings(width=0.125), classes=4, image_size=8)


def test_the_thinnest_network_trains_on_64_pixels_without_a_crash():
    """In a process of its own: with 8 channels torch corrupts its memory there."""
    code = """
import torch
from nightshift.config import TrainSettings
from nightshift.models.build import build
torch.set_num_threads(1)
network = build(TrainSettings(width=0.125), classes=2, image_size=64).train()
for _ in range(3):
    pixels = torch.randn(128, 3, 64, 64).to(memory_format=torch.channels_last)
    network(pixels).sum().backward()
"""
    environment = {**os.environ, "MALLOC_CHECK_": "3"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
