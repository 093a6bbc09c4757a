"""ONNX graphs in numbers: which layers compute in integers, and how many bits their weights take.

A layer is a convolution or a matrix product. It counts as int8 when its input and its weights come from
DequantizeLinear nodes, which is what runtimes turn into integer kernels.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import onnx
from onnx import NodeProto

INPUT: Final = "images"
LAYERS: Final = ("Conv", "Gemm", "MatMul")
PASSED_ON: Final = ("Cast", "DequantizeLinear", "Div", "Identity", "Mul", "Reshape", "Split", "Transpose")
MOVES: Final = ("Concat", "Flatten", "MaxPool", "Reshape", "Squeeze", "Transpose", "Unsqueeze")
FLOAT_BITS: Final = 32


class Layer(NamedTuple):
    """One layer; multiply-adds are those of one image, bits those of one number in the file."""

    name: str
    multiply_adds: int
    weights: int
    weight_bits: float
    biases: int
    bias_bits: float
    is_int8: bool


class Graph:
    """A graph with its values by name."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.nodes = list(model.graph.node)
        self.stored = {tensor.name: tensor for tensor in model.graph.initializer}
        self.maker = {name: node for node in self.nodes for name in node.output}
        inferred = onnx.shape_inference.infer_shapes(model).graph
        self._shapes = {
            value.name: [dimension.dim_value for dimension in value.type.tensor_type.shape.dim]
            for value in (*inferred.value_info, *inferred.input, *inferred.output)
        }

    def layers(self) -> Iterator[Layer]:
        """All layers but the one that normalises the bytes, in the order of the graph."""
        for node in self.nodes:
            if node.op_type in LAYERS and not self.normalises(node):
                yield self._layer(node)

    def normalises(self, node: NodeProto) -> bool:
        """Whether a node is the convolution that `export.Serving` puts before the network."""
        name = node.input[0]
        while (source := self.maker.get(name)) is not None and source.op_type in ("Cast", "Transpose"):
            name = source.input[0]
        return node.op_type == "Conv" and name == INPUT

    def first_layers(self) -> list[str]:
        """Names of the layers that see the normalised image: one of each network that votes."""
        return [
            node.name
            for node in self.nodes
            if node.op_type in LAYERS and not self.normalises(node) and not self._above(node)
        ]

    def last_layers(self) -> list[str]:
        """Names of the layers after which no other comes: one of each network that votes."""
        inner = set().union(*(self._above(node) for node in self.nodes if node.op_type in LAYERS))
        return [
            node.name
            for node in self.nodes
            if node.op_type in LAYERS and not self.normalises(node) and node.name not in inner
        ]

    def prefix(self) -> list[str]:
        """Names of the nodes up to the normalisation, which needs more than 8 bits."""
        for index, node in enumerate(self.nodes):
            if self.normalises(node):
                return [each.name for each in self.nodes[: index + 1]]
        return []

    def _above(self, node: NodeProto) -> set[str]:
        """Names of the layers that a node's input passed through last."""
        found, waiting, seen = set(), [node.input[0]], set()
        while waiting:
            name = waiting.pop()
            source = self.maker.get(name)
            if name in seen or source is None:
                continue
            seen.add(name)
            if source.op_type in LAYERS:
                if not self.normalises(source):
                    found.add(source.name)
            else:
                waiting += source.input
        return found

    def _layer(self, node: NodeProto) -> Layer:
        weights = math.prod(self._shape(node.input[1]))
        has_bias = len(node.input) > 2 and bool(node.input[2])
        places = math.prod(self._shape(node.output[0])[2:]) if node.op_type == "Conv" else 1
        return Layer(
            name=node.name,
            multiply_adds=places * weights,
            weights=weights,
            weight_bits=self._bits(node.input[1]),
            biases=math.prod(self._shape(node.input[2])) if has_bias else 0,
            bias_bits=self._bits(node.input[2]) if has_bias else 0,
            is_int8=bool(self.integer_weights(node)),
        )

    def integer_weights(self, node: NodeProto) -> str:
        """Name of the integers that a layer computes with as weights; empty where it computes in float."""
        if not all(self._is_dequantized(name) for name in node.input[:2]):
            return ""
        return str(self._dequantizer(node.input[1]).input[0])

    def upstream(self, names: Sequence[str]) -> list[NodeProto]:
        """The nodes that make some values, in the order of the graph."""
        needed, waiting = set[str](), list(names)
        while waiting:
            name = waiting.pop()
            if name not in needed and name in self.maker:
                waiting += self.maker[name].input
            needed.add(name)
        return [node for node in self.nodes if needed.intersection(node.output)]

    def _dequantizer(self, name: str) -> NodeProto:
        """The node that makes a value out of others' order or extract of it; an empty one for an input."""
        while (node := self.maker.get(name)) is not None and node.op_type in MOVES:
            name = node.input[0]
        return NodeProto() if node is None else node

    def _is_dequantized(self, name: str) -> bool:
        """Whether a value comes from integers, in whichever order or extract of them."""
        return self._dequantizer(name).op_type == "DequantizeLinear"

    def _shape(self, name: str) -> list[int]:
        return list(self.stored[name].dims) if name in self.stored else self._shapes.get(name, [])

    def _bits(self, name: str) -> float:
        """Bits that the file keeps for one number of a constant."""
        if name in self.stored:
            return 8 * onnx.helper.tensor_dtype_to_np_dtype(self.stored[name].data_type).itemsize
        node = self.maker.get(name)
        if node is None:
            return FLOAT_BITS
        if node.op_type == "Gather":  # each index stands for a row of the table
            return self._bits(node.input[1]) / self._shape(node.input[0])[-1]
        return self._bits(node.input[0]) if node.op_type in PASSED_ON else FLOAT_BITS


def proof(model: onnx.ModelProto) -> dict[str, float | int | str]:
    """What of a graph is quantized: layers, share of multiply-adds in int8, bits of weights and biases."""
    layers = list(Graph(model).layers())
    adds, weights = sum(layer.multiply_adds for layer in layers), sum(layer.weights for layer in layers)
    biases = sum(layer.biases for layer in layers)
    quick = sum(layer.multiply_adds for layer in layers if layer.is_int8)
    return {
        "nodes": len(model.graph.node),
        "layers": len(layers),
        "weights": weights,
        "quantized_nodes": sum(layer.is_int8 for layer in layers),
        "int8_share": round(quick / max(1, adds), 4),
        "weight_bits": round(sum(layer.weights * layer.weight_bits for layer in layers) / max(1, weights), 3),
        "bias_bits": round(sum(layer.biases * layer.bias_bits for layer in layers) / max(1, biases), 3),
    }
