"""The training loop, top to bottom; what it follows is in `optimisation`.

The device is found, not configured. The data stay on it as bytes; a batch is cut by index, augmented and
standardised there. Unless `patience` is set, the weights after the last epoch are the result: schedules end
at a learning rate near zero, where epochs hardly differ, and picking the luckiest of many on a small
validation split would spoil that split for choosing among candidates.
"""

import math
import time
from collections.abc import Iterator
from typing import Final, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from tasks import optimisation
from tasks.augmentation import augment, mix
from tasks.config import TrainSettings
from tasks.dataset import Images, scaled, standardised
from tasks.errors import InputError
from tasks.records import Dataset

EVALUATION_BATCH: Final = 512


class Epoch(NamedTuple):
    """What one pass over the training images came to; the loss is the mean that was minimised, in nats."""

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
    counts = torch.bincount(train.labels, minlength=len(dataset.classes))
    loss_of = optimisation.loss_of(settings, counts)
    steps = math.ceil(len(train.labels) / settings.batch_size)
    course = optimisation.Course(network, settings, steps)
    result = Result(network, settings)
    generator = torch.Generator(device).manual_seed(seed)
    for number in range(1, settings.epochs + 1):
        begun, rate = time.perf_counter(), course.rate
        total = torch.zeros((), device=device)
        network.train()
        for rows in _batches(train.labels, counts, steps, settings, generator):
            course.clear()
            for piece in rows.tensor_split(max(1, min(settings.accumulation, len(rows) // 2))):
                pixels = augment(train.images[piece], settings, dataset.image_size, generator)
                pixels, wanted = mix(pixels, train.labels[piece], len(counts), settings, generator)
                logits = _logits(network, standardised(pixels, dataset))
                loss = loss_of(logits, wanted) * (len(piece) / len(rows))
                loss.backward()  # type: ignore[no-untyped-call]
                total += loss.detach() * len(rows)
            course.step()
            result.follow()
        mean = float(total) / len(train.labels)
        if not math.isfinite(mean):
            raise InputError(
                f"the training loss became {mean} in epoch {number} at learning rate {rate:.3g}; "
                f"lower train.learning_rate ({settings.learning_rate:g})"
            )
        speed = len(train.labels) / (time.perf_counter() - begun)
        reached = accuracy(result.network, validation, dataset)
        course.finish_epoch(reached)
        going_on = result.judge(reached)
        yield Epoch(number, mean, reached, rate, speed)
        if not going_on:
            break
    result.settle()


class Result:
    """Which weights come out: the last, their moving average, or with patience those of the best epoch."""

    def __init__(self, network: nn.Module, settings: TrainSettings) -> None:
        self._trained, self._patience = network, settings.patience
        self._average: AveragedModel | None = None
        if settings.ema:
            average = get_ema_multi_avg_fn(settings.ema)  # type: ignore[no-untyped-call]
            self._average = AveragedModel(network, multi_avg_fn=average, use_buffers=True)
        self._best, self._since = -1.0, 0
        self._kept: dict[str, Tensor] = {}

    @property
    def network(self) -> nn.Module:
        """What is judged on the validation images."""
        return self._trained if self._average is None else self._average.module

    def follow(self) -> None:
        """Take a step of the optimizer into the average."""
        if self._average is not None:
            self._average.update_parameters(self._trained)

    def judge(self, accuracy: float) -> bool:
        """Whether to go on after an epoch that reached this accuracy."""
        self._since += 1
        if self._patience and accuracy > self._best:
            self._best, self._since = accuracy, 0
            self._kept = {name: tensor.clone() for name, tensor in self.network.state_dict().items()}
        return not self._patience or self._since < self._patience

    def settle(self) -> None:
        """Put the resulting weights into the trained network."""
        self._trained.load_state_dict(self._kept or self.network.state_dict())


def _batches(
    labels: Tensor, counts: Tensor, steps: int, settings: TrainSettings, generator: torch.Generator
) -> Iterator[Tensor]:
    """Rows of the batches of an epoch, in equal chunks, none dropped: one image would break batch norm."""
    if settings.imbalance == "sampling":
        shares = 1 / counts[labels].double()
        rows = torch.multinomial(shares, len(labels), replacement=True, generator=generator)
    else:
        rows = torch.randperm(len(labels), generator=generator, device=labels.device)
    yield from rows.tensor_split(steps)


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


def _logits(network: nn.Module, pixels: Tensor) -> Tensor:
    with _precision(pixels):
        logits: Tensor = network(pixels)
    return logits.float()


def _precision(pixels: Tensor) -> torch.autocast:
    return torch.autocast(pixels.device.type, torch.bfloat16, enabled=computes_in_bf16(pixels.device))
