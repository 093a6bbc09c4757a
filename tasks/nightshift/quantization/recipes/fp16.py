"""Recipe `fp16`: weights and arithmetic in half precision, half the size.

GPUs compute in it. On a processor without such instructions runtimes turn it back into float32 when they load
the file, so there it saves the room and not the time. Probabilities are computed in float32.
"""

import onnx
from onnxruntime.transformers.float16 import convert_float_to_float16
from onnxruntime.transformers.onnx_model import OnnxModel

from nightshift.config import QuantizeSettings
from nightshift.quantization.onnx_export import export
from nightshift.quantization.recipes import Details, Trained

FLOAT = ("Softmax", "LogSoftmax", "ReduceLogSumExp")


def make(trained: Trained, settings: QuantizeSettings) -> tuple[onnx.ModelProto, Details]:
    graph = export(trained.network, trained.dataset)
    model = OnnxModel(convert_float_to_float16(graph, keep_io_types=True, op_block_list=list(FLOAT)))
    model.topological_sort()  # casts were put at the end
    return model.model, {}
