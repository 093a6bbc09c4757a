"""What the machine is that times are measured on, without asking a heavy library."""

import importlib.metadata

import onnxruntime

from nightshift.hardware import processor
from nightshift.inference import runtime
from nightshift.records import Machine


def describe() -> Machine:
    """The machine of this process. On anything but Linux the features stay empty."""
    return Machine(
        processor=processor.name(),
        features=processor.features(),
        cores=processor.cores(),
        threads=processor.threads(),
        versions=_versions(),
    )


def _versions() -> dict[str, str]:
    # The wheel of ONNX Runtime has other names too, such as onnxruntime-gpu.
    found = {"onnxruntime": str(onnxruntime.__version__)}
    if "openvino" in runtime.installed():
        found["openvino"] = importlib.metadata.version("openvino")
    return found
