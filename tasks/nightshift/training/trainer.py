"""The training loop, top to bottom; what it follows is in `optimisation`, what it is fed with in `feed`.

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
from nightshift.models.device import Precision, compiled, find_device, out_of_memory, pieces_for
from nightshift.records import Dataset
from nightshift.records.models import Epoch
from nightshift.training import optim
from nightshift.training.adversarial import harden
from nightshift.training.augmentation import augment, mix, shrunk, side_in
from nightshift.training.checkpointing import Progress, State
from nightshift.training.distributed import ALONE, Ranks
from nightshift.training.loader import Feed, class_counts, seed_at
from nightshift.training.weight_selection import Result

EVALUATION_BATCH: Final = 512


class Training:
    """A network on its way, with all that a pass over the images changes.

    It is trained in place; on the CPU the same seed gives the same weights. Raises InputError when the loss
    stops being a number or two images at a time are too many for the memory.
    """

    def __init__(
        self,
        network: nn.Module,
        feed: Feed,
        validation: Images,
        *,
        dataset: Dataset,
        settings: TrainSettings,
        seed: int,
        ranks: Ranks = ALONE,
    ) -> None:
        device = find_device()
        self.network, self.dataset, self.settings = network.to(device), dataset, settings
        self.feed, self.validation, self.seed, self.ranks = feed, validation, seed, ranks
        counts = class_counts(dataset).to(device)
        self.loss_of = optim.loss_of(settings, counts)
        self.course = optim.Course(network, settings, feed.steps)
        self.result = Result(network, settings)
        self.precision = Precision(device)
        self.compiled = compiled(network, settings, device, feed.steps * settings.epochs)
        self.trained = self.compiled  # in every epoch anew, for all processes
        self.teacher: nn.Module | None = None  # whose probabilities are wanted instead of the labels
        self.generator = torch.Generator(device)
        self.pieces = settings.accumulation
        self.epochs: list[Epoch] = []
        self.losses: list[Tensor] = []  # of the steps of the present epoch
        self.rate = 0.0  # at its beginning

    def run(self, progress: Progress | None = None) -> Iterator[Epoch]:
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
        while self.goes_on:
            epoch = self.advance(progress)
            if progress and self.ranks.leads and progress.is_due:
                progress.save(self.state())
            yield epoch
        self.result.settle()

    @property
    def goes_on(self) -> bool:
        return len(self.epochs) < self.settings.epochs and self.result.may_improve

    def advance(self, progress: Progress | None = None) -> Epoch:
        """One pass over the training images, or the rest of it, and a look at the validation images."""
        begun, number = time.perf_counter(), len(self.epochs) + 1
        first, seen = len(self.losses), 0
        self.rate = self.rate if first else self.course.rate
        freezing.begin_epoch(self.network, self.settings, number)
        self.trained = self.ranks.wrap(self.compiled)
        for batch in self.feed.batches(number, first):
            self.losses.append(self.step(batch, number))
            seen += len(batch.labels)
            if progress and self.ranks.leads and progress.is_overdue:
                self._check(number)
                progress.save(self.state())
        self._check(number)
        mean = float(self.ranks.total(torch.stack(self.losses).mean())) / self.ranks.world
        speed = seen * self.ranks.world / (time.perf_counter() - begun)
        self.ranks.agree(self.result.network)
        reached, loss = score(
            self.result.network, self.validation, self.dataset, precision=self.precision, ranks=self.ranks
        )
        self.course.finish_epoch(reached)
        self.result.judge(reached)
        self.losses.clear()
        seconds = time.perf_counter() - begun + (self.epochs[-1].seconds if self.epochs else 0)
        self.epochs.append(Epoch(number, mean, reached, loss, self.rate, speed, seconds))
        return self.epochs[-1]

    def step(self, batch: Images, epoch: int) -> Tensor:
        """Learn from one batch, in smaller pieces once memory has run out; its mean loss."""
        while True:
            try:
                return self._learn(batch, epoch)
            except RuntimeError as error:
                if not out_of_memory(error) or self.ranks.world > 1:
                    raise
                if self.pieces * 4 > len(batch.labels):
                    raise InputError(
                        f"memory runs out at {len(batch.labels) // self.pieces} images at a time ({error}); "
                        "take a smaller network or smaller images"
                    ) from error
            self.course.clear()
            torch.accelerator.empty_cache()
            self.pieces *= 2
            print(f"memory ran out; batches go through in {self.pieces} pieces from now on", flush=True)

    def _learn(self, batch: Images, epoch: int) -> Tensor:
        settings, total = self.settings, torch.zeros((), device=batch.labels.device)
        seed = seed_at(self.seed, epoch, len(self.losses), self.ranks.rank)
        self.generator.manual_seed(seed)
        torch.manual_seed(seed)  # which dropout draws from
        self.course.clear()
        pieces = batch.pieces(max(1, min(self._pieces(batch), len(batch.labels) // 2)))
        for piece in pieces:
            pixels = augment(piece.images, settings, self.dataset.image_size, self.generator)
            pixels = shrunk(pixels, side_in(epoch, settings, self.dataset.image_size))
            pixels, wanted = mix(pixels, piece.labels, len(self.dataset.classes), settings, self.generator)
            pixels = self._hardened(pixels, wanted)
            seen = standardised(pixels, self.dataset)
            wanted = wanted if self.teacher is None else probabilities(self.teacher, seen)
            with self.ranks.apart(self.trained, piece is not pieces[-1]):
                with self.precision.autocast():
                    logits = self.trained(seen)
                loss = self.loss_of(logits.float(), wanted) * (len(piece.labels) / len(batch.labels))
                self.precision.backward(loss)
            total += loss.detach()
        self.course.step(self.precision)
        self.result.follow()
        return total

    def _hardened(self, pixels: Tensor, wanted: Tensor) -> Tensor:
        return harden(
            self.network,
            pixels,
            lambda logits: self.loss_of(logits, wanted),
            self.dataset,
            self.settings,
            self.precision,
            self.generator,
        )

    def _pieces(self, batch: Images) -> int:
        """As set, or as few as memory allows, which is found out before the first step."""
        if not self.pieces:
            two = standardised(scaled(batch.images[:2]), self.dataset)
            with self.precision.autocast():
                self.pieces = pieces_for(self.network, two, len(batch.labels))
            if self.pieces > 1:
                print(f"batches go through in {self.pieces} pieces, to fit into memory", flush=True)
        return self.pieces

    def _check(self, number: int) -> None:
        """Raises InputError where a loss of the present epoch is no number."""
        losses = torch.stack(self.losses)
        if losses.isfinite().all():
            return
        first = int((~losses.isfinite()).nonzero()[0])
        batch = next(iter(self.feed.batches(number, first)))
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
            "course": self.course.state(),
            "result": self.result.state(),
            "precision": self.precision.state(),
            "pieces": self.pieces,
            "losses": self.losses,
            "rate": self.rate,
            "epochs": [tuple(epoch) for epoch in self.epochs],
        }

    def restore(self, state: State) -> None:
        device = self.generator.device
        self.network.load_state_dict(state["network"])
        self.course.restore(state["course"])
        self.result.restore(state["result"])
        self.precision.restore(state["precision"])
        self.pieces, self.rate = state["pieces"], state["rate"]
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
    ranks: Ranks = ALONE,
) -> tuple[float, float]:
    """Share of images, 0 to 1, whose likeliest class is their label, and the mean cross-entropy in nats.

    An image counts 100 nats at most, so that the mean is a number. The network stays in evaluation mode.
    """
    network.eval()
    device = next(network.parameters()).device
    precision = precision or Precision(device)
    mine = images.at(ranks.span(len(images.labels)))
    right, loss = torch.zeros((), dtype=torch.int64, device=device), torch.zeros((), device=device)
    for batch in mine.batches(EVALUATION_BATCH):
        pixels, labels, _ = batch.to(device)
        with precision.autocast():
            logits = network(standardised(scaled(pixels), dataset)).float()
        right += (logits.argmax(1) == labels).sum()
        loss += cross_entropy(logits, labels, reduction="none").nan_to_num(nan=100.0).clamp(max=100).sum()
    count = len(images.labels)
    return int(ranks.total(right)) / count, float(ranks.total(loss)) / count
