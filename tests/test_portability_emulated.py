"""An integer file gives the same labels on an x86 processor without VNNI, which qemu-user emulates."""

import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from waiting import patience

from nightshift import storage
from nightshift.config.quantization import RECIPES
from nightshift.data.dataset import load_split

pytestmark = [
    pytest.mark.skipif(
        shutil.which("qemu-x86_64") is None, reason="qemu-user is not installed: apt install qemu-user"
    ),
    pytest.mark.skipif(platform.machine() != "x86_64", reason="this Python is not one for x86"),
]
GUEST = Path(__file__).parent / "bench" / "labels_on.py"
HASWELL = ("qemu-x86_64", "-cpu", "Haswell")  # AVX2, which adds pairs of products in 16 bits
INTEGER = [recipe for recipe in RECIPES if recipe not in ("fp32", "fp16")]
CHANNELS = 16
SECONDS = 30  # of one process, which takes about five


def answers(
    folder: Path, model: bytes, images: NDArray[np.uint8], runtime: str, processor: tuple[str, ...] = ()
) -> tuple[NDArray[np.int64], list[str]]:
    """Labels int64 [N], and the instructions that the process saw."""
    file, pixels, out = folder / "model.onnx", folder / "images.npy", folder / "labels.npy"
    file.write_bytes(model)
    np.save(pixels, images)
    out.unlink(missing_ok=True)
    words = [*processor, sys.executable, str(GUEST), str(file), str(pixels), str(out), runtime]
    caps = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"), "1")
    environment = {**os.environ, **caps}
    done = subprocess.run(
        words, env=environment, capture_output=True, text=True, check=False, timeout=patience(SECONDS)
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return np.load(out)["label"], json.loads(done.stdout.splitlines()[-1])


def saturating() -> bytes:
    """A convolution whose exact label for white images is 0, and 1 where sums of two products stop at 32,767.

    With n pairs of bytes, class 0 sums to 2 x 255 x 127 x n = 64,770n, or to 32,767n where it saturates.
    Class 1 has no weights and a bias of 48,000n, in between.
    """
    weights = np.zeros((2, CHANNELS, 3, 3), np.int8)
    weights[0] = 127
    pairs = weights[0].size // 2
    constants = {
        "step": np.float32(1 / 255),
        "weights": weights,
        "weight_step": np.float32(1),
        "bias": np.array([0, 48_000 * pairs], np.int32),
        "bias_step": np.float32(1 / 255),
        "sum_step": np.float32(64_770 * pairs / 255 / 255),
        "zero": np.uint8(0),
        "weight_zero": np.int8(0),
        "bias_zero": np.int32(0),
    }
    nodes = [
        helper.make_node("Transpose", ["images"], ["pixels"], perm=[0, 3, 1, 2]),
        helper.make_node("DequantizeLinear", ["pixels", "step", "zero"], ["x"]),
        helper.make_node("DequantizeLinear", ["weights", "weight_step", "weight_zero"], ["w"]),
        helper.make_node("DequantizeLinear", ["bias", "bias_step", "bias_zero"], ["b"]),
        helper.make_node("Conv", ["x", "w", "b"], ["sum"]),
        helper.make_node("QuantizeLinear", ["sum", "sum_step", "zero"], ["rounded"]),
        helper.make_node("DequantizeLinear", ["rounded", "sum_step", "zero"], ["y"]),
        helper.make_node("Flatten", ["y"], ["flat"]),
        helper.make_node("Softmax", ["flat"], ["probabilities"]),
        helper.make_node("ArgMax", ["flat"], ["label"], axis=1, keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "saturating",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", 3, 3, CHANNELS])],
        [
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", 2]),
            helper.make_tensor_value_info("label", TensorProto.INT64, ["N"]),
        ],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def test_the_emulated_processor_stops_sums_of_two_products_at_16_bits(tmp_path: Path) -> None:
    """Otherwise the tests below would show nothing."""
    white = np.full((4, 3, 3, CHANNELS), 255, np.uint8)
    exact, _ = answers(tmp_path, saturating(), white, "exact")
    emulated, instructions = answers(tmp_path, saturating(), white, "onnxruntime", HASWELL)
    assert instructions == ["AVX2"]
    assert exact.tolist() == [0] * 4
    assert emulated.tolist() == [1] * 4


@pytest.mark.parametrize("recipe", INTEGER)
def test_labels_are_those_of_exact_arithmetic_without_vnni(
    tmp_path: Path, ml_night, ml_every, recipe: str
) -> None:
    """With 8-bit weights 2 % of the labels of images and 12 % of those of noise are others."""
    model = storage.read_artifact(ml_every[recipe].model)
    own = load_split(ml_night.dataset, "test").images.numpy()
    noise = np.random.default_rng(0).integers(0, 256, (200, *own.shape[1:]), dtype=np.uint8)
    exact, _ = answers(tmp_path, model, np.concatenate([own, noise]), "exact")
    emulated, _ = answers(tmp_path, model, np.concatenate([own, noise]), "onnxruntime", HASWELL)
    same = emulated == exact
    assert same[: len(own)].all()
    assert same[len(own) :].mean() >= 0.98  # one step of rounding may decide between two classes
