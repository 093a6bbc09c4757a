"""What every recipe's file promises, and to whom: somebody who has nothing else."""

import json
import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from nightshift import storage
from nightshift.config import QuantizeSettings
from nightshift.config.quantization import RECIPES
from nightshift.data.dataset import load_split, scaled, standardised
from nightshift.errors import InputError
from nightshift.inference.onnx_stats import proof
from nightshift.inference.pair_sums import is_portable, pair_sums
from nightshift.inference.runtime import Session, installed
from nightshift.models.build import restore
from nightshift.quantization import onnx_export, recipes
from nightshift.quantization.recipes import binary, int8

SETTINGS = QuantizeSettings(calibration_images=32)
# Mean distance of a recipe's probabilities from those of the checkpoint, bits of a weight, quantized layers.
BOUNDS = {
    "fp32": (1e-5, 32.0, 0),
    "fp16": (2e-3, 16.0, 0),
    "int8": (0.01, 8.0, 21),
    "int8-accuracy": (0.01, 8.0, 21),
    "int8-qat": (0.02, 8.0, 21),
    "binary": (0.2, 1.1, 21),
}
every_recipe = pytest.mark.parametrize("recipe", RECIPES)


@pytest.fixture
def trained(ml_night, tmp_path) -> recipes.Trained:
    data = storage.read_artifact(ml_night.checkpoint.weights)
    network = restore(data, ml_night.checkpoint.settings, classes=4, image_size=8)
    return recipes.Trained(network, ml_night.dataset, ml_night.checkpoint.settings, f"file://{tmp_path}")


def graph_of(candidate) -> onnx.ModelProto:
    return onnx.load_model_from_string(storage.read_artifact(candidate.model))


def kinds(graph: onnx.ModelProto) -> set[str]:
    return {node.op_type for node in graph.graph.node}


