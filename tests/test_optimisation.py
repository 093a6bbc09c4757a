"""Losses by hand, optimizers that move what they should, and the optimizers of the learning rate."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from nightshift.config import TrainSettings
from nightshift.models import build
from nightshift.models.device import Precision
from nightshift.training.optim import KernelMuon, Optimizers, build_loss, orthogonalized

LOGITS = torch.tensor([[2.0, 0.0, -1.0], [0.5, 1.0, 0.0], [0.0, 0.0, 3.0], [1.0, -2.0, 0.0]])
LABELS = torch.tensor([0, 0, 2, 1])
COUNTS = torch.tensor([80, 15, 5])
EXACT = Precision(torch.device("cpu"), torch.float32)


def settings(**changes) -> TrainSettings:
    return TrainSettings(**{"label_smoothing": 0.0, "learning_rate": 0.1, "epochs": 4, **changes})


def network() -> nn.Module:
    torch.manual_seed(0)
    made = nn.Sequential(
        nn.Conv2d(3, 16, 3, bias=False),
        nn.BatchNorm2d(16),
        nn.Conv2d(16, 16, 3),
        nn.Flatten(),
        nn.Linear(16 * 16, 3),
    )
    return made.to(memory_format=torch.channels_last)


def trained(changes: dict, steps: int = 1) -> tuple[nn.Module, nn.Module]:
    """The network before and after some steps."""
    before, after = network(), network()
    optimizers = Optimizers(after, settings(**changes), 10)
    for _ in range(steps):
        optimizers.zero_grad()
        pixels = torch.linspace(-1, 1, 4 * 3 * 64).view(4, 3, 8, 8)
        functional.cross_entropy(after(pixels), LABELS).backward()
        optimizers.step(EXACT)
    return before, after


def rates(epochs: int = 4, steps: int = 10, accuracies: list[float] | None = None, **changes) -> list[float]:
    optimizers = Optimizers(network(), settings(epochs=epochs, **changes), steps)
    found = []
    for epoch in range(epochs):
        for _ in range(steps):
            found.append(optimizers.learning_rate)
            optimizers.step(EXACT)
        optimizers.finish_epoch((accuracies or [0.0] * epochs)[epoch])
    return found


def test_the_cross_entropy_is_torch_s():
    found = build_loss(settings(label_smoothing=0.1), COUNTS)(LOGITS, LABELS)
    expected = functional.cross_entropy(LOGITS, LABELS, label_smoothing=0.1)
    assert torch.allclose(found, expected)
    shares = torch.tensor([[0.7, 0.3, 0.0], [0.0, 0.5, 0.5], [1.0, 0.0, 0.0], [0.2, 0.2, 0.6]])
    assert torch.allclose(
        build_loss(settings(), COUNTS)(LOGITS, shares), functional.cross_entropy(LOGITS, shares)
    )
    weighted = build_loss(settings(imbalance="weights"), COUNTS)(LOGITS, LABELS)
    weights = COUNTS.sum() / (3 * COUNTS)
    assert torch.allclose(weighted, functional.cross_entropy(LOGITS, LABELS, weights))


def test_bce_asks_for_every_class_by_itself():
    hot = torch.eye(3)[LABELS]
    odds = torch.sigmoid(LOGITS)
    each = -(hot * odds.log() + (1 - hot) * (1 - odds).log()).sum(1)
    assert build_loss(settings(loss="bce"), COUNTS)(LOGITS, LABELS) == pytest.approx(each.mean().item())


def test_focal_cares_less_for_what_is_predicted_well():
    known = LOGITS.softmax(1)[torch.arange(4), LABELS]
    for gamma in (0.0, 2.0):
        expected = (-known.log() * (1 - known) ** gamma).mean()
        found = build_loss(settings(loss="focal", focal_gamma=gamma), COUNTS)(LOGITS, LABELS)
        assert found == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("loss", ["cross_entropy", "bce", "focal"])
def test_shares_of_one_class_are_its_label(loss):
    found = build_loss(settings(loss=loss, label_smoothing=0.1), COUNTS)
    assert torch.allclose(found(LOGITS, LABELS), found(LOGITS, torch.eye(3)[LABELS]))


@pytest.mark.parametrize("loss", ["cross_entropy", "bce", "focal"])
def test_rare_classes_weigh_as_much_as_common_ones(loss):
    chosen = settings(loss=loss, imbalance="weights")
    labels = torch.cat([torch.full((count,), number) for number, count in enumerate(COUNTS.tolist())])
    logits = torch.zeros(100, 3, requires_grad=True)
    build_loss(chosen, COUNTS)(logits, labels).backward()
    towards = [-float(logits.grad[labels == number, number].sum()) for number in range(3)]
    assert towards == pytest.approx([towards[0]] * 3, rel=1e-4)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw", "rmsprop", "muon"])
@pytest.mark.parametrize("schedule", ["one_cycle", "cosine", "step", "plateau"])
def test_every_optimizer_moves_every_weight_and_lowers_the_loss(optimizer, schedule):
    rate = 0.02 if optimizer == "sgd" else 0.002
    before, after = trained(
        {"optimizer": optimizer, "schedule": schedule, "learning_rate": rate, "weight_decay": 0.0}, steps=8
    )
    for (name, old), new in zip(before.named_parameters(), after.parameters(), strict=True):
        assert not torch.equal(old, new), name
    pixels = torch.linspace(-1, 1, 4 * 3 * 64).view(4, 3, 8, 8)
    first, last = (functional.cross_entropy(each(pixels), LABELS).item() for each in (before, after))
    assert last < first


def test_muon_s_steps_are_orthogonal():
    made = network()
    optimizers = Optimizers(
        made, settings(optimizer="muon", schedule="step", weight_decay=0.0, warmup_epochs=0), 10
    )
    before = made[2].weight.clone()
    for parameter in made.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizers.step(EXACT)
    step = (made[2].weight - before).detach().reshape(16, -1)
    values = torch.linalg.svdvals(step)
    assert values.min() > 0.5 * values.max()
    assert step.square().mean().sqrt() == pytest.approx(0.2 * 0.1, rel=0.3)  # as AdamW's step would be


@pytest.mark.parametrize("shape", [(8, 24, 1, 1), (24, 8, 1, 1)])
def test_muon_is_torch_s_where_that_computes_the_same(shape):
    kernel = nn.Parameter(torch.randn(shape))
    matrix = nn.Parameter(kernel.detach().flatten(1).clone())
    ours = KernelMuon([{"params": [kernel], "lr": 0.1, "weight_decay": 0.5}])
    theirs = torch.optim.Muon([matrix], lr=0.1, weight_decay=0.5, adjust_lr_fn="match_rms_adamw")
    for _ in range(3):
        kernel.grad = torch.randn(shape)
        matrix.grad = kernel.grad.flatten(1)
        ours.step()
        theirs.step()
    torch.testing.assert_close(kernel.flatten(1), matrix, rtol=0, atol=5e-3)  # theirs is in bfloat16


@pytest.mark.parametrize("shape", [(16, 144), (144, 16), (1, 9), (9, 1), (3, 3)])
def test_singular_values_end_near_one(shape):
    values = torch.linalg.svdvals(orthogonalized(torch.randn(shape)))
    assert values.min() > 0.6
    assert values.max() < 1.3


def test_a_gradient_of_zero_moves_nothing():
    assert torch.equal(orthogonalized(torch.zeros(4, 36)), torch.zeros(4, 36))


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw", "rmsprop", "muon"])
@pytest.mark.parametrize("clip", [0.0, 1.0])
def test_scaled_losses_of_float16_move_the_weights_as_those_of_float32(optimizer, clip):
    """The loss scaler must find the gradients of every weight, unscale them, and skip those that overflow."""

    def stepped(scaler: Precision, **overflow: float) -> torch.Tensor:
        made, moved = network(), []
        optimizers = Optimizers(made, settings(optimizer=optimizer, clip_norm=clip, learning_rate=0.01), 10)
        for number in range(3):
            optimizers.zero_grad()
            pixels = torch.linspace(-1, 1, 4 * 3 * 64).view(4, 3, 8, 8) * overflow.get(f"step_{number}", 1)
            scaler.backward(functional.cross_entropy(made(pixels), LABELS))
            optimizers.step(scaler)
            moved.append(torch.cat([each.detach().flatten().clone() for each in made.parameters()]))
        return torch.stack(moved)

    half, full = Precision(torch.device("cpu"), torch.float16), EXACT
    torch.testing.assert_close(stepped(half), stepped(full), rtol=1e-3, atol=1e-4)
    skipped = stepped(Precision(torch.device("cpu"), torch.float16), step_1=math.inf)
    assert torch.equal(skipped[0], skipped[1])


def test_vectors_are_not_decayed():
    optimizers = Optimizers(network(), settings(weight_decay=0.5, schedule="step", warmup_epochs=0), 10)
    optimized = optimizers._network
    for parameter in optimized.parameters():
        parameter.grad = torch.zeros_like(parameter)
    before = [parameter.clone() for parameter in optimized.parameters()]
    optimizers.step(EXACT)
    for old, new in zip(before, optimized.parameters(), strict=True):
        assert torch.allclose(new, old * (1 - 0.1 * 0.5 * (1 + 0.9)) if old.ndim > 1 else old)


@pytest.mark.parametrize("schedule", ["one_cycle", "cosine", "step", "plateau"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw", "rmsprop", "muon"])
def test_the_backbone_follows_a_share_of_the_head_s_rate(optimizer, schedule):
    chosen = settings(optimizer=optimizer, schedule=schedule, width=0.125, backbone_lr_factor=0.25)
    made = build.build(chosen, classes=3, image_size=8)
    optimizers = Optimizers(made, chosen, 10)
    heads = {id(parameter) for parameter in made.fc.parameters()}
    for step in range(40):
        groups = [group for each in optimizers._optimizers for group in each.param_groups]
        share = [group["lr"] / optimizers.learning_rate for group in groups]
        expected = [1.0 if id(group["params"][0]) in heads else 0.25 for group in groups]
        assert share == pytest.approx(expected, rel=1e-3), step
        optimizers.step(EXACT)
    assert {0.25, 1.0} == set(expected)


def test_long_gradients_are_shortened():
    optimizers = Optimizers(network(), settings(clip_norm=0.5), 10)
    for parameter in optimizers._network.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizers.step(EXACT)
    norms = [parameter.grad.norm() for parameter in optimizers._network.parameters()]
    assert torch.stack(norms).norm() == pytest.approx(0.5, rel=1e-3)


@pytest.mark.parametrize("schedule", ["one_cycle", "cosine", "step", "plateau"])
@pytest.mark.parametrize("steps", range(1, 10))
def test_trainings_of_few_steps_have_their_rates(schedule, steps):
    found = rates(epochs=1, steps=steps, schedule=schedule)
    assert all(0 < rate <= 0.1 for rate in found)


def test_the_rate_follows_its_schedule():
    cycle = rates(schedule="one_cycle")
    assert max(cycle) == pytest.approx(0.1)
    assert cycle.index(max(cycle)) in (9, 10)
    assert cycle[-1] < 0.001
    cosine = rates(schedule="cosine", warmup_epochs=1)
    assert cosine[:3] == pytest.approx([0.1 * n / 11 for n in (1, 2, 3)])
    assert cosine[10] == pytest.approx(0.1)
    assert cosine[25] == pytest.approx(0.1 * (1 + math.cos(math.pi / 2)) / 2)
    step = rates(schedule="step", warmup_epochs=0)
    assert [step[0], step[19], step[20], step[29], step[30]] == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001])


def test_the_rate_falls_where_validation_stays():
    reached = [0.5, 0.6, *[0.6] * 8]
    found = rates(epochs=10, steps=1, accuracies=reached, schedule="plateau")
    assert found[:8] == pytest.approx([0.1] * 8)
    assert found[8:] == pytest.approx([0.01] * 2)
