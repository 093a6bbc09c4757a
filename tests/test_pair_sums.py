"""Which int8 files give the same labels on every processor, shown by NumPy in place of the processor."""

from collections.abc import Iterator

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch.nn import functional

from nightshift import storage
from nightshift.data.dataset import load_split
from nightshift.hardware import processor
from nightshift.inference import model_file
from nightshift.inference.onnx_stats import LAYERS, Graph
from nightshift.inference.pair_sums import integer_weights, is_portable, largest_pair, output_axis, pair_sums
from nightshift.inference.portability import PAIR_LIMIT, PAIR_SUM
from nightshift.inference.runtime import EXACT
from nightshift.quantization import onnx_export
from nightshift.quantize import quantize
from nightshift.records.specs import QuantizeSpec

INTEGERS = ("int8", "int8-accuracy", "int8-qat", "binary")


def saturating(activations: NDArray[np.uint8], weights: NDArray[np.int8]) -> NDArray[np.int32]:
    """Products of uint8 [n,k] and int8 [O,k], added as vpmaddubsw and vpmaddwd do: pairs in 16 bits."""
    odd = activations.shape[1] % 2
    left = np.pad(activations, ((0, 0), (0, odd))).astype(np.int32)
    right = np.pad(weights, ((0, 0), (0, odd))).astype(np.int32)
    products = left[:, None, :] * right[None]
    pairs = products.reshape(*products.shape[:2], -1, 2).sum(3)
    return np.asarray(pairs.clip(-(2**15), 2**15 - 1).sum(2), np.int32)


def exact(activations: NDArray[np.uint8], weights: NDArray[np.int8]) -> NDArray[np.int32]:
    return np.asarray(activations.astype(np.int32) @ weights.astype(np.int32).T, np.int32)


def worst(weights: NDArray[np.int8]) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.int8]]]:
    """The brightest activations for each channel, and its weights in the order that is worst for it."""
    for row in weights.reshape(len(weights), -1):
        for sign in (1, -1):
            ordered = np.sort(sign * row.astype(np.int16))[::-1] * sign
            yield np.full((1, len(row)), 255, np.uint8), ordered.astype(np.int8)[None]


def saturates(model: bytes) -> bool:
    """Whether some kernel, by some choice of pairs, computes another sum for some activations."""
    layers = integer_weights(onnx.load_model_from_string(model))
    return any(
        not np.array_equal(saturating(*given), exact(*given))
        for weights in layers.values()
        for given in worst(weights)
    )


@pytest.fixture
def eight_bits(ml_night) -> bytes:
    """The file of `int8` with all 8 bits, as fleets have it that add products in 32 bits."""
    settings = ml_night.plan.pipeline.quantize.model_copy(update={"portable": False, "vote": "none"})
    made = quantize(QuantizeSpec(recipe="int8", checkpoints=(ml_night.checkpoint,), settings=settings))
    assert made.pair_sum > PAIR_LIMIT
    return storage.read_artifact(made.model)


@pytest.mark.parametrize("recipe", INTEGERS)
def test_no_file_of_any_recipe_can_saturate(ml_every, recipe):
    data = storage.read_artifact(ml_every[recipe].model)
    assert not saturates(data)
    assert 0 < ml_every[recipe].pair_sum <= PAIR_LIMIT
    assert len(ml_every[recipe].pair_sums) == ml_every[recipe].details["quantized_nodes"]


def test_a_file_of_8_bits_can(eight_bits):
    assert saturates(eight_bits)


@pytest.mark.parametrize("recipe", ["fp32", "fp16"])
def test_float_files_have_no_sums(ml_every, recipe):
    assert (ml_every[recipe].pair_sums, ml_every[recipe].pair_sum) == ({}, 0)


def columns(pixels: NDArray[np.uint8], node: onnx.NodeProto) -> NDArray[np.uint8]:
    """What each output of a layer without groups is the sum over, uint8 [places,k]."""
    if node.op_type != "Conv":
        return pixels.reshape(len(pixels), -1)
    facts = {attribute.name: list(attribute.ints) for attribute in node.attribute}
    cut = functional.unfold(
        functional.pad(torch.from_numpy(pixels).float(), [facts["pads"][i] for i in (1, 3, 0, 2)]),
        facts["kernel_shape"],
        stride=facts["strides"],
    )
    return cut.transpose(1, 2).flatten(0, 1).numpy().astype(np.uint8)


