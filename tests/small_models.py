"""ONNX files of a few bytes, for tests of what happens to models rather than of what they see."""

import json
from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from nightshift.records.model_facts import CLASSES, PREPROCESS

BRIGHTNESS = {
    "nightshift.classes": '["dark", "bright"]',
    "nightshift.preprocess": '{"image_size": 8, "resize": "stretch"}',
}


def onnx_model(seed: int, classes: Sequence[str] = ("cat", "dog")) -> bytes:
    """uint8 [N,4,4,3] -> probabilities [N,K] and label [N], weights from `seed`.

    Without classes the file says nothing of itself, and K is 2.
    """
    count = len(classes) or 2
    weights = np.random.default_rng(seed).normal(size=(48, count)).astype(np.float32)
    nodes = [
        helper.make_node("Cast", ["images"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["float"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["probabilities"]),
        helper.make_node("ArgMax", ["probabilities"], ["label"], axis=1, keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", 4, 4, 3])],
        [
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", count]),
            helper.make_tensor_value_info("label", TensorProto.INT64, ["N"]),
        ],
        [numpy_helper.from_array(weights, "weights")],
    )
    opset = [helper.make_opsetid("", 17)]
    made = helper.make_model(graph, opset_imports=opset, ir_version=8)
    if classes:
        facts = {CLASSES: json.dumps(list(classes)), PREPROCESS: '{"image_size": 8}'}
        helper.set_model_props(made, facts)
    return bytes(made.SerializeToString())


def brightness(facts: Mapping[str, str] = BRIGHTNESS, *, side: int = 8) -> bytes:
    """probabilities = softmax(128 - mean, mean - 128) of uint8 [N,side,side,3], in the order dark, bright."""
    nodes = [
        helper.make_node("Cast", ["images"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["float", "axes"], ["mean"], keepdims=0),
        helper.make_node("Sub", ["mean", "middle"], ["bright"]),
        helper.make_node("Neg", ["bright"], ["dark"]),
        helper.make_node("Unsqueeze", ["bright", "one"], ["bright_column"]),
        helper.make_node("Unsqueeze", ["dark", "one"], ["dark_column"]),
        helper.make_node("Concat", ["dark_column", "bright_column"], ["scores"], axis=1),
        helper.make_node("Softmax", ["scores"], ["probabilities"], axis=1),
        helper.make_node("ArgMax", ["probabilities"], ["label"], axis=1, keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "brightness",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", side, side, 3])],
        [
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", 2]),
            helper.make_tensor_value_info("label", TensorProto.INT64, ["N"]),
        ],
        [
            helper.make_tensor("axes", TensorProto.INT64, [3], [1, 2, 3]),
            helper.make_tensor("middle", TensorProto.FLOAT, [], [128.0]),
            helper.make_tensor("one", TensorProto.INT64, [1], [1]),
        ],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    helper.set_model_props(made, dict(facts))
    onnx.checker.check_model(made)
    return bytes(made.SerializeToString())
