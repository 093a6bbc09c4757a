"""The features that a model decides on, as a further output of its file.

A registered file gives `probabilities` and `label`, and its digest is what was judged; so the output is added
to a copy in memory, and no file has to be exported for it.
"""

from collections.abc import Iterator
from typing import Final

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper

from nightshift.errors import InputError
from nightshift.hardware.processor import threads
from nightshift.inference.prediction_table import EMBEDDING
from nightshift.inference.runtime import EXACT, Pixels, Runtime

LINEAR: Final = ("Gemm", "MatMul")
DECIDED: Final = "probabilities"


def with_embedding(model: bytes, name: str) -> bytes:
    """A copy of an ONNX file with the output `embedding`, float32 [N,D]: what its last linear layer is given.

    Of networks that vote, the features of all stand one after the other. `name` is what errors call the
    file. Raises InputError when there is no such layer.
    """
    graph = onnx.load_model_from_string(model)
    features = list(dict.fromkeys(_features(graph.graph)))
    if not features:
        raise InputError(f"model {name} has no linear layer at its end, so it has no embedding to give")
    casts = []
    for number, feature in enumerate(features):
        casts.append(helper.make_node("Cast", [feature], [f"_feature{number}"], to=TensorProto.FLOAT))
    joined = helper.make_node("Concat", [node.output[0] for node in casts], [EMBEDDING], axis=1)
    graph.graph.node.extend([*casts, joined])
    graph.graph.output.append(helper.make_tensor_value_info(EMBEDDING, TensorProto.FLOAT, ["N", "D"]))
    return bytes(graph.SerializeToString())


def _features(graph: onnx.GraphProto) -> Iterator[str]:
    """What goes into the linear layers that the probabilities are made of, the first on each way back."""
    makers = {output: node for node in graph.node for output in node.output}
    constants = {tensor.name for tensor in graph.initializer}
    todo, seen = [DECIDED], set[str]()
    while todo:
        node = makers.get(todo.pop())
        if node is None or node.output[0] in seen:
            continue
        seen.add(node.output[0])
        if node.op_type in LINEAR and node.input[0] not in constants:
            yield node.input[0]
        else:
            todo += reversed(node.input)


class Embedder:
    """Predicts and embeds in ONNX Runtime on the CPU, from a model's bytes.

    `runtime` is onnxruntime, or onnxruntime-exact where its kernels may saturate: see ModelFile.runtime.
    """

    def __init__(self, model: bytes, name: str, runtime: Runtime = "onnxruntime") -> None:
        options = onnxruntime.SessionOptions()
        if runtime == EXACT:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.intra_op_num_threads = threads()
        options.log_severity_level = 3
        copy = with_embedding(model, name)
        self._session = onnxruntime.InferenceSession(copy, options, providers=["CPUExecutionProvider"])

    def embed(self, images: Pixels) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.float32]]:
        """Probabilities float32 [N,K], labels int64 [N] and embeddings float32 [N,D] of uint8 [N,H,W,C]."""
        probabilities, labels, features = self._session.run([DECIDED, "label", EMBEDDING], {"images": images})
        # A network that also sees the mirrored images has them after the others.
        return probabilities, labels, features.reshape(-1, *labels.shape, features.shape[1]).mean(0)
