"""Recipe `int8`: static quantization, weights per channel, ranges measured on training images.

The file holds QuantizeLinear/DequantizeLinear pairs (QDQ), which ONNX Runtime and OpenVINO both turn into
integer kernels. Activations are unsigned: OpenVINO refuses signed ones, and ONNX Runtime runs them slower
than float. Weights use all 8 bits, which presumes VNNI or AMX on x86 (or any Arm); without them 16-bit sums
can saturate.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)

from tasks.config import QuantizeSettings
from tasks.dataset import stratified
from tasks.errors import InputError
from tasks.export import INPUT, export, finish
from tasks.recipes import Details, Trained

COUNTED: Final = ("Conv", "Gemm")
QUANTIZED: Final = (*COUNTED, "Add")  # a residual sum in float would undo the gain around it
BATCH: Final = 64


def make(trained: Trained, settings: QuantizeSettings) -> tuple[bytes, Details]:
    """Raises InputError when not one convolution or matrix product could be quantized."""
    chosen = stratified(trained.images.labels, settings.calibration_images, trained.seed)
    images = trained.images.images[chosen].numpy()
    graph = _quantized(export(trained.network, trained.dataset), images)
    count = _quantized_nodes(graph)
    if count == 0:
        raise InputError(
            f"recipe int8 quantized none of the {len(graph.graph.node)} nodes of the network; "
            f"it needs nodes of type {' or '.join(COUNTED)}: leave int8 out of quantize.recipes"
        )
    details: Details = {"quantized_nodes": count, "calibration_images": len(images), "calibration": "min-max"}
    return finish(graph, trained.dataset, "int8"), details


class Batches(CalibrationDataReader):  # type: ignore[misc]
    """Calibration images for ONNX Runtime, a batch at a time."""

    def __init__(self, images: NDArray[np.uint8]) -> None:
        self._batches: Iterator[NDArray[np.uint8]] = (
            images[start : start + BATCH] for start in range(0, len(images), BATCH)
        )

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        batch = next(self._batches, None)
        return None if batch is None else {INPUT: batch}


def _quantized(graph: onnx.ModelProto, images: NDArray[np.uint8]) -> onnx.ModelProto:
    # The exporter has folded batch norm and inferred all shapes, which is what ONNX Runtime would warn about.
    onnx.helper.set_model_props(graph, {"onnx.quant.pre_process": "onnxruntime.quant"})
    with tempfile.TemporaryDirectory(prefix="nightshift-int8-") as folder:
        target = Path(folder, "int8.onnx")
        quantize_static(
            graph,
            target,
            Batches(images),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(QUANTIZED),
            nodes_to_exclude=_prefix(graph),
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            calibrate_method=CalibrationMethod.MinMax,
        )
        return onnx.load(target)


def _prefix(graph: onnx.ModelProto) -> list[str]:
    """Everything up to the first convolution, which normalises the bytes and so needs more than 8 bits."""
    kinds = [node.op_type for node in graph.graph.node]
    return [node.name for node in graph.graph.node[: kinds.index("Conv") + 1]] if "Conv" in kinds else []


def _quantized_nodes(graph: onnx.ModelProto) -> int:
    """Convolutions and matrix products that read dequantized values."""
    dequantized = {node.output[0] for node in graph.graph.node if node.op_type == "DequantizeLinear"}
    return sum(node.op_type in COUNTED and node.input[0] in dequantized for node in graph.graph.node)
