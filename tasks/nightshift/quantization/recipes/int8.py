"""Recipe `int8`: static quantization, weights per channel, ranges measured on training images.

The file holds QuantizeLinear/DequantizeLinear pairs (QDQ), which ONNX Runtime and OpenVINO both turn into
integer kernels. Activations are unsigned: OpenVINO refuses signed ones, and ONNX Runtime runs them slower
than float. Weights take as many of 8 bits as every processor can add (see `nightshift.inference.pair_sums`),
or all of them where `quantize.portable` is off. Biases are 32-bit integers, in steps of what a product of the
two counts.
"""

import tempfile
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

from nightshift.config import QuantizeSettings
from nightshift.errors import InputError
from nightshift.inference.onnx_stats import Graph
from nightshift.inference.pair_sums import output_axis
from nightshift.quantization.calibration import METHODS, calibrated
from nightshift.quantization.fake_quant import weight_scales
from nightshift.quantization.onnx_export import export
from nightshift.quantization.recipes import Details, Trained

# A residual sum or a pooling in float would undo the gain around it, and a rectifier of its own would have
# values rounded twice: before it, on a scale that reaches down to what it cuts off, and after it.
QUANTIZED: Final = ("Conv", "Gemm", "Add", "Relu", "MaxPool")
LAYERS: Final = ("Conv", "Gemm")  # of these, the ones with weights


def make(trained: Trained, settings: QuantizeSettings) -> tuple[onnx.ModelProto, Details]:
    return quantized(export(trained.network, trained.dataset), trained, settings)


def quantized(
    graph: onnx.ModelProto, trained: Trained, settings: QuantizeSettings
) -> tuple[onnx.ModelProto, Details]:
    """The exported float graph of what was trained, in integers.

    Raises InputError when ONNX Runtime cannot take the graph.
    """
    with calibrated(graph, trained.dataset, settings, QUANTIZED, trained.settings.seed) as calibration:
        try:
            return _quantized(graph, calibration.ranges, settings), calibration.details
        except Exception as error:  # of many kinds, none of them public
            reason = " ".join(str(error).split())[:300]
            raise InputError(
                f"ONNX Runtime cannot quantize the network ({reason}); leave int8 out of quantize.recipes"
            ) from error


def kept_in_float(graph: onnx.ModelProto, settings: QuantizeSettings) -> list[str]:
    """Names of nodes that stay in float: the normalisation, and layers as the settings say."""
    parts = Graph(graph)
    kept = parts.prefix()
    if settings.float_layers in ("first", "both"):
        kept += parts.first_layers()
    if settings.float_layers in ("last", "both"):
        kept += parts.last_layers()
    return kept


def _quantized(graph: onnx.ModelProto, ranges: Path, settings: QuantizeSettings) -> onnx.ModelProto:
    # The exporter has folded batch norm and inferred all shapes, which is what ONNX Runtime would warn about.
    onnx.helper.set_model_props(graph, {"onnx.quant.pre_process": "onnxruntime.quant"})
    with tempfile.TemporaryDirectory(prefix="nightshift-int8-") as folder:
        target = Path(folder, "int8.onnx")
        quantize_static(
            graph,
            target,
            calibration_data_reader=None,
            calibration_cache_path=ranges,
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(QUANTIZED),
            nodes_to_exclude=kept_in_float(graph, settings),
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            calibrate_method=METHODS[settings.calibration],
            # Steps of the logits would be steps of the probabilities.
            extra_options={
                "OpTypesToExcludeOutputQuantization": ["Gemm"],
                "TensorQuantOverrides": _weight_overrides(graph, settings),
            },
        )
        return onnx.load(target)


def _weight_overrides(graph: onnx.ModelProto, settings: QuantizeSettings) -> dict[str, list[dict[str, Any]]]:
    """The scales of all layers' weights, in the form of `quantize_static`: one dict an output channel."""
    parts, overrides = Graph(graph), {}
    kept = set(kept_in_float(graph, settings))
    for node in graph.graph.node:
        if node.op_type in LAYERS and node.name not in kept and node.input[1] in parts.stored:
            axis = output_axis(node)
            weights = torch.from_numpy(numpy_helper.to_array(parts.stored[node.input[1]]).copy())
            scales = weight_scales(weights.movedim(axis, 0), portable=settings.portable).numpy()
            zero = np.int8(0)
            overrides[node.input[1]] = [{"scale": scale, "zero_point": zero} for scale in scales]
            overrides[node.input[1]][0]["axis"] = axis
    return overrides
