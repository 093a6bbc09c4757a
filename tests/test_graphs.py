"""Numbers of graphs, against what torch counts and what is known of the files."""

import onnx
import pytest

from nightshift import storage
from nightshift.inference.onnx_stats import Graph, proof
from nightshift.models.build import cost, restore
from nightshift.quantization import onnx_export


@pytest.fixture
def network(ml_night):
    data = storage.read_artifact(ml_night.checkpoint.weights)
    return restore(data, ml_night.checkpoint.settings, classes=4, image_size=8)


@pytest.fixture
def graph(network, ml_night) -> onnx.ModelProto:
    return onnx_export.export(network, ml_night.dataset)


def test_multiply_adds_are_those_that_torch_counts(graph, network):
    layers = list(Graph(graph).layers())
    _, expected = cost(network, 8, 3)
    assert sum(layer.multiply_adds for layer in layers) == expected


def test_weights_and_biases_are_all_there(graph, network):
    layers = list(Graph(graph).layers())
    assert sum(layer.weights for layer in layers) == sum(
        p.numel() for p in network.parameters() if p.ndim > 1
    )
    # Batch norm is folded, so each convolution has a bias.
    assert sum(layer.biases for layer in layers) == 4 + sum(
        module.num_features for module in network.modules() if hasattr(module, "num_features")
    )


def test_a_float_graph_has_32_bits_and_nothing_quantized(graph):
    found = proof(graph)
    assert (found["quantized_nodes"], found["int8_share"]) == (0, 0.0)
    assert (found["weight_bits"], found["bias_bits"]) == (32.0, 32.0)


def test_first_and_last_layers_are_found(graph):
    parts = Graph(graph)
    by_name = {node.name: node for node in graph.graph.node}
    (first,), (last,) = parts.first_layers(), parts.last_layers()
    assert by_name[first].input[1] == "network.conv1.weight"
    assert by_name[last].op_type == "Gemm"
    assert by_name[parts.prefix()[-1]].input[1] == "normalise.weight"


def test_of_a_vote_each_network_has_its_own_first_and_last_layer(ml_ensemble):
    data = storage.read_artifact(ml_ensemble.candidates["fp32-soft-vote"].model)
    graph = onnx.load_model_from_string(data)
    for number, node in enumerate(graph.graph.node):
        node.name = f"node-{number}"
    parts = Graph(graph)
    assert len(parts.first_layers()) == len(parts.last_layers()) == 3
