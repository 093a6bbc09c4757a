"""A rounding network computes what its int8 file will."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.fx.experimental.optimization import fuse

from nightshift import storage
from nightshift.config import QuantizeSettings
from nightshift.data.dataset import load_split, scaled, standardised
from nightshift.inference.pair_sums import ACTIVATION, largest_pair
from nightshift.inference.portability import PAIR_LIMIT
from nightshift.inference.runtime import EXACT, Session
from nightshift.models.build import restore
from nightshift.quantization import onnx_export, recipes
from nightshift.quantization.calibration import calibration_images
from nightshift.quantization.fake_quant import (
    FakeQuantActivation,
    FakeQuantWeight,
    insert_fake_quant,
    remove_fake_quant,
    weight_scales,
)
from nightshift.quantization.recipes import int8


@pytest.fixture
def folded(ml_night) -> nn.Module:
    data = storage.read_artifact(ml_night.checkpoint.weights)
    return fuse(restore(data, ml_night.checkpoint.settings, classes=4, image_size=8))


def pixels_of(images, dataset) -> torch.Tensor:
    return standardised(scaled(images), dataset)


def test_weights_have_255_values_per_channel():
    weight = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    rounded = FakeQuantWeight(portable=False)(weight)
    for channel, before in zip(rounded, weight, strict=True):
        step = before.abs().max() / 127
        levels = channel / step
        assert torch.allclose(levels, levels.round(), atol=1e-3)
        assert (channel - before).abs().max() <= step / 2 + 1e-6
        assert len(levels.round().unique()) > 100


@pytest.mark.parametrize("shape", [(4, 3, 64, 64), (8, 2, 1, 1), (5, 1, 1, 1), (3, 40)])
@pytest.mark.parametrize("seed", range(20))
def test_no_two_portable_weights_can_leave_16_bits(shape, seed):
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    scales = weight_scales(weight, portable=True).view(-1, *[1] * (len(shape) - 1))
    integers = (weight / scales).round()
    assert integers.abs().max() <= 127
    assert ACTIVATION * largest_pair(integers.to(torch.int8).numpy()) <= PAIR_LIMIT


def test_a_lone_large_weight_keeps_its_bits():
    """The bound is on two weights of one sign, so that one may be large where the others are small."""
    lone, equal, opposite = (
        torch.tensor([row]) for row in ([1.0, 0.005, -0.9], [1.0, 1.0, 0.0], [1.0, -1.0, 0.0])
    )
    assert weight_scales(lone, portable=True).item() == pytest.approx(1 / 127)
    assert weight_scales(equal, portable=True).item() == pytest.approx(1 / 64)
    assert weight_scales(opposite, portable=True).item() == pytest.approx(1 / 127)


def test_two_weights_that_end_in_a_half_are_not_both_rounded_up():
    """Without a little room, 4 of a million pairs of float32 end as 65 and 64."""
    rows = torch.rand(1_000_000, 2, generator=torch.Generator().manual_seed(1)) * 0.2 + 0.9
    integers = (rows / weight_scales(rows, portable=True)[:, None]).round()
    assert integers.sum(1).max() == 128


def test_weights_of_zero_have_a_step_all_the_same():
    assert weight_scales(torch.zeros(2, 3), portable=True).gt(0).all()


def test_gradients_pass_as_if_nothing_were_rounded():
    weight = torch.randn(2, 3, 4, 4, requires_grad=True)
    FakeQuantWeight(portable=True)(weight).sum().backward()
    assert torch.equal(weight.grad, torch.ones_like(weight))


def test_activations_have_256_steps_between_the_extremes_that_were_seen():
    rounded = FakeQuantActivation()
    seen = torch.linspace(-1, 3, 1000)
    assert torch.equal(rounded(seen), seen)  # while it measures
    rounded.measures = False
    values = rounded(torch.linspace(-2, 4, 5000))
    assert len(values.unique()) == 256
    assert values.min() == pytest.approx(-1, abs=0.01)
    assert values.max() == pytest.approx(3, abs=0.01)


class Shallow(nn.Module):
    """One of each thing that is rounded: in deep networks last digits that differ grow to whole steps."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.branch = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
        self.head = nn.Linear(16 * 8 * 8, 4)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        stem = self.stem(pixels).relu()
        return self.head((stem + self.branch(stem)).relu().flatten(1))


@pytest.mark.parametrize(("seed", "portable"), [(0, True), (1, True), (2, True), (0, False)])
def test_it_answers_as_the_int8_file_does(ml_night, seed, portable):
    torch.manual_seed(seed)
    network = Shallow().eval()
    dataset, test = ml_night.dataset, load_split(ml_night.dataset, "test").images
    settings = QuantizeSettings(calibration_images=32, portable=portable)
    calibration = calibration_images(dataset, 32, ml_night.checkpoint.settings.seed).images
    with torch.no_grad():
        plain = network(pixels_of(test, dataset)).softmax(1).numpy()
        copy = insert_fake_quant(network, [pixels_of(calibration, dataset)], portable=portable)
        rounded = copy(pixels_of(test, dataset)).softmax(1).numpy()
    remove_fake_quant(network)
    trained = recipes.Trained(network, dataset, ml_night.checkpoint.settings, "")
    graph, _ = int8.make(trained, settings)
    file, _ = Session(onnx_export.finish(graph, dataset, "int8"), EXACT).predict(test.numpy())
    assert np.abs(rounded - file).mean() < 0.2 * np.abs(plain - file).mean()


def test_layers_are_shared_and_come_back_as_they_were(ml_night, folded):
    before = {name: tensor.clone() for name, tensor in folded.state_dict().items()}
    images = load_split(ml_night.dataset, "test").images
    network = insert_fake_quant(folded, [pixels_of(images, ml_night.dataset)], portable=True)
    layer = next(module for module in network.modules() if isinstance(module, nn.Conv2d))
    assert not torch.equal(layer.weight, before["conv1.weight"])
    with torch.no_grad():
        layer.parametrizations.weight.original.add_(1)
    remove_fake_quant(folded)
    after = folded.state_dict()
    assert after.keys() == before.keys()
    assert torch.equal(after["conv1.weight"], before["conv1.weight"] + 1)
    assert torch.equal(after["layer1.0.conv1.weight"], before["layer1.0.conv1.weight"])
