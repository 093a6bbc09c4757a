"""Training that goes on, for recipes that let the weights adapt to what they do to them.

The loop, the images and the augmentation are those of the training; a tuning that breaks off goes on, too.
"""

import itertools
from collections.abc import Callable
from typing import Any, Final, Protocol

import torch
from torch import nn

from nightshift import storage
from nightshift.data.dataset import load_split
from nightshift.models.device import Precision, find_device
from nightshift.models.tta import FlipTTA
from nightshift.models.voting import Vote
from nightshift.quantization.recipes import Trained
from nightshift.training.checkpointing import TrainingCheckpoint
from nightshift.training.loader import open_loader
from nightshift.training.trainer import Trainer

# It begins with good weights and is short.
OVERRIDES: Final[dict[str, Any]] = {
    "freeze": "none",
    "backbone_lr_factor": 1.0,
    "progressive_resize_start": 1.0,
    "patience": 0,
    "ema": 0.0,
    "compile": "no",
    "schedule": "one_cycle",
}
PROGRESS: Final = "progress"  # folder, within that of the candidate, of how far its trainings are


class FineTune(Protocol):
    """Trains a network in place: towards the labels, or towards what a teacher says of the same images."""

    def __call__(self, network: nn.Module, teacher: nn.Module | None = None) -> None: ...


def delete_checkpoints(folder: str) -> None:
    """Remove how far the trainings of a candidate are, once it is made."""
    for kept in list(storage.listing(storage.join(folder, PROGRESS))):
        storage.delete(storage.join(folder, PROGRESS, kept.key))


def fine_tuned(
    trained: Trained,
    adapt: Callable[[nn.Module, FineTune], nn.Module],
    *,
    precision: torch.dtype | None = None,
    **changes: float | int | str,
) -> nn.Module:
    """What `trained` holds, each of its networks replaced by what `adapt(network, go_on)` makes of it.

    `go_on` trains a network that takes float32 [N,C,H,W] and gives logits, in place; `changes` are settings
    of that training, such as epochs and learning_rate. The precision is found, if none is given.
    """
    settings = trained.settings.model_copy(update={**OVERRIDES, **changes})
    numbers = itertools.count()
    loader = open_loader(trained.dataset, settings, settings.seed)
    validation = load_split(trained.dataset, "validation")

    def go_on(network: nn.Module, teacher: nn.Module | None = None) -> None:
        progress = TrainingCheckpoint(
            storage.join(trained.folder, PROGRESS, f"{next(numbers)}.safetensors"),
            minutes=settings.checkpoint_minutes,
        )
        training = Trainer(
            network, loader, validation, dataset=trained.dataset, settings=settings, seed=settings.seed
        )
        training.precision = Precision(find_device(), precision)
        training.teacher = None if teacher is None else teacher.to(find_device()).eval()
        for epoch in training.run(progress):
            print(
                f"epoch {epoch.number}/{settings.epochs}  loss {epoch.train_loss:.3f}  "
                f"validation {epoch.validation_accuracy:.4f}  {epoch.images_per_second:,.0f} images/s",
                flush=True,
            )
        network.cpu().eval()

    def replaced(network: nn.Module) -> nn.Module:
        if isinstance(network, Vote):
            return Vote([replaced(member) for member in network.members], network.rule)
        if isinstance(network, FlipTTA):
            return FlipTTA(replaced(network.network))
        return adapt(network, go_on)

    return replaced(trained.network).eval()
