"""Device, precision and memory are found; what is found is what is computed with."""

import pytest
import torch
from torch import nn

from nightshift.config import TrainSettings
from nightshift.errors import InputError
from nightshift.models import device
from nightshift.models.device import Precision

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("features", "gain", "expected"),
    [
        ({"amx_bf16": True}, 0.5, torch.bfloat16),
        ({"avx512_bf16": True}, 1.7, torch.bfloat16),
        ({"avx512_bf16": True}, 1.1, torch.float32),
        ({}, 9.0, torch.float32),
    ],
)
def test_bf16_is_used_with_tiles_or_where_a_try_is_faster(monkeypatch, features, gain, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: features)
    monkeypatch.setattr(device, "_gain", lambda: gain)
    precision = Precision(CPU)
    assert precision.dtype == expected
    measured = f"{gain:.1f} times" in precision.reason
    assert measured == (features == {"avx512_bf16": True})
    assert "emulated" in precision.reason or features


def test_the_precision_that_is_asked_for_is_taken_whatever_is_fastest(monkeypatch):
    monkeypatch.setattr(device, "_fastest", lambda _: (torch.bfloat16, ""))
    monkeypatch.setenv("NIGHTSHIFT_PRECISION", "float32")
    assert (Precision(CPU).dtype, Precision(CPU).name) == (torch.float32, "float32")
    assert Precision(CPU, torch.float16).dtype == torch.float16
    monkeypatch.setenv("NIGHTSHIFT_PRECISION", "double")
    with pytest.raises(InputError, match="must be one of float32, bfloat16, float16, got 'double'"):
        Precision(CPU)


def test_the_try_leaves_threads_and_random_numbers_alone():
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    device._gain.cache_clear()
    assert 0.05 < device._gain() < 20
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_every_precision_takes_the_same_step(dtype):
    torch.manual_seed(0)
    layer, pixels = nn.Linear(8, 1), torch.rand(4, 8)
    before = layer.weight.detach().clone()
    optimizer, precision = torch.optim.SGD(layer.parameters(), lr=10), Precision(CPU, dtype)
    with precision.autocast():
        result = layer(pixels)
    assert result.dtype == dtype
    precision.backward(result.float().sum() / 100)  # scaled, it still fits float16
    precision.unscale([optimizer])
    precision.step([optimizer])
    assert torch.allclose(before - layer.weight, 0.1 * pixels.sum(0), rtol=0.02)


def test_float16_leaves_out_a_step_that_overflows_and_remembers_its_scale():
    layer, precision = nn.Linear(2, 1), Precision(CPU, torch.float16)
    before = layer.weight.detach().clone()
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    precision.backward(layer(torch.tensor([[1e38, 1.0]])).sum() * 1e30)
    precision.step([optimizer])
    assert torch.equal(layer.weight, before)
    again = Precision(CPU, torch.float32)
    again.restore(precision.state())
    assert (again.dtype, again.state()) == (torch.float16, precision.state())
    assert again.state()["scaler"]["scale"] < Precision(CPU, torch.float16).state()["scaler"]["scale"]


def test_a_batch_goes_through_in_as_many_pieces_as_memory_asks_for(monkeypatch):
    network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
    pixels = torch.rand(2, 3, 16, 16)
    buffers = [buffer.clone() for buffer in network.buffers()]
    monkeypatch.setattr(device, "free_memory", lambda _: 2**40)
    assert device.micro_batch_count(network, pixels, 64) == 1
    monkeypatch.setattr(device, "free_memory", lambda _: 2**20)
    needed = device.micro_batch_count(network, pixels, 64)
    assert 2 <= needed <= 16
    assert device.micro_batch_count(network, pixels, 640) == pytest.approx(10 * needed, rel=0.3)
    assert all(torch.equal(*pair) for pair in zip(buffers, network.buffers(), strict=True))


def test_free_memory_is_that_of_the_container(monkeypatch, tmp_path):
    whole = device.free_memory(CPU)
    assert whole > 2**20
    monkeypatch.setattr(device, "CGROUP", tmp_path)
    (tmp_path / "memory.max").write_text("1000000\n")
    (tmp_path / "memory.current").write_text("400000\n")
    assert device.free_memory(CPU) == 600_000
    (tmp_path / "memory.max").write_text("max\n")
    assert device.free_memory(CPU) > 2**20
    monkeypatch.setenv("NIGHTSHIFT_RESIDENT_MB", "3")
    assert device.room(CPU) == 3 * 2**20


def test_a_compiled_network_gives_the_same_and_none_is_compiled_without_a_compiler(monkeypatch, capsys):
    network = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU())
    settings = TrainSettings(compile="yes")
    assert device.compiled(network, TrainSettings(), CPU, 10**6) is network
    made = device.compiled(network, settings, CPU, 1)
    assert made is not network
    pixels = torch.rand(2, 3, 8, 8)
    assert torch.allclose(made(pixels), network(pixels), atol=1e-5)
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert device.compiled(network, settings, CPU, 1) is network
    assert "no C++ compiler" in capsys.readouterr().out


def test_running_out_of_memory_is_told_from_other_errors():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60)
    assert device.out_of_memory(caught.value)
    assert not device.out_of_memory(RuntimeError("shapes differ"))
