"""A file for the benches that time predictions: an untrained network takes the time of a trained one."""

import os
import tempfile
from pathlib import Path

import numpy as np
from quantize import CLASSES, EACH, LARGE, SETTINGS, dataset_of, network_of, photos_of

from nightshift.quantization import onnx_export, recipes
from nightshift.records import SPLITS

SIDE = 224


def int8_file(photos: str, into: str) -> Path:
    """A ResNet-18 in int8 at 224 pixels, calibrated on photos; with one class far ahead, runtimes agree."""
    before = os.environ.get("NIGHTSHIFT_STORE")
    with tempfile.TemporaryDirectory(prefix="nightshift-bench-", dir="/var/tmp") as folder:
        os.environ["NIGHTSHIFT_STORE"] = f"file://{folder}"
        images = np.resize(photos_of(photos, SIDE), (CLASSES * EACH, SIDE, SIDE, 3))
        dataset = dataset_of(folder, dict.fromkeys(SPLITS, images), SIDE)
        settings = LARGE["resnet18"].model_copy(update={"compile": "no"})
        network = network_of(settings, dataset)
        network.fc.bias.data[0] += 100
        trained = recipes.Trained(network, dataset, settings, f"file://{folder}/int8")
        graph, _ = recipes.find("int8").make(trained, SETTINGS)
        file = Path(into, "resnet18 int8.onnx")
        file.write_bytes(onnx_export.finish(graph, dataset, "int8"))
    if before is None:
        del os.environ["NIGHTSHIFT_STORE"]
    else:
        os.environ["NIGHTSHIFT_STORE"] = before
    return file
