"""Training loop: epochs, steps, gradient accumulation over micro-batches.

`optim` has optimizers and schedules, `loader` the batches, `weight_selection` early stopping and EMA.

The device is found, not configured. Batches come as bytes and are augmented and standardised on it. Unless
`patience` is set, the weights after the last epoch are the result: schedules end at a learning rate near
zero, where epochs hardly differ, and picking the luckiest of many on a small validation split would spoil
that split for choosing among candidates.

What is random in a step follows from the seed and the step's place, so a training can go on from any step.
"""

import time
from collections.abc import Iterator
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from nightshift.config import TrainSettings
from nightshift.data.dataset import Images, scaled, standardised
from nightshift.errors import InputError
from nightshift.models import freezing
from nightshift.models.device import Precision, compiled, find_device, micro_batch_count, out_of_memory
from nightshift.records import Dataset
from nightshift.records.models import Epoch
from nightshift.training import optim
from nightshift.training.adversarial import adversarial_examples
from nightshift.training.augmentation import augment, mix, shrunk, side_in
from nightshift.training.checkpointing import State, TrainingCheckpoint
from nightshift.training.distributed import SINGLE_PROCESS, ProcessGroup
from nightshift.training.loader import Loader, class_counts, seed_at
from nightshift.training.weight_selection import WeightSelector

EVALUATION_BATCH: Final = 512


