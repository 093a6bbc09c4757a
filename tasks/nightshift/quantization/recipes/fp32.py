"""Recipe `fp32`: the float network as it was trained, the reference for all others."""

import onnx

from nightshift.config import QuantizeSettings
from nightshift.quantization.onnx_export import export
from nightshift.quantization.recipes import Details, Trained


def make(trained: Trained, settings: QuantizeSettings) -> tuple[onnx.ModelProto, Details]:
    return export(trained.network, trained.dataset), {}
