"""A learning rate found by trying: Smith, "Cyclical Learning Rates for Training Neural Networks", 2017."""

import copy
import itertools
from typing import Final

from torch import nn

from nightshift.config import TrainSettings
from nightshift.data.dataset import Images
from nightshift.errors import InputError
from nightshift.models import freezing
from nightshift.records import Dataset
from nightshift.training.loader import Loader
from nightshift.training.trainer import Trainer

LOWEST: Final = 1e-5
HIGHEST: Final = 10.0
STEPS: Final = 100
SMOOTH: Final = 0.9  # share of the losses before in the one that is looked at
HOPELESS: Final = 4.0  # times the lowest loss, where the trial ends
MARGIN: Final = 10.0  # a rate so many times lower than that of the lowest loss trains well


def find_learning_rate(
    network: nn.Module,
    loader: Loader,
    validation: Images,
    *,
    dataset: Dataset,
    settings: TrainSettings,
    seed: int,
) -> float:
    """A tenth of the rate at which the loss is lowest, of a copy of the network on rising rates.

    The network stays as it is. Raises InputError where the loss is no number from the beginning.
    """
    # A plateau's schedule leaves the rate alone within an epoch.
    lowest = settings.model_copy(update={"learning_rate": LOWEST, "schedule": "plateau", "ema": 0.0})
    trial = Trainer(copy.deepcopy(network), loader, validation, dataset=dataset, settings=lowest, seed=seed)
    freezing.begin_epoch(trial.network, settings, 1)
    smoothed, best, found, rate = 0.0, float("inf"), 0.0, LOWEST
    batches = itertools.chain.from_iterable(loader.batches(epoch) for epoch in itertools.count(1))
    for turn, batch in enumerate(itertools.islice(batches, STEPS), 1):
        smoothed = SMOOTH * smoothed + (1 - SMOOTH) * float(trial.train_step(batch, 1))
        loss = smoothed / (1 - SMOOTH**turn)
        if loss < best:
            best, found = loss, rate
        if not loss < HOPELESS * best:
            break
        rate *= (HIGHEST / LOWEST) ** (1 / STEPS)
        trial.optimizers.scale_learning_rate((HIGHEST / LOWEST) ** (1 / STEPS))
    if not found:
        raise InputError(
            f"no learning rate is found: the loss is no number at {LOWEST:g}; set "
            "train.find_learning_rate to false "
            "and look at the images"
        )
    return found / MARGIN