class Trainer:
    """A network on its way, with all that a pass over the images changes.

    It is trained in place; on the CPU the same seed gives the same weights. Raises InputError when the loss
    stops being a number or two images at a time are too many for the memory.
    """

    def __init__(
        self,
        network: nn.Module,
        loader: Loader,
        validation: Images,
        *,
        dataset: Dataset,
        settings: TrainSettings,
        seed: int,
        ranks: ProcessGroup = SINGLE_PROCESS,
    ) -> None:
        device = find_device()
        self.network, self.dataset, self.settings = network.to(device), dataset, settings
        self.loader, self.validation, self.seed, self.ranks = loader, validation, seed, ranks
        counts = class_counts(dataset).to(device)
        self.build_loss = optim.build_loss(settings, counts)
        self.optimizers = optim.Optimizers(network, settings, loader.steps)
        self.result = WeightSelector(network, settings)
        self.precision = Precision(device)
        self.compiled = compiled(network, settings, device, loader.steps * settings.epochs)
        self.trained = self.compiled  # in every epoch anew, for all processes
        self.teacher: nn.Module | None = None  # whose probabilities are targets instead of the labels
        self.generator = torch.Generator(device)
        self.micro_batches = settings.gradient_accumulation
        self.epochs: list[Epoch] = []
        self.losses: list[Tensor] = []  # of the steps of the present epoch
        self.rate = 0.0  # at its beginning

    def run(self, progress: TrainingCheckpoint | None = None) -> Iterator[Epoch]:
        """Train to the end and yield each epoch.

        With `progress` the state is kept after epochs and within long ones, and a training that was broken
        off goes on from the step where it was kept; the epochs before are yielded again first.
        """
        if progress and (state := progress.load()):
            self.restore(state)
            print(
                f"going on after epoch {len(self.epochs)} of {self.settings.epochs}, step {len(self.losses)}",
                flush=True,
            )
            yield from self.epochs
        while self.should_continue:
            epoch = self.train_epoch(progress)
            if progress and self.ranks.is_main and progress.is_due:
                progress.save(self.state())
            yield epoch
        self.result.apply()

    @property
    def should_continue(self) -> bool:
        return len(self.epochs) < self.settings.epochs and self.result.should_continue

    def train_epoch(self, progress: TrainingCheckpoint | None = None) -> Epoch:
        """One pass over the training images, or the rest of it, and a look at the validation images."""
        begun, number = time.perf_counter(), len(self.epochs) + 1
        first, seen = len(self.losses), 0
        self.rate = self.rate if first else self.optimizers.learning_rate
        freezing.begin_epoch(self.network, self.settings, number)
        self.trained = self.ranks.wrap(self.compiled)
        for batch in self.loader.batches(number, first):
            self.losses.append(self.train_step(batch, number))
            seen += len(batch.labels)
            if progress and self.ranks.is_main and progress.is_overdue:
                self._check(number)
                progress.save(self.state())
        self._check(number)
        mean = float(self.ranks.all_reduce(torch.stack(self.losses).mean())) / self.ranks.world_size
        speed = seen * self.ranks.world_size / (time.perf_counter() - begun)
        self.ranks.broadcast_buffers(self.result.network)
        reached, loss = score(
            self.result.network, self.validation, self.dataset, precision=self.precision, ranks=self.ranks
        )
        self.optimizers.finish_epoch(reached)
        self.result.observe_epoch(reached)
        self.losses.clear()
        seconds = time.perf_counter() - begun + (self.epochs[-1].seconds if self.epochs else 0)
        self.epochs.append(Epoch(number, mean, reached, loss, self.rate, speed, seconds))
        return self.epochs[-1]

    def train_step(self, batch: Images, epoch: int) -> Tensor:
        """Learn from one batch, in smaller micro-batches once memory has run out; its mean loss."""
        while True:
            try:
                return self._forward_backward(batch, epoch)
            except RuntimeError as error:
                if not out_of_memory(error) or self.ranks.world_size > 1:
                    raise
                if self.micro_batches * 4 > len(batch.labels):
                    raise InputError(
                        f"memory runs out at {len(batch.labels) // self.micro_batches} images at a time "
                        f"({error}); "
                        "take a smaller network or smaller images"
                    ) from error
            self.optimizers.zero_grad()
            torch.accelerator.empty_cache()
            self.micro_batches *= 2
            print(
                f"memory ran out; batches go through in {self.micro_batches} micro-batches from now on",
                flush=True,
            )

    def _forward_backward(self, batch: Images, epoch: int) -> Tensor:
        settings, total = self.settings, torch.zeros((), device=batch.labels.device)
        seed = seed_at(self.seed, epoch, len(self.losses), self.ranks.rank)
        self.generator.manual_seed(seed)
        torch.manual_seed(seed)  # which dropout draws from
        self.optimizers.zero_grad()
        micro_batches = batch.chunk(max(1, min(self._micro_batches(batch), len(batch.labels) // 2)))
        for micro_batch in micro_batches:
            pixels = augment(micro_batch.images, settings, self.dataset.image_size, self.generator)
            pixels = shrunk(pixels, side_in(epoch, settings, self.dataset.image_size))
            pixels, targets = mix(
                pixels, micro_batch.labels, len(self.dataset.classes), settings, self.generator
            )
            pixels = self._hardened(pixels, targets)
            seen = standardised(pixels, self.dataset)
            targets = targets if self.teacher is None else probabilities(self.teacher, seen)
            with self.ranks.no_sync(self.trained, micro_batch is not micro_batches[-1]):
                with self.precision.autocast():
                    logits = self.trained(seen)
                loss = self.build_loss(logits.float(), targets) * (
                    len(micro_batch.labels) / len(batch.labels)
                )
                self.precision.backward(loss)
            total += loss.detach()
        self.optimizers.step(self.precision)
        self.result.update_ema()
        return total

    def _hardened(self, pixels: Tensor, targets: Tensor) -> Tensor:
        return adversarial_examples(
            self.network,
            pixels,
            lambda logits: self.build_loss(logits, targets),
            self.dataset,
            self.settings,
            self.precision,
            self.generator,
        )

    def _micro_batches(self, batch: Images) -> int:
        """As set, or as few as memory allows, which is found out before the first step."""
        if not self.micro_batches:
            two = standardised(scaled(batch.images[:2]), self.dataset)
            with self.precision.autocast():
                self.micro_batches = micro_batch_count(self.network, two, len(batch.labels))
            if self.micro_batches > 1:
                print(
                    f"batches go through in {self.micro_batches} micro-batches, to fit into memory",
                    flush=True,
                )
        return self.micro_batches

    def _check(self, number: int) -> None:
        """Raises InputError where a loss of the present epoch is no number."""
        losses = torch.stack(self.losses)
        if losses.isfinite().all():
            return
        first = int((~losses.isfinite()).nonzero()[0])
        batch = next(iter(self.loader.batches(number, first)))
        ids = [bytes(row.tolist()).hex()[:12] for row in batch.ids[:3].cpu()]
        raise InputError(
            f"the training loss became {float(losses[first])} in epoch {number}, batch {first + 1} (images "
            f"{', '.join(ids)}, …) at learning rate {self.rate:.3g}; lower train.learning_rate "
            f"({self.settings.learning_rate:g})"
        )

    def state(self) -> State:
        """All that is needed to go on as if nothing had happened."""
        return {
            "network": self.network.state_dict(),
            "course": self.optimizers.state(),
            "result": self.result.state(),
            "precision": self.precision.state(),
            "micro_batches": self.micro_batches,
            "losses": self.losses,
            "rate": self.rate,
            "epochs": [tuple(epoch) for epoch in self.epochs],
        }

    def restore(self, state: State) -> None:
        device = self.generator.device
        self.network.load_state_dict(state["network"])
        self.optimizers.restore(state["course"])
        self.result.restore(state["result"])
        self.precision.restore(state["precision"])
        self.micro_batches, self.rate = state["micro_batches"], state["rate"]
        self.losses = [loss.to(device) for loss in state["losses"]]
        self.epochs = [Epoch(*epoch) for epoch in state["epochs"]]


@torch.no_grad()
def probabilities(network: nn.Module, pixels: Tensor) -> Tensor:
    """float32 [B,K] of standardised pixels [B,C,H,W], without a way back."""
    shares: Tensor = network(pixels).float().softmax(1)
    return shares


@torch.inference_mode()
def score(
    network: nn.Module,
    images: Images,
    dataset: Dataset,
    *,
    precision: Precision | None = None,
    ranks: ProcessGroup = SINGLE_PROCESS,
) -> tuple[float, float]:
    """Share of images, 0 to 1, whose likeliest class is their label, and the mean cross-entropy in nats.

    An image counts 100 nats at most, so that the mean is a number. The network stays in evaluation mode.
    """
    network.eval()
    device = next(network.parameters()).device
    precision = precision or Precision(device)
    mine = images.at(ranks.shard(len(images.labels)))
    right, loss = torch.zeros((), dtype=torch.int64, device=device), torch.zeros((), device=device)
    for batch in mine.batches(EVALUATION_BATCH):
        pixels, labels, _ = batch.to(device)
        with precision.autocast():
            logits = network(standardised(scaled(pixels), dataset)).float()
        right += (logits.argmax(1) == labels).sum()
        loss += cross_entropy(logits, labels, reduction="none").nan_to_num(nan=100.0).clamp(max=100).sum()
    count = len(images.labels)
    return int(ranks.all_reduce(right)) / count, float(ranks.all_reduce(loss)) / count
