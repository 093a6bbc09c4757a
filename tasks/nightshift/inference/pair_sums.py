"""Portability of int8 files: the largest sum of two products that their integer layers can make.

x86 processors without VNNI or AMX multiply bytes by `vpmaddubsw`: products of unsigned activations and
signed weights are added in pairs, in 16 bits, and saturate. Which weights meet in a pair is up to the kernel,
so the bound is over any two weights of an output channel. A file whose largest sum is at most PAIR_LIMIT
gives the same labels on every processor.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final, cast

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, numpy_helper
from onnx.reference import ReferenceEvaluator

from nightshift.inference.onnx_stats import LAYERS, Graph
from nightshift.inference.portability import PAIR_LIMIT

ACTIVATION: Final = 255  # the largest of an unsigned byte
WEIGHTS: Final = PAIR_LIMIT // ACTIVATION  # 128: what two weights of one sign may add up to


def pair_sums(model: onnx.ModelProto) -> dict[str, int]:
    """The largest possible size of a sum of two products, by the name of each integer layer's weights."""
    return {name: ACTIVATION * largest_pair(weights) for name, weights in integer_weights(model).items()}


def integer_weights(model: onnx.ModelProto) -> dict[str, NDArray[np.int8]]:
    """The weights of all layers that compute in integers, by their names, int8 [O,...]: outputs first."""
    graph = Graph(model)
    layers = dict(_integer_layers(graph))
    weights = _constants(model, graph, list(layers))
    return {
        name: weights[name].reshape(1, -1) if axis is None else np.moveaxis(weights[name], axis, 0)
        for name, axis in layers.items()
    }


def largest_pair(weights: NDArray[np.int8]) -> int:
    """The largest size of a sum of two weights of one sign and one output channel, int8 [O,...]."""
    rows = weights.reshape(len(weights), -1).astype(np.int16)
    rows = np.concatenate([rows, -rows])
    two = np.partition(rows, -2, axis=1)[:, -2:] if rows.shape[1] > 1 else rows
    return int(two.clip(min=0).sum(axis=1).max(initial=0))


def is_portable(sums: Mapping[str, int]) -> bool:
    return max(sums.values(), default=0) <= PAIR_LIMIT


def _integer_layers(graph: Graph) -> Iterator[tuple[str, int | None]]:
    """Names of the layers' weights in integers, and the axis of their output channels.

    There is none where the graph moves weights about after it made them float; then any two may meet.
    """
    for node in graph.nodes:
        if node.op_type in LAYERS and (name := graph.integer_weights(node)):
            plain = graph.maker[node.input[1]].input[0] == name
            yield name, output_axis(node) if plain else None


def output_axis(node: NodeProto) -> int:
    """The axis of a layer's weights along which its output channels lie."""
    if node.op_type == "Conv":
        return 0
    transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
    return 0 if node.op_type == "Gemm" and transposed else 1


def _constants(model: onnx.ModelProto, graph: Graph, names: list[str]) -> dict[str, NDArray[Any]]:
    """Values of tensors of a graph that hang on no input: stored ones, and those unpacked from others."""
    found = {name: numpy_helper.to_array(graph.stored[name]) for name in names if name in graph.stored}
    computed = [name for name in names if name not in found]
    if computed:
        nodes = graph.upstream(computed)
        used = {name for node in nodes for name in node.input}
        part = onnx.helper.make_graph(
            nodes,
            "constants",
            [],
            [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.INT8, None) for name in computed],
            [tensor for name, tensor in graph.stored.items() if name in used],
        )
        program = onnx.helper.make_model(part, opset_imports=model.opset_import, ir_version=model.ir_version)
        values = cast(list[NDArray[Any]], ReferenceEvaluator(program).run(None, {}))
        found |= dict(zip(computed, values, strict=True))
    return found
