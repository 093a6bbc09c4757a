"""Adversarial training: sturdier under attack, and nothing of the network is changed while images are."""

import pytest
import torch

from nightshift.config import TrainSettings
from nightshift.data.dataset import load_split, scaled
from nightshift.models import build
from nightshift.models.attacks import attack
from nightshift.models.device import Precision
from nightshift.training import trainer
from nightshift.training.adversarial import adversarial_examples
from nightshift.training.loader import InMemoryLoader

PLAIN = TrainSettings(width=0.125, epochs=6, batch_size=16, learning_rate=0.05, crop_padding=0)
LIMIT = 30.0  # of 255; classes differ by 128 in a quarter of the image


def trained(dataset, **changes):
    settings = PLAIN.model_copy(update=changes)
    network = build.build(settings, classes=len(dataset.classes), image_size=dataset.image_size, seed=0)
    loader = InMemoryLoader(load_split(dataset, "train"), dataset, settings, 0)
    validation = load_split(dataset, "validation")
    training = trainer.Trainer(network, loader, validation, dataset=dataset, settings=settings, seed=0)
    assert all(epoch.train_loss > 0 for epoch in training.run())
    return network.eval()


def attacked(network, dataset) -> float:
    test = load_split(dataset, "test")
    images = attack(
        network, test.images.numpy(), test.labels.numpy(), dataset, "pgd", LIMIT, steps=10, seed=0
    )
    return trainer.score(network, test._replace(images=torch.from_numpy(images)), dataset)[0]


def test_a_network_trained_on_attacks_withstands_them_better(ml_dataset):
    plain = attacked(trained(ml_dataset, epochs=12), ml_dataset)
    for kind in ("fgsm", "pgd"):
        changes = {"epochs": 12, "adversarial": kind, "adversarial_epsilon": LIMIT}
        sturdy = attacked(trained(ml_dataset, **changes), ml_dataset)
        assert sturdy >= plain + 0.2, kind


@pytest.mark.parametrize("kind", ["fgsm", "pgd"])
def test_only_the_pixels_change_and_within_the_limit(ml_dataset, kind):
    settings = PLAIN.model_copy(update={"adversarial": kind, "adversarial_epsilon": 4.0})
    network = build.build(settings, classes=4, image_size=8, seed=0).train()
    network.layer1.eval()  # as a frozen part is
    modes = [module.training for module in network.modules()]
    before = {name: value.clone() for name, value in network.state_dict().items()}
    batch = load_split(ml_dataset, "train").at(slice(0, 8))
    pixels = scaled(batch.images)
    changed = adversarial_examples(
        network,
        pixels,
        lambda logits: torch.nn.functional.cross_entropy(logits, batch.labels),
        ml_dataset,
        settings,
        Precision(torch.device("cpu")),
        torch.Generator().manual_seed(0),
    )
    difference = (changed - pixels).abs().max()
    assert 0 < difference <= 4 / 255 + 1e-6
    assert [module.training for module in network.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())


def test_without_it_pixels_are_the_same_object(ml_dataset):
    pixels = torch.zeros(1, 3, 8, 8)
    given = (
        lambda logits: logits.sum(),
        ml_dataset,
        PLAIN,
        Precision(torch.device("cpu")),
        torch.Generator(),
    )
    assert adversarial_examples(torch.nn.Identity(), pixels, *given) is pixels