def test_the_sums_of_real_images_are_exact_in_pairs(ml_night, ml_every):
    """Layer by layer on the test images, with the weights in the order in which the file has them."""
    model = onnx.load_model_from_string(storage.read_artifact(ml_every["int8"].model))
    graph, weights = Graph(model), integer_weights(model)
    nodes = [node for node in graph.nodes if node.op_type in LAYERS]
    layers = {name: node for node in nodes if (name := graph.integer_weights(node))}
    assert layers.keys() == weights.keys()
    given = {name: graph.maker[node.input[0]].input[0] for name, node in layers.items()}
    for name in dict.fromkeys(given.values()):
        model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.UINT8, None))
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    images = load_split(ml_night.dataset, "test").images.numpy()
    for name, node in layers.items():
        (activations,) = session.run([given[name]], {"images": images})
        rows, matrix = columns(activations, node), weights[name].reshape(len(weights[name]), -1)
        np.testing.assert_array_equal(saturating(rows, matrix), exact(rows, matrix), err_msg=name)


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ([[127, 1, -5]], 128),
        ([[127, -127, 0]], 127),
        ([[3, -60, -70]], 130),
        ([[1, 2], [64, 64]], 128),
        ([[-128, -128]], 256),
        ([[-128]], 128),
        ([[0, 0]], 0),
    ],
)
def test_the_largest_pair_is_of_one_sign_and_one_channel(weights, expected):
    assert largest_pair(np.array(weights, np.int8)) == expected


@pytest.mark.parametrize(
    ("kind", "attributes", "axis"),
    [("Conv", {}, 0), ("Gemm", {"transB": 1}, 0), ("Gemm", {}, 1), ("MatMul", {}, 1)],
)
def test_output_channels_lie_where_the_layer_says(kind, attributes, axis):
    assert output_axis(helper.make_node(kind, ["x", "w"], ["y"], **attributes)) == axis


def without_pair_sum(data: bytes) -> bytes:
    """The file as it was made before files said their largest sum."""
    model = onnx.load_model_from_string(data)
    kept = [fact for fact in model.metadata_props if fact.key != PAIR_SUM]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    return bytes(model.SerializeToString())


@pytest.mark.parametrize("recipe", ["fp32", *INTEGERS])
def test_a_file_that_does_not_say_its_sum_is_looked_through(ml_every, recipe):
    data = storage.read_artifact(ml_every[recipe].model)
    told, found = (model_file.of_bytes("m.onnx", each).pair_sum for each in (data, without_pair_sum(data)))
    assert told == found == ml_every[recipe].pair_sum


@pytest.fixture
def old_processor(monkeypatch, tmp_path) -> None:
    (tmp_path / "cpuinfo").write_text("model name : Old One\nflags : fpu avx2\n")
    monkeypatch.setattr(processor, "CPUINFO", tmp_path / "cpuinfo")


def test_a_file_of_8_bits_loads_and_says_that_it_is_not_portable(eight_bits, monkeypatch, tmp_path):
    (tmp_path / "cpuinfo").write_text("model name : New One\nflags : fpu avx2 avx512_vnni\n")
    monkeypatch.setattr(processor, "CPUINFO", tmp_path / "cpuinfo")
    found = model_file.of_bytes("m.onnx", without_pair_sum(eight_bits))
    assert (found.portable, found.runtime) == (False, "onnxruntime")
    assert f"{found.pair_sum:,}" in found.warning
    assert "quantize.portable = true" in found.warning
    assert "New One" not in found.warning


def test_on_an_old_processor_such_a_file_is_computed_exactly(eight_bits, old_processor):
    found = model_file.of_bytes("m.onnx", eight_bits)
    assert found.runtime == EXACT
    assert "Old One has neither VNNI" in found.warning


def test_a_portable_file_needs_no_warning_anywhere(ml_every, old_processor):
    found = model_file.of_bytes("m.onnx", storage.read_artifact(ml_every["int8"].model))
    assert (found.portable, found.runtime, found.warning) == (True, "onnxruntime", "")


def test_a_graph_of_another_maker_is_understood_too():
    """A matrix product whose weights are the other way round, unpacked by the graph."""
    weights = np.array([[100, 1], [100, -100]], np.int8)  # [in, out]
    nodes = [
        helper.make_node("QuantizeLinear", ["images", "scale", "low"], ["bytes"]),
        helper.make_node("DequantizeLinear", ["bytes", "scale", "low"], ["left"]),
        helper.make_node("Reshape", ["flat", "shape"], ["weights"]),
        helper.make_node("DequantizeLinear", ["weights", "scale", "zero"], ["right"]),
        helper.make_node("MatMul", ["left", "right"], ["product"]),
    ]
    constants = {
        "scale": np.float32(0.5),
        "low": np.uint8(0),
        "zero": np.int8(0),
        "flat": weights.ravel(),
        "shape": np.array([2, 2], np.int64),
    }
    graph = helper.make_graph(
        nodes,
        "other",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["N", 2])],
        [helper.make_tensor_value_info("product", TensorProto.FLOAT, ["N", 2])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    opsets = [helper.make_opsetid("", onnx_export.OPSET)]
    sums = pair_sums(helper.make_model(graph, opset_imports=opsets, ir_version=10))
    assert sums == {"weights": 255 * 200}
    assert not is_portable(sums)
