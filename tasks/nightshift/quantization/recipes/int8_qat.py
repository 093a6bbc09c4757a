"""Recipe `int8-qat`: a short training in which weights adapt to rounding, then the quantization of `int8`.

What is wanted is what the float network says of the same images (Hinton et al., "Distilling the knowledge in
a neural network", 2015): the labels alone would lead to another network, as good on average and not the same.
"""

from typing import Final

import onnx
import torch
from torch import nn
from torch.fx.experimental.optimization import fuse

from nightshift.config import QuantizeSettings
from nightshift.data.dataset import scaled, standardised
from nightshift.quantization.calibration import calibration_images
from nightshift.quantization.fake_quant import insert_fake_quant, remove_fake_quant
from nightshift.quantization.finetune import FineTune, fine_tuned
from nightshift.quantization.recipes import Details, Trained, int8

BATCH: Final = 64
RATE: Final = 1e-5  # low, since the network is good already and need only move by fractions of a step


def make(trained: Trained, settings: QuantizeSettings) -> tuple[onnx.ModelProto, Details]:
    dataset = trained.dataset
    images = calibration_images(dataset, settings.calibration_images, trained.settings.seed)
    pixels = [standardised(scaled(batch.images), dataset) for batch in images.batches(BATCH)]

    def adapt(network: nn.Module, go_on: FineTune) -> nn.Module:
        folded = fuse(network)
        go_on(insert_fake_quant(folded, pixels, portable=settings.portable), teacher=network)
        remove_fake_quant(folded)
        return folded

    network = fine_tuned(
        trained,
        adapt,
        precision=torch.float32,  # bfloat16 has no place for 256 steps
        epochs=settings.qat_epochs,
        optimizer="adamw",
        learning_rate=RATE,
        label_smoothing=0.0,
    )
    graph, details = int8.make(trained._replace(network=network), settings)
    return graph, details | {"epochs": settings.qat_epochs}
