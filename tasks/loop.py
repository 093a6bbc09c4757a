"""The training loop. Everything that decides how a network learns is in this file, top to bottom.

The device is found, not configured. The data stay on it as bytes; a batch is cut by index, augmented and
standardised there. The weights after the last epoch are the result: the one-cycle schedule ends at a learning
rate near zero, where epochs hardly differ, and picking the luckiest of many on a small validation split would
spoil that split for choosing among candidates.
"""

import math
import time
from collections.abc import Iterator
from typing import Final, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.lr_scheduler import OneCycleLR

from tasks.config import TrainSettings
from tasks.dataset import Images, augment, scaled, standardised
from tasks.errors import InputError
from tasks.records import Dataset

EVALUATION_BATCH: Final = 512


class Epoch(NamedTuple):
    """What one pass over the training images came to; the loss is the mean cross entropy in nats."""

    number: int  # from 1
    train_loss: float
    validation_accuracy: float
    learning_rate: float
    images_per_second: float

    def metrics(self) -> dict[str, float]:
        return {key: float(value) for key, value in self._asdict().items() if key != "number"}


def find_device() -> torch.device:
    """The accelerator that torch finds, or the CPU."""
    return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")


def computes_in_bf16(device: torch.device) -> bool:
    """Whether the hardware trains faster in bfloat16 than in float32: tensor cores, or AMX tiles on a CPU.

    AVX-512 BF16 alone does not count: without AMX it trained ResNet-18 at 17 instead of 26 images/s.
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    features = torch.cpu.get_capabilities() if device.type == "cpu" else {}
    return bool(features.get("amx_bf16"))


def fit(
    network: nn.Module,
    train: Images,
    validation: Images,
    *,
    dataset: Dataset,
    settings: TrainSettings,
    seed: int,
) -> Iterator[Epoch]:
    """Train `network` in place and yield each epoch; on the CPU the same seed gives the same weights.

    Raises InputError when fewer than two images are given or the loss stops being a number.
    """
    if len(train.labels) < 2:
        raise InputError(
            f"training needs at least 2 images, got {len(train.labels)}; add images to the source"
        )
    device = find_device()
    network.to(device)
    train, validation = train.to(device), validation.to(device)
    optimizer = _optimizer(network, settings)
    steps = math.ceil(len(train.labels) / settings.batch_size)
    schedule = OneCycleLR(optimizer, settings.learning_rate, settings.epochs * steps, pct_start=0.25)
    generator = torch.Generator(device).manual_seed(seed)
    for number in range(1, settings.epochs + 1):
        begun, rate = time.perf_counter(), float(schedule.get_last_lr()[0])
        total = torch.zeros((), device=device)
        network.train()
        # Chunks of equal size, none dropped: a last batch of one image would break batch norm.
        for rows in torch.randperm(len(train.labels), generator=generator, device=device).tensor_split(steps):
            pixels = augment(train.images[rows], settings, dataset.image_size, generator)
            loss = _loss(network, standardised(pixels, dataset), train.labels[rows], settings)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            total += loss.detach() * len(rows)
        mean = float(total) / len(train.labels)
        if not math.isfinite(mean):
            raise InputError(
                f"the training loss became {mean} in epoch {number} at learning rate {rate:.3g}; "
                f"lower train.learning_rate ({settings.learning_rate:g})"
            )
        speed = len(train.labels) / (time.perf_counter() - begun)
        yield Epoch(number, mean, accuracy(network, validation, dataset), rate, speed)


@torch.inference_mode()
def accuracy(network: nn.Module, images: Images, dataset: Dataset) -> float:
    """Share of images, 0 to 1, whose likeliest class is their label; the network stays in evaluation mode."""
    network.eval()
    right = torch.zeros((), dtype=torch.int64, device=images.labels.device)
    for pixels, labels in zip(
        torch.split(images.images, EVALUATION_BATCH),
        torch.split(images.labels, EVALUATION_BATCH),
        strict=True,
    ):
        with _precision(pixels):
            logits = network(standardised(scaled(pixels), dataset))
        right += (logits.argmax(1) == labels).sum()
    return int(right) / len(images.labels)


def _loss(network: nn.Module, pixels: Tensor, labels: Tensor, settings: TrainSettings) -> Tensor:
    with _precision(pixels):
        logits = network(pixels)
    return functional.cross_entropy(logits.float(), labels, label_smoothing=settings.label_smoothing)


def _precision(pixels: Tensor) -> torch.autocast:
    return torch.autocast(pixels.device.type, torch.bfloat16, enabled=computes_in_bf16(pixels.device))


def _optimizer(network: nn.Module, settings: TrainSettings) -> torch.optim.Optimizer:
    """SGD with Nesterov momentum or AdamW; vectors (norms and biases) are not decayed."""
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=settings.learning_rate, fused=True)
    return torch.optim.SGD(groups, lr=settings.learning_rate, momentum=0.9, nesterov=True, fused=True)
