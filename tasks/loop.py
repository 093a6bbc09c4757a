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
from torch.nn.functional import cross_entropy
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from tasks import optimisation
from tasks.augmentation import augment, mix
from tasks.config import TrainSettings
from tasks.dataset import Images, scaled, standardised
from tasks.errors import InputError
from tasks.progress import Progress, State
from tasks.records import Dataset

EVALUATION_BATCH: Final = 512


class Epoch(NamedTuple):
    """What one pass over the training images came to; the loss is the mean that was minimised, in nats."""

    number: int  # from 1
    train_loss: float
    validation_accuracy: float
    validation_loss: float  # cross-entropy in nats, whatever was minimised
    learning_rate: float
    images_per_second: float
    seconds: float  # of all epochs up to this one

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


class Training:
    """A network on its way, with all that a pass over the images changes.

    It is trained in place; on the CPU the same seed gives the same weights. Raises InputError when fewer than
    two images are given or the loss stops being a number.
    """

    def __init__(
        self,
        network: nn.Module,
        train: Images,
        validation: Images,
        *,
        dataset: Dataset,
        settings: TrainSettings,
        seed: int,
    ) -> None:
        if len(train.labels) < 2:
            raise InputError(
                f"training needs at least 2 images, got {len(train.labels)}; add images to the source"
            )
        device = find_device()
        self.network, self.dataset, self.settings = network.to(device), dataset, settings
        self.train, self.validation = train.to(device), validation.to(device)
        self.counts = torch.bincount(self.train.labels, minlength=len(dataset.classes))
        self.loss_of = optimisation.loss_of(settings, self.counts)
        self.steps = math.ceil(len(train.labels) / settings.batch_size)
        self.course = optimisation.Course(network, settings, self.steps)
        self.result = Result(network, settings)
        self.generator = torch.Generator(device).manual_seed(seed)
        self.epochs: list[Epoch] = []

    def run(self, progress: Progress | None = None) -> Iterator[Epoch]:
        """Train to the end and yield each epoch.

        With `progress` the state is kept after epochs, and a training that was broken off goes on after the
        last one that was kept; what came before is yielded again first.
        """
        if progress and (state := progress.load()):
            self.restore(state)
            print(f"going on after epoch {len(self.epochs)} of {self.settings.epochs}", flush=True)
            yield from self.epochs
        while self.goes_on:
            epoch = self.advance()
            if progress and progress.is_due:
                progress.save(self.state())
            yield epoch
        self.result.settle()

    @property
    def goes_on(self) -> bool:
        return len(self.epochs) < self.settings.epochs and self.result.may_improve

    def advance(self) -> Epoch:
        """One pass over the training images and a look at the validation images."""
        begun, rate, number = time.perf_counter(), self.course.rate, len(self.epochs) + 1
        # Dropout draws from torch's own state, which follows the generator too.
        torch.manual_seed(
            int(torch.randint(2**31, (), generator=self.generator, device=self.generator.device))
        )
        self.network.train()
        batches = list(_batches(self.train.labels, self.counts, self.steps, self.settings, self.generator))
        losses = torch.stack([self._step(rows) for rows in batches])
        if not losses.isfinite().all():
            self._stop(number, rate, batches, losses)
        sizes = torch.tensor([len(rows) for rows in batches], device=losses.device)
        mean = float((losses * sizes).sum()) / len(self.train.labels)
        speed = len(self.train.labels) / (time.perf_counter() - begun)
        reached, loss = score(self.result.network, self.validation, self.dataset)
        self.course.finish_epoch(reached)
        self.result.judge(reached)
        seconds = time.perf_counter() - begun + (self.epochs[-1].seconds if self.epochs else 0)
        self.epochs.append(Epoch(number, mean, reached, loss, rate, speed, seconds))
        return self.epochs[-1]

    def _step(self, rows: Tensor) -> Tensor:
        """Learn from one batch, whole or in pieces; its mean loss."""
        settings, total = self.settings, torch.zeros((), device=rows.device)
        self.course.clear()
        for piece in rows.tensor_split(max(1, min(settings.accumulation, len(rows) // 2))):
            pixels = augment(self.train.images[piece], settings, self.dataset.image_size, self.generator)
            labels = self.train.labels[piece]
            pixels, wanted = mix(pixels, labels, len(self.counts), settings, self.generator)
            logits = _logits(self.network, standardised(pixels, self.dataset))
            loss = self.loss_of(logits, wanted) * (len(piece) / len(rows))
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        self.course.step()
        self.result.follow()
        return total

    def _stop(self, number: int, rate: float, batches: list[Tensor], losses: Tensor) -> None:
        first = int((~losses.isfinite()).nonzero()[0])
        ids = [bytes(row.tolist()).hex()[:12] for row in self.train.ids[batches[first]][:3].cpu()]
        raise InputError(
            f"the training loss became {float(losses[first])} in epoch {number}, batch {first + 1} (images "
            f"{', '.join(ids)}, …) at learning rate {rate:.3g}; lower train.learning_rate "
            f"({self.settings.learning_rate:g})"
        )

    def state(self) -> State:
        """All that is needed to go on as if nothing had happened."""
        return {
            "network": self.network.state_dict(),
            "course": self.course.state(),
            "result": self.result.state(),
            "generator": self.generator.get_state(),
            "epochs": [tuple(epoch) for epoch in self.epochs],
        }

    def restore(self, state: State) -> None:
        self.network.load_state_dict(state["network"])
        self.course.restore(state["course"])
        self.result.restore(state["result"])
        self.generator.set_state(state["generator"])
        self.epochs = [Epoch(*epoch) for epoch in state["epochs"]]


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

    def judge(self, accuracy: float) -> None:
        """Remember the weights of an epoch that is the best so far."""
        self._since += 1
        if self._patience and accuracy > self._best:
            self._best, self._since = accuracy, 0
            self._kept = {name: tensor.clone() for name, tensor in self.network.state_dict().items()}

    @property
    def may_improve(self) -> bool:
        return not self._patience or self._since < self._patience

    def state(self) -> State:
        average = self._average.state_dict() if self._average else {}
        return {"average": average, "kept": self._kept, "best": self._best, "since": self._since}

    def restore(self, state: State) -> None:
        if self._average is not None:
            self._average.load_state_dict(state["average"])
        self._kept, self._best, self._since = state["kept"], state["best"], state["since"]

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
def score(network: nn.Module, images: Images, dataset: Dataset) -> tuple[float, float]:
    """Share of images, 0 to 1, whose likeliest class is their label, and the mean cross-entropy in nats.

    An image counts 100 nats at most, so that the mean is a number. The network stays in evaluation mode.
    """
    network.eval()
    right = torch.zeros((), dtype=torch.int64, device=images.labels.device)
    loss = torch.zeros((), device=images.labels.device)
    for pixels, labels in zip(
        torch.split(images.images, EVALUATION_BATCH),
        torch.split(images.labels, EVALUATION_BATCH),
        strict=True,
    ):
        logits = _logits(network, standardised(scaled(pixels), dataset))
        right += (logits.argmax(1) == labels).sum()
        loss += cross_entropy(logits, labels, reduction="none").nan_to_num(nan=100.0).clamp(max=100).sum()
    return int(right) / len(images.labels), float(loss) / len(images.labels)


def _logits(network: nn.Module, pixels: Tensor) -> Tensor:
    with _precision(pixels):
        logits: Tensor = network(pixels)
    return logits.float()


def _precision(pixels: Tensor) -> torch.autocast:
    return torch.autocast(pixels.device.type, torch.bfloat16, enabled=computes_in_bf16(pixels.device))
