"""The files that recipes make: what they promise to a consumer who has nothing else."""

import json

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from tasks import export, recipes, storage
from tasks.config import QuantizeSettings
from tasks.dataset import load_split, scaled, standardised
from tasks.errors import InputError
from tasks.model import restore
from tasks.recipes import int8
from tasks.runtime import Session, installed

SETTINGS = QuantizeSettings(calibration_images=32)


@pytest.fixture
def trained(ml_night) -> recipes.Trained:
    data = storage.read_artifact(ml_night.checkpoint.weights)
    network = restore(data, ml_night.checkpoint.settings, classes=4, image_size=8)
    return recipes.Trained(network, ml_night.dataset, load_split(ml_night.dataset, "train"), 0)


def file_of(night, recipe: str) -> onnx.ModelProto:
    return onnx.load_model_from_string(storage.read_artifact(night.candidates[recipe].model))


def kinds(graph: onnx.ModelProto) -> set[str]:
    return {node.op_type for node in graph.graph.node}


@pytest.mark.parametrize("recipe", ["fp32", "int8"])
def test_the_file_takes_bytes_and_says_what_its_labels_mean(ml_night, recipe):
    graph = file_of(ml_night, recipe)
    given, (probabilities, label) = graph.graph.input, graph.graph.output
    assert [value.name for value in given] == ["images"]
    assert given[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert [d.dim_value for d in given[0].type.tensor_type.shape.dim] == [0, 8, 8, 3]
    assert (probabilities.name, label.name) == ("probabilities", "label")
    facts = {entry.key: entry.value for entry in graph.metadata_props}
    assert json.loads(facts["nightshift.classes"]) == list(ml_night.dataset.classes)
    assert json.loads(facts["nightshift.preprocess"]) == ml_night.dataset.preprocess.pixel_settings()
    assert facts["nightshift.recipe"] == recipe


@pytest.mark.parametrize("recipe", ["fp32", "int8"])
def test_the_file_stands_alone_and_says_nothing_of_where_it_was_made(ml_night, recipe):
    graph = file_of(ml_night, recipe)
    assert all(tensor.data_location == onnx.TensorProto.DEFAULT for tensor in graph.graph.initializer)
    data = storage.read_artifact(ml_night.candidates[recipe].model)
    assert b"/tasks/" not in data
    assert b".py" not in data


def test_batch_norm_is_folded_away(ml_night):
    assert "BatchNormalization" not in kinds(file_of(ml_night, "fp32"))


def test_the_float_file_gives_the_network_s_probabilities(ml_night, trained):
    images = load_split(ml_night.dataset, "test").images
    with torch.inference_mode():
        pixels = standardised(scaled(images), ml_night.dataset)
        expected = trained.network(pixels).softmax(1).numpy()
    probabilities, labels = Session(storage.read_artifact(ml_night.candidates["fp32"].model)).predict(
        images.numpy()
    )
    np.testing.assert_allclose(probabilities, expected, atol=1e-4)
    assert labels.tolist() == expected.argmax(1).tolist()


def test_int8_is_nearly_as_accurate_and_much_smaller(ml_night):
    test = load_split(ml_night.dataset, "test")
    right = {}
    for recipe, candidate in ml_night.candidates.items():
        _, labels = Session(storage.read_artifact(candidate.model)).predict(test.images.numpy())
        right[recipe] = int((labels == test.labels.numpy()).sum())
    assert right["int8"] >= right["fp32"] - 1
    sizes = {recipe: candidate.model.size for recipe, candidate in ml_night.candidates.items()}
    assert sizes["int8"] < 0.4 * sizes["fp32"]


def test_int8_has_unsigned_activations_and_weights_per_channel(ml_night):
    graph = file_of(ml_night, "int8").graph
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


def test_every_convolution_and_the_head_is_quantized(ml_night):
    assert ml_night.candidates["int8"].details["quantized_nodes"] == 21  # 20 convolutions and the head


def test_normalisation_stays_in_float(ml_night):
    graph = file_of(ml_night, "int8").graph
    first = next(index for index, node in enumerate(graph.node) if node.op_type == "QuantizeLinear")
    made = {name: node for node in graph.node for name in node.output}
    normalise = made[graph.node[first].input[0]]
    assert normalise.op_type == "Conv"
    assert made[normalise.input[0]].op_type == "Cast"


def test_no_runtime_strays_further_from_the_literal_int8_graph_than_int8_from_float(ml_night):
    images = load_split(ml_night.dataset, "test").images.numpy()
    data = storage.read_artifact(ml_night.candidates["int8"].model)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    (literal,) = onnxruntime.InferenceSession(data, options).run(["probabilities"], {"images": images})
    assert "onnxruntime" in installed()
    for name in installed():
        probabilities, _ = Session(data, name).predict(images)
        assert np.abs(probabilities - literal).mean() < 0.005, name


@pytest.mark.parametrize("recipe", ["fp32", "int8"])
def test_the_same_network_gives_the_same_bytes(ml_night, trained, recipe):
    again, _ = recipes.find(recipe).make(trained, SETTINGS)
    assert again == storage.read_artifact(ml_night.candidates[recipe].model)


def test_a_recipe_that_quantized_nothing_fails(ml_night, trained, monkeypatch):
    monkeypatch.setattr(int8, "export", lambda network, dataset: file_of(ml_night, "fp32"))
    monkeypatch.setattr(int8, "QUANTIZED", ("MatMul",))
    with pytest.raises(InputError, match="int8 quantized none of the"):
        int8.make(trained, SETTINGS)


def test_a_graph_that_breaks_its_promise_is_refused(ml_night):
    graph = file_of(ml_night, "fp32")
    five = ml_night.dataset.model_copy(update={"classes": tuple("abcde")})
    with pytest.raises(InputError, match=r"recipe fp32 made an ONNX file that does not run .*\(3, 5\)"):
        export.finish(graph, five, "fp32")


def test_recipes_are_found_by_name():
    assert recipes.find("int8") is int8
    for wrong in ("int4", "../int8", "", "os"):
        with pytest.raises(InputError, match="known are fp32, int8"):
            recipes.find(wrong)
