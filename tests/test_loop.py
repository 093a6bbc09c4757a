"""The training loop learns, repeats itself, and says what went wrong."""

import math

import pytest
import torch
from torch import nn

from nightshift.config import TrainSettings
from nightshift.data.dataset import Images, load_split
from nightshift.errors import InputError
from nightshift.models import build
from nightshift.training import trainer
from nightshift.training.loader import InMemoryLoader

QUICK = TrainSettings(width=0.125, epochs=4, batch_size=16, learning_rate=0.05, crop_padding=0)


def fitted(dataset, settings=QUICK, seed=0, train=None):
    network = build.build(settings, classes=len(dataset.classes), image_size=dataset.image_size, seed=seed)
    loader = InMemoryLoader(train or load_split(dataset, "train"), dataset, settings, seed)
    validation = load_split(dataset, "validation")
    training = trainer.Trainer(network, loader, validation, dataset=dataset, settings=settings, seed=seed)
    return network, list(training.run())


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_it_learns(ml_dataset, optimizer):
    rate = {"sgd": 0.05, "adamw": 0.005}[optimizer]
    settings = QUICK.model_copy(update={"optimizer": optimizer, "learning_rate": rate, "epochs": 6})
    network, epochs = fitted(ml_dataset, settings)
    assert [epoch.number for epoch in epochs] == [1, 2, 3, 4, 5, 6]
    assert epochs[-1].train_loss < epochs[0].train_loss
    assert epochs[-1].validation_accuracy > 0.9
    assert (
        trainer.score(network, load_split(ml_dataset, "validation"), ml_dataset)[0]
        == epochs[-1].validation_accuracy
    )


def test_the_seed_decides_the_result(ml_dataset):
    settings = QUICK.model_copy(update={"epochs": 2, "flip": True, "crop_padding": 1, "rotation": 5.0})
    first, again, other = (build.to_bytes(fitted(ml_dataset, settings, seed)[0]) for seed in (1, 1, 2))
    assert first == again != other


class Says(nn.Module):
    """Answers every image with the same logits."""

    def __init__(self, *logits: float) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(logits))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.logits.expand(len(pixels), -1)


@pytest.mark.parametrize(
    ("logits", "loss"),
    [((1.0, 1.0, 1.0, 1.0), math.log(4)), ((1e9, 0.0, 0.0, 0.0), 75.0), ((math.nan,) * 4, 100.0)],
)
def test_the_loss_of_a_network_is_a_mean_and_always_a_number(ml_dataset, monkeypatch, logits, loss):
    monkeypatch.setattr(trainer, "EVALUATION_BATCH", 5)
    validation = load_split(ml_dataset, "validation")
    reached, found = trainer.score(Says(*logits), validation, ml_dataset)
    assert found == pytest.approx(loss)
    assert reached == float((validation.labels == 0).double().mean())  # the first of equals


def test_an_epoch_carries_what_is_logged(ml_dataset):
    _, epochs = fitted(ml_dataset, QUICK.model_copy(update={"epochs": 1}))
    assert set(epochs[0].metrics()) == {
        "train_loss",
        "validation_accuracy",
        "validation_loss",
        "learning_rate",
        "images_per_second",
        "seconds",
    }


def test_the_learning_rate_rises_and_falls_to_nearly_nothing(ml_dataset):
    _, epochs = fitted(ml_dataset, QUICK.model_copy(update={"epochs": 8}))
    rates = [epoch.learning_rate for epoch in epochs]
    assert max(rates) == pytest.approx(QUICK.learning_rate, rel=0.05)
    assert rates[0] < max(rates) / 2
    assert rates[-1] < max(rates) / 5


def test_a_loss_that_is_no_number_names_epoch_and_learning_rate(ml_dataset):
    network = build.build(QUICK, classes=4, image_size=8)
    torch.nn.init.constant_(network.fc.bias, float("nan"))
    loader = InMemoryLoader(load_split(ml_dataset, "train"), ml_dataset, QUICK, 0)
    validation = load_split(ml_dataset, "validation")
    expected = r"became nan in epoch 1, batch 1 \(images .*\) at learning rate 0\.002; lower train"
    with pytest.raises(InputError, match=expected):
        trainer.Trainer(network, loader, validation, dataset=ml_dataset, settings=QUICK, seed=0).train_epoch()


def test_one_image_left_over_does_not_break_batch_norm(ml_dataset):
    few = Images(*(tensor[:17] for tensor in load_split(ml_dataset, "train")))
    _, epochs = fitted(ml_dataset, QUICK.model_copy(update={"epochs": 1}), train=few)
    assert len(epochs) == 1


