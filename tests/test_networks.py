"""Every network by name: its paper's size, one setting for each of deeper, thinner and wider, and ONNX."""

from typing import get_args

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from nightshift.config import TrainSettings
from nightshift.config.model import THREE_STAGES, Model
from nightshift.models import build as building
from nightshift.models import layers, resnet, resnet_cifar
from nightshift.models.layers import Shape

PLAIN = Shape(
    channels=3,
    classes=10,
    width=1,
    depth=1,
    small_stem=True,
    stem_kernel=3,
    pooling="average",
    dropout=0,
)
SMALL = ["resnet18", "resnet20", "resnet9", "resnet50", "resnext50_32x4d"]


def build(name: str, image_size: int = 8, channels: int = 3, **settings) -> nn.Module:
    return building.build(
        TrainSettings(model=name, **settings), classes=4, image_size=image_size, channels=channels
    )


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_every_name_of_the_settings_is_a_network():
    assert set(get_args(Model)) == set(building.FAMILIES)


def test_the_settings_know_which_have_three_stages():
    with torch.device("meta"):
        made = {name: building.make(name, PLAIN) for name in get_args(Model)}
    assert {name for name, network in made.items() if not hasattr(network, "layer4")} == set(THREE_STAGES)


@pytest.mark.parametrize("name", get_args(Model))
def test_each_gives_logits_and_learns(name):
    network = build(name, width=0.25, depth=0.25)
    logits = network(torch.randn(2, 3, 8, 8))
    assert logits.shape == (2, 4)
    logits.sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


@pytest.mark.parametrize("name", resnet.NAMES)
def test_at_full_size_they_are_torchvision_s(name):
    import torchvision

    with torch.device("meta"):
        theirs = torchvision.models.get_model(name).state_dict()
        shape = Shape(3, 1000, 1, 1, small_stem=False, stem_kernel=7, pooling="average", dropout=0)
        ours = building.make(name, shape).state_dict()
    assert {key: value.shape for key, value in ours.items()} == {k: v.shape for k, v in theirs.items()}


@pytest.mark.parametrize(
    ("name", "millions"),
    [("resnet20", 0.27), ("resnet32", 0.46), ("resnet44", 0.66), ("resnet56", 0.85), ("resnet110", 1.7)],
)
def test_the_thin_ones_have_the_paper_s_parameters(name, millions):
    """He et al., CVPR 2016, table 6."""
    assert parameters(building.make(name, PLAIN)) / 1e6 == pytest.approx(millions, rel=0.03)


def test_their_shortcuts_keep_what_comes_in():
    block = resnet_cifar.Block(16, 32, 2).eval()
    nn.init.zeros_(block.bn2.weight)
    features = torch.rand(1, 16, 8, 8)
    result = block(features)
    assert torch.equal(result[:, 8:24], features[:, :, ::2, ::2])
    assert not result[:, :8].any()
    assert not result[:, 24:].any()


@pytest.mark.parametrize("name", SMALL)
def test_one_setting_makes_it_wider_deeper_thinner_shallower(name):
    usual = parameters(build(name, width=0.5))
    assert parameters(build(name, width=1.0)) > 1.5 * usual
    assert parameters(build(name, width=0.25)) < usual
    assert parameters(build(name, width=0.5, depth=2)) > 1.2 * usual
    shallow = parameters(build(name, width=0.5, depth=0.5))
    assert shallow < usual or name == "resnet9"  # which has one residual block in a stage


@pytest.mark.parametrize("name", SMALL)
def test_stem_pooling_dropout_and_channels_are_settings(name):
    first = next(module for module in build(name, stem_kernel=5).modules() if isinstance(module, nn.Conv2d))
    assert first.kernel_size == (5, 5)
    assert first.stride == (1, 1)
    large = build(name, image_size=128, channels=5, width=0.25)
    first = next(module for module in large.modules() if isinstance(module, nn.Conv2d))
    assert (first.in_channels, first.kernel_size) == (5, (7, 7))
    assert first.stride > (1, 1)
    assert large(torch.zeros(2, 5, 128, 128)).shape == (2, 4)
    pixels = torch.rand(2, 3, 32, 32)
    found = {kind: build(name, pooling=kind, width=0.25).eval()(pixels) for kind in ("average", "max", "gem")}
    assert not torch.allclose(found["average"], found["max"])
    assert not torch.allclose(found["average"], found["gem"])
    dropped = build(name, dropout=0.5, width=0.25)
    assert torch.equal(dropped.eval()(pixels), dropped(pixels))
    last = []
    dropped.fc.register_forward_hook(lambda module, given, result: last.append(given[0]))
    dropped.train()(pixels)
    assert 0.2 < (last[0] == 0).float().mean() < 0.95


def test_a_generalised_mean_lies_between_the_mean_and_the_largest():
    features = torch.rand(2, 5, 4, 4)
    pool = layers.GeneralizedMean()
    found = pool(features)[..., 0, 0]
    assert (features.mean((2, 3)) < found).all()
    assert (found < features.amax((2, 3))).all()
    nn.init.ones_(pool.exponent)
    assert torch.allclose(pool(features)[..., 0, 0], features.mean((2, 3)), atol=1e-5)


def test_the_cost_is_counted():
    assert building.cost(building.make("resnet20", PLAIN), 32, 3) == (
        parameters(building.make("resnet20", PLAIN)),
        pytest.approx(40.6e6, rel=0.02),  # by hand: the stem's 0.44, three stages of about 13.4 million each
    )
    shape = Shape(3, 1000, 1, 1, small_stem=False, stem_kernel=7, pooling="average", dropout=0)
    assert building.cost(building.make("resnet18", shape), 224, 3)[1] == pytest.approx(1.81e9, rel=0.01)


@pytest.mark.parametrize("settings", [{"pooling": "gem"}, {"pooling": "max", "dropout": 0.3}])
@pytest.mark.parametrize("name", ["resnet18", "resnet20", "resnet9"])
def test_each_is_the_same_in_onnx(name, settings):
    network = build(name, width=0.25, **settings).eval()
    pixels = torch.rand(3, 3, 8, 8)
    program = torch.onnx.export(network, (pixels,), dynamo=True, input_names=["pixels"])
    data = program.model_proto.SerializeToString()
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"pixels": pixels.numpy()})
    assert np.allclose(found, network(pixels).detach().numpy(), atol=1e-4)
