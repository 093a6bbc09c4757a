"""Training that goes on: which networks, from where, and after a crash."""

import pytest
import torch
from torch import nn

from nightshift import storage
from nightshift.data.dataset import load_split, scaled, standardised
from nightshift.models import ensemble
from nightshift.models.tta import FlipTTA
from nightshift.models.voting import Vote
from nightshift.quantization import recipes
from nightshift.quantization.finetune import delete_checkpoints, fine_tuned
from nightshift.training.trainer import Trainer


@pytest.fixture
def trained(ml_night, tmp_path) -> recipes.Trained:
    network = ensemble.restore((ml_night.checkpoint,), ml_night.dataset, None)
    return recipes.Trained(network, ml_night.dataset, ml_night.checkpoint.settings, f"file://{tmp_path}")


def go(network: nn.Module, go_on) -> nn.Module:
    go_on(network)
    return network


def weights(network: nn.Module) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in network.parameters()]


def test_a_network_goes_on_from_where_it_is(trained):
    before = weights(trained.network)
    network = fine_tuned(trained, go, epochs=1, learning_rate=1e-4)
    moved = [float((new - old).abs().max()) for new, old in zip(weights(network), before, strict=True)]
    assert 0 < max(moved) < 0.05
    assert not network.training


def test_each_network_of_a_vote_is_tuned_by_itself(ml_ensemble, tmp_path):
    network = ensemble.restore(ml_ensemble.members, ml_ensemble.dataset, "soft", flip_tta=True)
    settings = ml_ensemble.members[0].settings
    whole = recipes.Trained(network, ml_ensemble.dataset, settings, f"file://{tmp_path}")
    before, met = [weights(member) for member in network.members], []

    def adapt(inner: nn.Module, go_on) -> nn.Module:
        met.append(inner)
        go_on(inner)
        return inner

    after = fine_tuned(whole, adapt, epochs=1)
    assert isinstance(after, Vote)
    assert all(isinstance(member, FlipTTA) for member in after.members)
    assert len({id(inner) for inner in met}) == 3
    for old, member in zip(before, after.members, strict=True):
        assert any(not torch.equal(a, b) for a, b in zip(old, weights(member), strict=True))
    assert len(list(tmp_path.glob("progress/*.safetensors"))) == 3
    delete_checkpoints(whole.folder)
    assert not list(tmp_path.glob("progress/*"))


class Stubborn(nn.Module):
    """Says class 2 of every image."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return 20 * nn.functional.one_hot(torch.full((len(pixels),), 2), 4).float()


def test_a_teacher_is_followed_instead_of_the_labels(trained):
    def follow(network: nn.Module, go_on) -> nn.Module:
        go_on(network, teacher=Stubborn())
        return network

    network = fine_tuned(trained, follow, epochs=4, label_smoothing=0.0)
    images = load_split(trained.dataset, "test").images
    with torch.no_grad():
        said = network(standardised(scaled(images), trained.dataset)).argmax(1)
    assert (said == 2).float().mean() > 0.9  # a quarter of the labels


def test_what_was_broken_off_goes_on_with_the_same_result(trained, ml_night, tmp_path, monkeypatch):
    undisturbed = weights(fine_tuned(trained, go, epochs=3))
    again = trained._replace(
        network=ensemble.restore((ml_night.checkpoint,), ml_night.dataset, None),
        folder=f"file://{tmp_path}/other",
    )
    advance, passes = Trainer.train_epoch, []

    def killed(self, progress=None):
        if len(passes) == 2:
            raise KeyboardInterrupt
        passes.append(1)
        return advance(self, progress)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "train_epoch", killed)
        patch.setattr("nightshift.training.checkpointing.SHARE", 1e9)  # saving is always worth it
        with pytest.raises(KeyboardInterrupt):
            fine_tuned(again, go, epochs=3)
    assert storage.exists(f"file://{tmp_path}/other/progress/0.safetensors")
    counted = []
    monkeypatch.setattr(Trainer, "train_epoch", lambda self, p=None: counted.append(1) or advance(self, p))
    fresh = again._replace(network=ensemble.restore((ml_night.checkpoint,), ml_night.dataset, None))
    for found, expected in zip(weights(fine_tuned(fresh, go, epochs=3)), undisturbed, strict=True):
        assert torch.equal(found, expected)
    assert len(counted) == 1
