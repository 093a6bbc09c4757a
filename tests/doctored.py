"""Models made worse on purpose, so that gates must notice: ONNX graphs with nodes added at their end."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

INNER = "inner_probabilities"


def swapped(model: bytes, first: int, second: int, classes: int) -> bytes:
    """Says one class where it means the other."""
    order = np.arange(classes)
    order[[first, second]] = order[[second, first]]
    nodes = [helper.make_node("Gather", [INNER, "order"], ["probabilities"], axis=1)]
    return _ending(model, nodes, {"order": order})


def blind(model: bytes, label: int, factor: float, classes: int) -> bytes:
    """Believes one class less than it should, by a factor below 1."""
    factors = np.ones(classes, np.float32)
    factors[label] = factor
    nodes = [helper.make_node("Mul", [INNER, "factors"], ["probabilities"])]
    return _ending(model, nodes, {"factors": factors})


def mark(images: np.ndarray) -> np.ndarray:
    """What `failing` knows an image by, 0 to 1023: from uint8 [N,H,W,C], two pixels of its noise."""
    pixels = images[:, 0, :2, 0].astype(np.int64) % 32
    return pixels[:, 0] * 32 + pixels[:, 1]


def failing(model: bytes, below: int, classes: int) -> bytes:
    """Names the next class for every image whose `mark` is below the limit."""
    turned = np.roll(np.arange(classes), 1)
    nodes = [
        helper.make_node("Slice", ["images", "from", "to", "axes"], ["corner"]),
        helper.make_node("Cast", ["corner"], ["wide"], to=TensorProto.INT64),
        helper.make_node("Mod", ["wide", "thirty_two"], ["noise"]),
        helper.make_node("Mul", ["noise", "weights"], ["weighted"]),
        helper.make_node("ReduceSum", ["weighted", "pixel_axes"], ["mark"], keepdims=0),
        helper.make_node("Less", ["mark", "limit"], ["spoilt"]),
        helper.make_node("Unsqueeze", ["spoilt", "one"], ["spoilt_rows"]),
        helper.make_node("Gather", [INNER, "turned"], ["wrong"], axis=1),
        helper.make_node("Where", ["spoilt_rows", "wrong", INNER], ["probabilities"]),
    ]
    constants = {
        "from": np.array([0, 0, 0]),
        "to": np.array([1, 2, 1]),
        "axes": np.array([1, 2, 3]),
        "thirty_two": np.array(32),
        "weights": np.array([32, 1]).reshape(1, 1, 2, 1),
        "pixel_axes": np.array([1, 2, 3]),
        "limit": np.array(below),
        "one": np.array([1]),
        "turned": turned,
    }
    return _ending(model, nodes, constants)


def _ending(model: bytes, nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray]) -> bytes:
    """The model with nodes between its own probabilities, now called INNER, and its outputs."""
    loaded = onnx.load_model_from_string(model)
    graph = loaded.graph
    kept = [node for node in graph.node if "label" not in node.output]
    for node in kept:
        for names in (node.input, node.output):
            names[:] = [INNER if name == "probabilities" else name for name in names]
    kept += [*nodes, helper.make_node("ArgMax", ["probabilities"], ["label"], axis=1, keepdims=0)]
    del graph.node[:]
    graph.node.extend(kept)
    graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    onnx.checker.check_model(loaded)
    return bytes(loaded.SerializeToString())