def test_one_image_is_too_few(ml_dataset):
    one = Images(*(tensor[:1] for tensor in load_split(ml_dataset, "train")))
    with pytest.raises(InputError, match="at least 2 images, got 1"):
        fitted(ml_dataset, train=one)


def test_pieces_of_a_batch_add_up_to_the_batch(ml_dataset):
    whole = QUICK.model_copy(update={"epochs": 1, "imbalance": "sampling"})
    epochs = [fitted(ml_dataset, whole.model_copy(update={"gradient_accumulation": n}))[1][0] for n in (1, 4)]
    assert epochs[0].train_loss == pytest.approx(epochs[1].train_loss, rel=0.3)  # batch norm sees the pieces
    (one,) = fitted(ml_dataset, whole.model_copy(update={"gradient_accumulation": 256}))[1]
    assert one.train_loss > 0


def test_the_moving_average_is_judged_and_is_the_result(ml_dataset):
    settings = QUICK.model_copy(update={"epochs": 6, "ema": 0.8})
    network, epochs = fitted(ml_dataset, settings)
    plain, _ = fitted(ml_dataset, settings.model_copy(update={"ema": 0.0}))
    assert not torch.equal(network.fc.weight, plain.fc.weight)
    assert trainer.score(network, load_split(ml_dataset, "validation"), ml_dataset)[0] == (
        epochs[-1].validation_accuracy
    )


def test_patience_ends_early_with_the_best_weights(ml_dataset):
    settings = QUICK.model_copy(update={"epochs": 60, "patience": 3})
    network, epochs = fitted(ml_dataset, settings)
    reached = [epoch.validation_accuracy for epoch in epochs]
    best = reached.index(max(reached))
    assert len(epochs) == best + 1 + 3 < 60
    assert trainer.score(network, load_split(ml_dataset, "validation"), ml_dataset)[0] == max(reached)


def test_memory_that_runs_out_is_said_and_the_batch_goes_through_in_pieces(ml_dataset, monkeypatch, capsys):
    whole, sizes = trainer.augment, []

    def narrow(images, *others):
        if len(images) > 4:
            raise torch.OutOfMemoryError("no memory")
        sizes.append(len(images))
        return whole(images, *others)

    monkeypatch.setattr(trainer, "augment", narrow)
    _, epochs = fitted(ml_dataset, QUICK.model_copy(update={"epochs": 1}))
    assert epochs[0].train_loss > 0
    assert sizes == [4] * 20
    assert capsys.readouterr().out.count("memory ran out") == 2  # 16 images, 8, and 4 from then on

    monkeypatch.setattr(trainer, "augment", lambda *_: torch.empty(2**60))
    with pytest.raises(InputError, match="memory runs out at 2 images at a time"):
        fitted(ml_dataset)


@pytest.mark.parametrize("optimizer", ["sgd", "muon"])
def test_a_training_in_float16_learns_too(ml_dataset, monkeypatch, optimizer):
    monkeypatch.setattr("nightshift.models.device._fastest", lambda _: (torch.float16, ""))
    # The first steps find the scale at which gradients do not overflow.
    changes = {"epochs": 12, "clip_norm": 1.0, "optimizer": optimizer}
    _, epochs = fitted(ml_dataset, QUICK.model_copy(update=changes))
    assert epochs[-1].validation_accuracy > 0.9


@pytest.mark.parametrize("clip", [0.0, 1.0])
def test_what_is_frozen_stops_no_scaled_loss(ml_dataset, monkeypatch, clip):
    """Muon's weights are all in the backbone, so that it has no gradients to unscale."""
    monkeypatch.setattr("nightshift.models.device._fastest", lambda _: (torch.float16, ""))
    changes = {"epochs": 2, "clip_norm": clip, "optimizer": "muon", "freeze": "backbone"}
    _, epochs = fitted(ml_dataset, QUICK.model_copy(update=changes))
    assert len(epochs) == 2


def test_images_grow_to_their_whole_side_while_training(ml_build, monkeypatch):
    dataset, sides = ml_build(side=16), []
    whole = trainer.shrunk

    def seen(pixels, side):
        sides.append(side)
        return whole(pixels, side)

    monkeypatch.setattr(trainer, "shrunk", seen)
    settings = QUICK.model_copy(update={"epochs": 12, "progressive_resize_start": 0.5})
    _, epochs = fitted(dataset, settings)
    assert sides[::5] == [8] * 3 + [12] * 3 + [16] * 6
    assert epochs[-1].validation_accuracy > 0.9
