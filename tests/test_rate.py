"""A learning rate is found that trains, and finding it changes nothing."""

import torch

from nightshift.config import TrainSettings
from nightshift.data.dataset import load_split
from nightshift.models import build
from nightshift.training import trainer
from nightshift.training.loader import InMemoryLoader
from nightshift.training.lr_finder import HIGHEST, LOWEST, find_learning_rate

SETTINGS = TrainSettings(width=0.125, epochs=6, batch_size=16, crop_padding=0, ema=0.5)


def test_the_rate_that_is_found_trains_and_the_network_is_untouched(ml_dataset):
    network = build.build(SETTINGS, classes=4, image_size=8)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    loader, validation = (
        InMemoryLoader(load_split(ml_dataset, "train"), ml_dataset, SETTINGS, 0),
        load_split(ml_dataset, "validation"),
    )
    rates = [
        find_learning_rate(network, loader, validation, dataset=ml_dataset, settings=SETTINGS, seed=0)
        for _ in range(2)
    ]
    assert rates[0] == rates[1]
    assert 10 * LOWEST < rates[0] < HIGHEST / 10
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    settings = SETTINGS.model_copy(update={"learning_rate": rates[0]})
    *_, last = trainer.Trainer(
        network, loader, validation, dataset=ml_dataset, settings=settings, seed=0
    ).run()
    assert last.validation_accuracy > 0.9