@every_recipe
def test_the_file_takes_bytes_and_says_what_its_labels_mean(ml_night, ml_every, recipe):
    graph = graph_of(ml_every[recipe])
    given, (probabilities, label) = graph.graph.input, graph.graph.output
    assert [value.name for value in given] == ["images"]
    assert given[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert [d.dim_value for d in given[0].type.tensor_type.shape.dim] == [0, 8, 8, 3]
    assert (probabilities.name, label.name) == ("probabilities", "label")
    facts = {entry.key: entry.value for entry in graph.metadata_props}
    assert json.loads(facts["nightshift.classes"]) == list(ml_night.dataset.classes)
    assert json.loads(facts["nightshift.preprocess"]) == ml_night.dataset.preprocess.pixel_settings()
    assert facts["nightshift.recipe"] == recipe


@every_recipe
def test_the_file_stands_alone_and_says_nothing_of_where_it_was_made(ml_every, recipe):
    graph = graph_of(ml_every[recipe])
    assert all(tensor.data_location == onnx.TensorProto.DEFAULT for tensor in graph.graph.initializer)
    data = storage.read_artifact(ml_every[recipe].model)
    assert b"nightshift/" not in data
    assert b".py" not in data


@every_recipe
def test_it_quantizes_what_it_says(ml_every, recipe):
    _, bits, layers = BOUNDS[recipe]
    details = ml_every[recipe].details
    assert details["weight_bits"] == pytest.approx(bits, rel=0.1)
    assert details["quantized_nodes"] == layers
    assert details["layers"] == 21  # 20 convolutions and the head
    assert (details["int8_share"] > 0.99) == (layers > 0)


@every_recipe
def test_it_answers_as_its_checkpoint_does(ml_night, ml_every, trained, recipe):
    images = load_split(ml_night.dataset, "test").images
    with torch.inference_mode():
        pixels = standardised(scaled(images), ml_night.dataset)
        expected = trained.network(pixels).softmax(1).numpy()
    probabilities, labels = Session(storage.read_artifact(ml_every[recipe].model)).predict(images.numpy())
    assert np.abs(probabilities - expected).mean() < BOUNDS[recipe][0]
    assert (labels == expected.argmax(1)).mean() >= 0.9


@every_recipe
def test_no_runtime_strays_further_from_the_literal_graph_than_int8_from_float(ml_night, ml_every, recipe):
    images = load_split(ml_night.dataset, "test").images.numpy()
    data = storage.read_artifact(ml_every[recipe].model)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    (literal,) = onnxruntime.InferenceSession(data, options).run(["probabilities"], {"images": images})
    assert "onnxruntime" in installed()
    for name in installed():
        probabilities, _ = Session(data, name).predict(images)
        assert np.abs(probabilities - literal).mean() < 0.01, name


CLEAN = """
import sys
import numpy, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
images = numpy.load(sys.argv[2], allow_pickle=False)
probabilities, labels = session.run(None, {"images": images})
assert not {"torch", "onnx", "nightshift", "openvino", "nncf"} & set(sys.modules)
print(probabilities.shape, labels.tolist())
"""


def only(names: tuple[str, ...], folder: Path) -> None:
    """Link some distributions, and those that these ask for, into a folder that then holds nothing else."""
    waiting, seen = list(names), set()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        asked = [line for line in metadata.requires(name) or [] if ";" not in line]
        waiting += [re.match(r"[\w.-]+", line)[0] for line in asked]
        for top in {file.parts[0] for file in metadata.files(name) or ()} - {"..", "__pycache__"}:
            (folder / top).symlink_to(metadata.distribution(name).locate_file(top))


@every_recipe
def test_the_file_predicts_where_only_numpy_and_onnxruntime_are(ml_night, ml_every, tmp_path, recipe):
    packages = tmp_path / "packages"
    packages.mkdir()
    only(("numpy", "onnxruntime"), packages)
    assert not {"torch", "onnx", "nightshift"} & {path.name for path in packages.iterdir()}
    data = storage.read_artifact(ml_every[recipe].model)
    images = load_split(ml_night.dataset, "test").images.numpy()
    (tmp_path / "model.onnx").write_bytes(data)
    np.save(tmp_path / "images.npy", images)
    done = subprocess.run(
        [sys.executable, "-S", "-c", CLEAN, tmp_path / "model.onnx", tmp_path / "images.npy"],
        env={"PYTHONPATH": str(packages), "PATH": os.environ["PATH"]},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    _, labels = Session(data).predict(images)
    assert done.stdout.strip() == f"(24, 4) {labels.tolist()}"


@every_recipe
def test_the_same_network_gives_the_same_bytes(ml_night, ml_every, trained, recipe):
    settings = QuantizeSettings(calibration_images=32, binary_epochs=3)
    graph, _ = recipes.find(recipe).make(trained, settings)
    again = onnx_export.finish(graph, ml_night.dataset, recipe)
    assert again == storage.read_artifact(ml_every[recipe].model)


def test_batch_norm_is_folded_away(ml_night):
    assert "BatchNormalization" not in kinds(graph_of(ml_night.candidates["fp32"]))


def test_files_are_as_small_as_their_weights(ml_every):
    size = {recipe: candidate.model.size for recipe, candidate in ml_every.items()}
    assert size["fp16"] < 0.55 * size["fp32"]
    assert size["int8"] < 0.32 * size["fp32"]
    assert size["binary"] < size["int8"] / 2


def test_names_are_short_but_those_of_weights(ml_every):
    graph = graph_of(ml_every["int8"]).graph
    assert not any(node.name for node in graph.node)
    wide = {tensor.name for tensor in graph.initializer if len(tensor.dims) > 1}
    assert "network.layer1.0.conv1.weight_quantized" in wide
    values = {name for node in graph.node for name in (*node.input, *node.output)} - wide
    assert max(map(len, values - {"images", "probabilities", "label"})) <= 5
    assert not graph.value_info


def test_int8_has_unsigned_activations_and_weights_per_channel(ml_night):
    graph = graph_of(ml_night.candidates["int8"]).graph
    values = {tensor.name: tensor for tensor in graph.initializer}
    zero_points = {values[node.input[2]].data_type for node in graph.node if node.op_type == "QuantizeLinear"}
    assert zero_points == {onnx.TensorProto.UINT8}
    weights = [t for t in graph.initializer if t.data_type == onnx.TensorProto.INT8 and len(t.dims) == 4]
    assert len(weights) == 20
    scales = {
        node.input[0]: values[node.input[1]]
        for node in graph.node
        if node.op_type == "DequantizeLinear" and node.input[1] in values
    }
    assert all(list(scales[weight.name].dims) == [weight.dims[0]] for weight in weights)


def test_biases_of_int8_are_integers_too(ml_night):
    graph = graph_of(ml_night.candidates["int8"]).graph
    stored = {tensor.name: tensor.data_type for tensor in graph.initializer}
    made = {name: node for node in graph.node for name in node.output}
    biases = [
        node.input[2] for node in graph.node if node.op_type in ("Conv", "Gemm") and len(node.input) > 2
    ]
    integers = [made[name] for name in biases if name in made]
    assert len(integers) == 21
    assert {stored[node.input[0]] for node in integers} == {onnx.TensorProto.INT32}


def test_normalisation_stays_in_float(ml_night):
    graph = graph_of(ml_night.candidates["int8"]).graph
    first = next(index for index, node in enumerate(graph.node) if node.op_type == "QuantizeLinear")
    made = {name: node for node in graph.node for name in node.output}
    normalise = made[graph.node[first].input[0]]
    assert normalise.op_type == "Conv"
    assert made[normalise.input[0]].op_type == "Cast"


@pytest.mark.parametrize(("layers", "left"), [("none", 21), ("first", 20), ("last", 20), ("both", 19)])
def test_first_and_last_layers_stay_in_float_where_asked(trained, layers, left):
    graph, _ = int8.make(trained, SETTINGS.model_copy(update={"float_layers": layers}))
    assert proof(graph)["quantized_nodes"] == left


@pytest.mark.parametrize("method", ["minmax", "entropy", "percentile"])
def test_ranges_are_taken_as_asked(trained, method):
    graph, details = int8.make(trained, SETTINGS.model_copy(update={"calibration": method}))
    assert details["calibration"] == method
    assert proof(graph)["quantized_nodes"] == 21


def test_int8_is_taken_as_it_is_where_it_keeps_the_budget(trained):
    plain, details = int8.make(trained, SETTINGS)
    graph, told = recipes.find("int8-accuracy").make(trained, SETTINGS)
    assert graph.SerializeToString() == plain.SerializeToString()
    assert told == details


def test_accuracy_is_kept_by_leaving_layers_in_float(trained):
    """The network is spoiled for int8: a channel of the first sums drowns the others, for nothing."""
    network = trained.network
    with torch.no_grad():
        network.layer1[0].bn2.bias[0] = 1e4
        for layer in (network.layer1[1].conv1, network.layer2[0].conv1, network.layer2[0].downsample[0]):
            layer.weight[:, 0] = 0
    plain, _ = int8.make(trained, SETTINGS)
    graph, _ = recipes.find("int8-accuracy").make(
        trained, SETTINGS.model_copy(update={"accuracy_budget": 0.0})
    )
    validation = load_split(trained.dataset, "validation")

    def accuracy(model) -> float:
        _, labels = Session(model.SerializeToString()).predict(validation.images.numpy())
        return float((labels == validation.labels.numpy()).mean())

    float_graph, _ = recipes.find("fp32").make(trained, SETTINGS)
    assert accuracy(graph) >= accuracy(float_graph)
    assert 0 < proof(graph)["quantized_nodes"] < proof(plain)["quantized_nodes"]
    sums = pair_sums(graph)
    assert len(sums) == proof(graph)["quantized_nodes"]
    assert is_portable(sums)


def test_what_onnx_runtime_cannot_take_is_said_in_a_sentence(trained, monkeypatch):
    def refuse(*given, **options):
        raise ValueError("an operation is unknown")

    monkeypatch.setattr(int8, "quantize_static", refuse)
    with pytest.raises(InputError, match=r"cannot quantize the network \(an operation is unknown\); leave"):
        int8.make(trained, SETTINGS)


def test_what_nncf_cannot_take_is_said_in_a_sentence(trained, monkeypatch):
    import nncf

    def refuse(*given, **options):
        raise nncf.UnsupportedModelError("an operation is unknown")

    monkeypatch.setattr(nncf, "quantize_with_accuracy_control", refuse)
    monkeypatch.setattr(
        recipes.find("int8-accuracy"), "_accuracy", lambda model, batches: (len(lost.pop()), [])
    )
    lost = ["", "1"]  # int8 is right nowhere, and fp32 everywhere
    with pytest.raises(
        InputError, match=r"NNCF cannot quantize the network \(an operation is unknown\); use"
    ):
        recipes.find("int8-accuracy").make(trained, SETTINGS)


def test_binary_weights_are_one_bit_and_one_size_per_channel(ml_every):
    graph = graph_of(ml_every["binary"]).graph
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    (packed,) = [value for value in stored.values() if value.dtype == np.uint8 and value.size > 1]
    assert 8 * packed.size == pytest.approx(ml_every["binary"].details["weights"], rel=0.02)
    wide = [value for value in stored.values() if value.dtype == np.int8 and value.ndim == 4]
    assert len(wide) == 1  # the first convolution
    assert set(np.unique(stored["binary_table"])) == {-64, 64}  # two of them are within 16 bits


def test_unpacked_weights_are_those_that_were_packed(trained):
    """Packed and unpacked again by the graph, the network gives what it gave before."""
    with torch.no_grad():
        for layer in [module for module in trained.network.modules() if isinstance(module, torch.nn.Conv2d)][
            1:
        ]:
            size = layer.weight.abs().mean((1, 2, 3), keepdim=True)
            layer.weight.copy_(torch.where(layer.weight >= 0, size, -size))
    plain, _ = int8.make(trained, SETTINGS)
    images = load_split(trained.dataset, "test").images.numpy()
    before = Session(plain.SerializeToString()).predict(images)[0]
    packed = binary.packed(plain)
    assert proof(packed)["weight_bits"] < 1.1
    np.testing.assert_array_equal(Session(packed.SerializeToString()).predict(images)[0], before)


def test_channels_with_fewer_steps_are_packed_too():
    weights = np.where(np.random.default_rng(0).random((4, 3, 3, 3)) < 0.5, -127, 127).astype(np.int8)
    weights[1] = weights[1] // 127 * 5
    node = onnx.helper.make_node("Cast", ["weights"], ["out"], to=onnx.TensorProto.FLOAT)
    out = onnx.helper.make_tensor_value_info("out", onnx.TensorProto.FLOAT, weights.shape)
    stored = [onnx.numpy_helper.from_array(weights, "weights")]
    graph = onnx.helper.make_graph([node], "one", [], [out], stored)
    opsets = [onnx.helper.make_opsetid("", onnx_export.OPSET)]
    model = binary.packed(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10))
    assert "weights" not in {tensor.name for tensor in model.graph.initializer}
    (found,) = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {})
    np.testing.assert_array_equal(found, weights)


