"""Attacks: within their limit, worse than chance, and without a trace in the network."""

import numpy as np
import pytest
import torch

from nightshift.data.dataset import load_split
from nightshift.models import ensemble
from nightshift.models.attacks import ascend, attack, log_probabilities
from nightshift.models.voting import Vote


@pytest.fixture
def trained(ml_night):
    """The float network of the night with its test images and labels."""
    test = load_split(ml_night.dataset, "test")
    network = ensemble.restore((ml_night.checkpoint,), ml_night.dataset, None)
    return network, test.images.numpy(), test.labels.numpy(), ml_night.dataset


def accuracy(network, images, labels, dataset) -> float:
    from nightshift.data.dataset import scaled, standardised

    with torch.inference_mode():
        logits = network(standardised(scaled(torch.from_numpy(images)), dataset))
    return float((logits.argmax(1).numpy() == labels).mean())


@pytest.mark.parametrize("kind", ["fgsm", "pgd"])
@pytest.mark.parametrize("epsilon", [2.0, 2.6, 40.0])
def test_no_value_moves_further_than_the_limit(trained, kind, epsilon):
    network, images, labels, dataset = trained
    changed = attack(network, images, labels, dataset, kind, epsilon, steps=5, seed=0)
    assert (changed.shape, changed.dtype) == (images.shape, np.uint8)
    difference = np.abs(changed.astype(int) - images)
    assert 0 < difference.max() <= epsilon


def test_attacks_mislead_and_several_steps_do_it_better_than_one(trained):
    network, images, labels, dataset = trained
    clean = accuracy(network, images, labels, dataset)
    once = accuracy(
        network, attack(network, images, labels, dataset, "fgsm", 40, steps=1, seed=0), labels, dataset
    )
    often = accuracy(
        network, attack(network, images, labels, dataset, "pgd", 40, steps=20, seed=0), labels, dataset
    )
    assert clean > 0.9
    assert often <= once < clean - 0.2


def test_weights_statistics_and_gradients_are_left_alone(trained):
    network, images, labels, dataset = trained
    before = {name: value.clone() for name, value in network.state_dict().items()}
    attack(network, images, labels, dataset, "pgd", 8, steps=2, seed=0)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())
    assert not network.training


def test_the_seed_decides_where_pgd_begins(trained):
    network, images, labels, dataset = trained
    first, same, other = (
        attack(network, images, labels, dataset, "pgd", 8, steps=2, seed=seed) for seed in (0, 0, 1)
    )
    assert np.array_equal(first, same)
    assert not np.array_equal(first, other)


def test_a_step_goes_up_the_loss_and_stays_inside_the_picture():
    pixels = torch.tensor([[[[0.02, 0.5]]]])
    weights = torch.tensor([[[[-1.0, 2.0]]]])
    changed = ascend(lambda given: (given * weights).sum(), pixels, 0.1, size=0.1)
    assert torch.allclose(changed, torch.tensor([[[[0.0, 0.6]]]]))


@pytest.mark.parametrize("rule", ["soft", "hard"])
def test_a_vote_is_attacked_as_the_mean_of_its_members(rule):
    torch.manual_seed(0)
    members = [torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3)).eval() for _ in range(2)]
    pixels = torch.rand(4, 3, 2, 2)
    shares = torch.stack([member(pixels).softmax(1) for member in members]).mean(0)
    assert torch.allclose(log_probabilities(Vote(members, rule), pixels).exp(), shares, atol=1e-6)
