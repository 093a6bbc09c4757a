"""Recipe `fp32`: the float network as it was trained, the reference for all others."""

import onnx

from tasks.config import QuantizeSettings
from tasks.export import export
from tasks.recipes import Details, Trained


def make(trained: Trained, settings: QuantizeSettings) -> tuple[onnx.ModelProto, Details]:
    return export(trained.network, trained.dataset), {}
