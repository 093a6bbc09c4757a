"""Recipe `binary`: weights of one bit with a scale per channel, trained from the trained weights on.

The weights are their signs times the mean of their size, and gradients pass as if they were not: Rastegari
et al., "XNOR-Net", ECCV 2016, and Courbariaux et al., "BinaryConnect", NeurIPS 2015. The first convolution
and the head keep 8 bits, and activations are integers as those of `int8`, so that it runs as fast.

In the file eight weights are one byte, which the graph looks up in a table of all 256 bytes. Runtimes do that
once, when they load it.
"""

from typing import Any, Final

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import NodeProto, helper, numpy_helper
from torch import Tensor, nn
from torch.nn.utils import parametrize

from nightshift.config import QuantizeSettings
from nightshift.errors import InputError
from nightshift.models.device import Precision, find_device
from nightshift.quantization.finetune import FineTune, fine_tuned
from nightshift.quantization.recipes import Details, Trained, int8

RATE: Final = 2e-3


class Sign(nn.Module):
    """float32 [O,I,h,w] to the signs times the mean size of each output channel."""

    def forward(self, weight: Tensor) -> Tensor:
        size = weight.detach().abs().mean((1, 2, 3), keepdim=True)
        binary = torch.where(weight.detach() >= 0, size, -size)
        return binary + (weight - weight.detach())


def make(trained: Trained, settings: QuantizeSettings) -> tuple[onnx.ModelProto, Details]:
    def adapt(network: nn.Module, go_on: FineTune) -> nn.Module:
        _, *inner = (module for module in network.modules() if isinstance(module, nn.Conv2d))
        for layer in inner:
            parametrize.register_parametrization(layer, "weight", Sign())
        go_on(network)
        for layer in inner:
            parametrize.remove_parametrizations(layer, "weight")
        return network

    precision = Precision(find_device())
    network = fine_tuned(
        trained,
        adapt,
        precision=precision.dtype,
        epochs=settings.binary_epochs,
        optimizer="adamw",
        learning_rate=RATE,
        weight_decay=0.0,
    )
    graph, details = int8.make(trained._replace(network=network), settings)
    return packed(graph), details | {"epochs": settings.binary_epochs, "precision": precision.name}


def _has_one_size(weights: NDArray[np.int8]) -> bool:
    """Whether int8 [O,I,h,w] are plus or minus one number in each output channel."""
    sizes = abs(weights.astype(np.int16)).reshape(len(weights), -1)
    return bool(weights.all() and (sizes == sizes[:, :1]).all())


def _unpacked(
    name: str, sizes: NDArray[np.int32], steps: int, constants: dict[str, NDArray[Any]]
) -> list[NodeProto]:
    """Nodes from the flat signs of a layer times `steps` to its weights, whose sizes are int32 [O,1,1,1]."""
    flat = [f"{name}_flat", f"{name}_shape"]
    if (sizes == steps).all():
        return [helper.make_node("Reshape", flat, [name])]
    # Where a bias is large beside its weights, these take fewer steps, so that the bias fits its integer.
    constants |= {f"{name}_sizes": sizes, "binary_steps": np.array(steps, dtype=np.int32)}
    return [
        helper.make_node("Reshape", flat, [f"{name}_signs"]),
        helper.make_node("Cast", [f"{name}_signs"], [f"{name}_wide"], to=onnx.TensorProto.INT32),
        helper.make_node("Mul", [f"{name}_wide", f"{name}_sizes"], [f"{name}_product"]),
        helper.make_node("Div", [f"{name}_product", "binary_steps"], [f"{name}_sized"]),
        helper.make_node("Cast", [f"{name}_sized"], [name], to=onnx.TensorProto.INT8),
    ]


def packed(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with the weights of binary layers at a bit each, unpacked by its first nodes.

    Raises InputError when there are no such layers.
    """
    graph = model.graph
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    binary = {
        name: weights
        for name, weights in stored.items()
        if weights.dtype == np.int8 and weights.ndim == 4 and _has_one_size(weights)
    }
    if not binary:
        raise InputError("recipe binary made no layer binary; it needs a network of several convolutions")
    bits = np.concatenate([weights.ravel() > 0 for weights in binary.values()])
    rest = -len(bits) % 8
    sizes = [weights.size for weights in binary.values()] + ([rest] if rest else [])
    names = [f"{name}_flat" for name in binary] + (["binary_rest"] if rest else [])
    # What int8 makes of the one size that a channel's weights have, with few exceptions.
    steps = max(int(abs(weights.astype(np.int16)).max()) for weights in binary.values())
    every = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).astype(np.int8)
    constants: dict[str, NDArray[Any]] = {
        "binary_packed": np.packbits(bits),
        "binary_table": (2 * steps * every.astype(np.int16) - steps).astype(np.int8),
        "binary_line": np.array([-1], dtype=np.int64),
        "binary_sizes": np.array(sizes, dtype=np.int64),
        **{f"{name}_shape": np.array(weights.shape, dtype=np.int64) for name, weights in binary.items()},
    }
    nodes = [
        helper.make_node("Cast", ["binary_packed"], ["binary_bytes"], to=onnx.TensorProto.INT32),
        helper.make_node("Gather", ["binary_table", "binary_bytes"], ["binary_rows"], axis=0),
        helper.make_node("Reshape", ["binary_rows", "binary_line"], ["binary_all"]),
        helper.make_node("Split", ["binary_all", "binary_sizes"], names, axis=0),
    ]
    for name, weights in binary.items():
        sizes_of_channels = abs(weights.astype(np.int32)).max((1, 2, 3), keepdims=True)
        nodes += _unpacked(name, sizes_of_channels, steps, constants)
    kept = [*nodes, *graph.node]
    del graph.node[:]
    graph.node.extend(kept)
    for tensor in [tensor for tensor in graph.initializer if tensor.name in binary]:
        graph.initializer.remove(tensor)
    graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    return model
