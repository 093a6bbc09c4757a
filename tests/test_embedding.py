"""The embedding as a further output: the features that the model decides on, whatever the recipe."""

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from small_models import brightness, onnx_model

from nightshift import storage
from nightshift.errors import InputError
from nightshift.inference.embeddings import Embedder, with_embedding
from nightshift.inference.runtime import Session


def pictures(count: int) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (count, 8, 8, 3), np.uint8)


def test_every_recipe_embeds_and_answers_as_before(ml_every):
    images = pictures(5)
    for recipe, candidate in ml_every.items():
        data = storage.read_artifact(candidate.model)
        probabilities, labels, features = Embedder(data, recipe).embed(images)
        before, labels_before = Session(data).predict(images)
        assert features.shape == (5, 64), recipe
        assert features.dtype == np.float32
        assert np.allclose(probabilities, before, atol=1e-3), recipe
        assert (labels == labels_before).all()


def test_the_last_layer_makes_the_probabilities_of_the_embedding(ml_night):
    data = storage.read_artifact(ml_night.candidates["fp32"].model)
    graph = onnx.load_model_from_string(data).graph
    (head,) = [node for node in graph.node if node.op_type == "Gemm"]
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    weights, bias = (tensors[name] for name in head.input[1:])
    probabilities, _, features = Embedder(data, "fp32").embed(pictures(3))
    logits = features @ weights.T + bias
    shares = np.exp(logits - logits.max(1, keepdims=True))
    assert np.allclose(shares / shares.sum(1, keepdims=True), probabilities, atol=1e-5)


def test_networks_that_vote_give_the_features_of_all(ml_ensemble):
    voted = ml_ensemble.candidates["fp32-soft-vote"]
    features = Embedder(storage.read_artifact(voted.model), "vote").embed(pictures(2))[2]
    assert features.shape == (2, 64 * len(ml_ensemble.members))


def test_mirrored_images_count_as_one():
    """A graph that sees each image and its mirror image as one batch has twice as many features."""
    graph = onnx.load_model_from_string(onnx_model(1)).graph
    nodes = [
        helper.make_node("Cast", ["images"], ["float"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Flatten", ["float"], ["flat"]),
        helper.make_node("Neg", ["flat"], ["negative"]),
        helper.make_node("Concat", ["flat", "negative"], ["both"], axis=0),
        helper.make_node("MatMul", ["both", "weights"], ["scores"]),
        helper.make_node("Split", ["scores"], ["one", "two"], axis=0, num_outputs=2),
        helper.make_node("Softmax", ["one"], ["probabilities"]),
        helper.make_node("ArgMax", ["probabilities"], ["label"], axis=1, keepdims=0),
    ]
    doubled = helper.make_graph(nodes, "doubled", graph.input, graph.output, graph.initializer)
    made = helper.make_model(doubled, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    images = pictures(3)[:, :4, :4]
    features = Embedder(made.SerializeToString(), "doubled").embed(images)[2]
    assert features.shape == (3, 48)
    assert not features.any()  # the mean of an image and its negative


def test_a_model_without_a_linear_layer_is_said():
    with pytest.raises(InputError, match=r"model m\.onnx has no linear layer at its end"):
        with_embedding(brightness(), "m.onnx")