def test_a_network_without_inner_layers_cannot_be_binary(trained):
    plain, _ = int8.make(trained, SETTINGS)
    with pytest.raises(InputError, match="made no layer binary"):
        binary.packed(plain)


def test_a_graph_that_breaks_its_promise_is_refused(ml_night):
    graph = graph_of(ml_night.candidates["fp32"])
    five = ml_night.dataset.model_copy(update={"classes": tuple("abcde")})
    with pytest.raises(InputError, match=r"recipe fp32 made an ONNX file that does not run .*\(3, 5\)"):
        onnx_export.finish(graph, five, "fp32")


def test_a_network_that_onnx_cannot_hold_is_refused(ml_night):
    class Strange(torch.nn.Module):
        def forward(self, pixels):
            return torch.linalg.eigvals(pixels[:, 0]).real

    with pytest.raises(InputError, match="the network has an operation that ONNX 20 lacks"):
        onnx_export.export(Strange(), ml_night.dataset)


def test_recipes_are_found_by_name():
    assert recipes.find("int8") is int8
    for wrong in ("int4", "../int8", "", "os"):
        with pytest.raises(InputError, match=f"known are {', '.join(sorted(BOUNDS))}"):
            recipes.find(wrong)


def test_nothing_of_a_training_stays_beside_its_candidate(ml_every):
    model = Path(ml_every["int8-qat"].model.uri.removeprefix("file://"))
    left = {file.name for file in model.parent.rglob("*") if file.is_file()}
    assert left == {model.name, "candidate.json"}
