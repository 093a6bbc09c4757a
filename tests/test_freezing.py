"""Frozen parts stay as they are to the bit, whatever moves the rest, and thaw from the head downwards."""

import pytest
import torch
from torch import nn

from nightshift.config import TrainSettings
from nightshift.data.dataset import load_split
from nightshift.models import build, freezing
from nightshift.training import trainer
from nightshift.training.loader import InMemoryLoader

OPTIMIZERS = {"sgd": 0.02, "adam": 0.005, "adamw": 0.005, "rmsprop": 0.002, "muon": 0.005}
QUICK = TrainSettings(
    width=0.125,
    epochs=4,
    batch_size=16,
    crop_padding=0,
    weights="imagenet",
    freeze="layer2",
    weight_decay=0.5,
)


def network_of(dataset, settings: TrainSettings) -> nn.Module:
    return build.build(settings, classes=len(dataset.classes), image_size=dataset.image_size)


def moved(dataset, settings: TrainSettings) -> list[set[str]]:
    """The parts of which any tensor, statistics included, is another after each epoch."""
    network = network_of(dataset, settings)
    loader = InMemoryLoader(load_split(dataset, "train"), dataset, settings, 1)
    validation = load_split(dataset, "validation")
    training = trainer.Trainer(network, loader, validation, dataset=dataset, settings=settings, seed=1)
    found, before = [], {name: tensor.clone() for name, tensor in network.state_dict().items()}
    for _ in training.run():
        after = {name: tensor.clone() for name, tensor in training.result.network.state_dict().items()}
        found.append({freezing.part_of(name) for name in after if not torch.equal(before[name], after[name])})
        before = after
    return found


@pytest.mark.parametrize("schedule", ["one_cycle", "plateau"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_frozen_parts_keep_weights_and_statistics(ml_dataset, optimizer, schedule):
    changes = {"optimizer": optimizer, "schedule": schedule, "learning_rate": OPTIMIZERS[optimizer]}
    assert moved(ml_dataset, QUICK.model_copy(update=changes)) == [{"layer3", "layer4", "head"}] * 4


@pytest.mark.parametrize(
    "changes",
    [
        {"ema": 0.9},
        {"clip_norm": 0.1, "gradient_accumulation": 2},
        {"mixup": 0.4, "dropout": 0.3},
        {"pooling": "gem"},
    ],
    ids=str,
)
def test_nothing_else_moves_them(ml_dataset, changes):
    assert moved(ml_dataset, QUICK.model_copy(update=changes)) == [{"layer3", "layer4", "head"}] * 4


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_one_part_thaws_each_epoch_the_last_first(ml_dataset, optimizer):
    changes = {"optimizer": optimizer, "learning_rate": OPTIMIZERS[optimizer], "unfreeze_epoch": 2}
    settings = QUICK.model_copy(update={**changes, "freeze": "layer3"})
    assert moved(ml_dataset, settings) == [
        {"layer4", "head"},
        {"layer3", "layer4", "head"},
        {"layer2", "layer3", "layer4", "head"},
        {"layer1", "layer2", "layer3", "layer4", "head"},
    ]


@pytest.mark.parametrize(
    ("name", "freeze", "kept"),
    [
        ("resnet18", "none", ()),
        ("resnet18", "stem", ("stem",)),
        ("resnet18", "backbone", ("stem", "layer1", "layer2", "layer3", "layer4")),
        ("resnet20", "backbone", ("stem", "layer1", "layer2", "layer3")),
        ("resnet9", "layer1", ("stem", "layer1")),
        ("resnet9", "layer3", ("stem", "layer1", "layer2", "layer3")),
    ],
)
def test_every_network_has_its_parts(ml_dataset, name, freeze, kept):
    settings = QUICK.model_copy(update={"model": name, "freeze": freeze})
    network = network_of(ml_dataset, settings)
    assert freezing.frozen(network, settings, 1) == kept
    freezing.begin_epoch(network, settings, 1)
    for part in (*kept, "head"):
        named = [p for name, p in network.named_parameters() if freezing.part_of(name) == part]
        assert named
        assert all(parameter.requires_grad == (part not in kept) for parameter in named)
    modes = {m.training for n, m in network.named_modules() if n and freezing.part_of(n) in kept}
    assert modes == ({False} if kept else set())


def test_thawing_begins_at_its_epoch_and_ends_with_the_stem(ml_dataset):
    settings = QUICK.model_copy(update={"freeze": "layer1", "unfreeze_epoch": 3})
    network = network_of(ml_dataset, settings)
    kept = [freezing.frozen(network, settings, epoch) for epoch in (1, 2, 3, 4, 9)]
    assert kept == [("stem", "layer1"), ("stem", "layer1"), ("stem",), (), ()]
