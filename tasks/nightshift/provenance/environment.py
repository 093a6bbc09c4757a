"""Under which conditions this process computes, as they are kept with what it makes."""

from importlib.metadata import PackageNotFoundError, version
from typing import Final

import torch

from nightshift.hardware import processor
from nightshift.models.device import find_device
from nightshift.provenance import source_code
from nightshift.records import Conditions

PACKAGES: Final = {  # by the names that their wheels may have
    "torch": ("torch",),
    "torchvision": ("torchvision",),
    "numpy": ("numpy",),
    "opencv": ("opencv-python-headless", "opencv-python", "opencv-contrib-python-headless"),
    "pillow": ("pillow",),
    "simplejpeg": ("simplejpeg",),
    "onnx": ("onnx",),
    "onnxscript": ("onnxscript",),
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu"),
    "nncf": ("nncf",),
}


def describe(precision: str, *, processes: int = 1, micro_batches: int = 1, group: int = 0) -> Conditions:
    """Those of this process; what only a training knows is given, see Conditions."""
    return Conditions(
        code=source_code.describe(),
        packages={name: _version(wheels) for name, wheels in PACKAGES.items()},
        processor=processor.name(),
        device=find_device().type,
        precision=precision,
        threads=torch.get_num_threads(),
        processes=processes,
        micro_batches=micro_batches,
        group=group,
    )


def _version(wheels: tuple[str, ...]) -> str:
    for wheel in wheels:
        try:
            return version(wheel)
        except PackageNotFoundError:
            continue
    return "not installed"
