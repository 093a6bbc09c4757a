"""Recipe `fp32`: the float network as it was trained, the reference for all others."""

import onnx

from nightshift.config import QuantizeSettings
from nightshift.export import export
from nightshift.recipes import Details, Trained


def make(trained: Trained, settings: QuantizeSettings) -> tuple[onnx.ModelProto, Details]:
    return export(trained.network, trained.dataset), {}
