"""Recipe `int8-accuracy`: int8 as far as accuracy allows; layers that hurt most stay in float.

Where `int8` keeps the budget of validation accuracy, its graph is taken. Otherwise NNCF quantizes the
network, ranks its layers by what each costs, and puts one after the other back into float until the budget is
kept.
"""

import logging
import os
from collections.abc import Iterable
from typing import Final

import numpy as np
import onnx
from numpy.typing import NDArray

from nightshift.config import QuantizeSettings
from nightshift.data.dataset import Images, load_split
from nightshift.errors import InputError
from nightshift.hardware import processor
from nightshift.inference.onnx_stats import INPUT
from nightshift.inference.pair_sums import is_portable, pair_sums
from nightshift.inference.runtime import EXACT, Session
from nightshift.quantization.calibration import calibration_images, images_digest
from nightshift.quantization.onnx_export import export
from nightshift.quantization.recipes import Details, Trained, int8

BATCH: Final = 64
Batch = tuple[NDArray[np.uint8], NDArray[np.int64]]  # images [B,H,W,C] and labels [B]


def make(trained: Trained, settings: QuantizeSettings) -> tuple[onnx.ModelProto, Details]:
    """Raises InputError when NNCF is needed and cannot take the graph."""
    validation = _batches(load_split(trained.dataset, "validation"))
    graph = export(trained.network, trained.dataset)
    quantized, details = int8.quantized(graph, trained, settings)
    lost = _accuracy(graph, validation)[0] - _accuracy(quantized, validation)[0]
    if lost <= settings.accuracy_budget:
        return quantized, details
    print(f"int8 loses {100 * lost:.2f} points of validation accuracy; NNCF looks for the layers", flush=True)
    return _restored(graph, trained, settings, validation)


def _accuracy(model: onnx.ModelProto, batches: Iterable[Batch]) -> tuple[float, list[float]]:
    """Share of right labels, 0 to 1, of all images and of each batch, where no sum saturates."""
    right_here = processor.has_dot_products() or is_portable(pair_sums(model))
    session = Session(model.SerializeToString(), "onnxruntime" if right_here else EXACT)
    right = [session.predict(pixels)[1] == labels for pixels, labels in batches]
    return float(np.concatenate(right).mean()), [float(batch.mean()) for batch in right]


def _restored(
    graph: onnx.ModelProto, trained: Trained, settings: QuantizeSettings, validation: list[Batch]
) -> tuple[onnx.ModelProto, Details]:
    """The graph quantized by NNCF, with as many layers back in float as the budget takes."""
    os.environ["NNCF_CI"] = "1"  # otherwise it reports its use over the network
    import nncf  # takes seconds
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet

    nncf.set_log_level(logging.WARNING)
    images = calibration_images(trained.dataset, settings.calibration_images, trained.settings.seed)
    batches = _batches(images)
    try:
        quantized = nncf.quantize_with_accuracy_control(
            graph,
            nncf.Dataset(batches, lambda batch: {INPUT: batch[0]}),
            nncf.Dataset(validation, lambda batch: {INPUT: batch[0]}),
            _accuracy,
            max_drop=settings.accuracy_budget,
            preset=nncf.QuantizationPreset.MIXED,  # activations unsigned
            target_device=nncf.TargetDevice.CPU,
            subset_size=len(batches),
            ignored_scope=nncf.IgnoredScope(names=int8.kept_in_float(graph, settings)),
            advanced_quantization_parameters=nncf.AdvancedQuantizationParameters(
                overflow_fix=nncf.OverflowFix.ENABLE if settings.portable else nncf.OverflowFix.DISABLE,
                activations_range_estimator_params=RangeEstimatorParametersSet.MINMAX,
            ),
        )
    except Exception as error:  # nncf's own errors have no kind in common
        reason = " ".join(str(error).split())[:300]
        raise InputError(f"NNCF cannot quantize the network ({reason}); use recipe int8 instead") from error
    return quantized, {
        "calibration_images": len(images.labels),
        "calibration_digest": images_digest(images),
    }


def _batches(images: Images) -> list[Batch]:
    return [(batch.images.numpy(), batch.labels.numpy()) for batch in images.batches(BATCH)]
