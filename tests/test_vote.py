"""How several networks decide, on numbers small enough to check by hand."""

import pytest
import torch
from torch import nn

from nightshift.models.voting import Vote, hard, soft


def logits(*members: list[float]) -> torch.Tensor:
    """One image's probabilities as every member's logits, [M,1,K]."""
    return torch.tensor(members)[:, None].log()


def decided(rule, *members: list[float]) -> tuple[list[float], int]:
    probabilities, label = rule(logits(*members))
    assert (probabilities.dtype, label.dtype) == (torch.float32, torch.int64)
    return probabilities[0].tolist(), int(label)


SURE, FIRST, SECOND = [0.0001, 0.0001, 0.9998], [0.5, 0.4, 0.1], [0.4, 0.5, 0.1]


def test_a_soft_vote_is_the_mean_and_a_hard_one_the_majority():
    assert decided(soft, SURE, FIRST, FIRST) == (pytest.approx([0.3334, 0.2667, 0.3999], abs=1e-4), 2)
    assert decided(hard, SURE, FIRST, FIRST) == (pytest.approx([2 / 3, 0, 1 / 3]), 0)


@pytest.mark.parametrize(("members", "label"), [((FIRST, SURE), 2), ((SURE, FIRST), 2), ((SECOND, FIRST), 0)])
def test_a_tie_goes_to_the_likelier_class_and_then_to_the_first(members, label):
    shares, chosen = decided(hard, *members)
    assert chosen == label
    assert sorted(shares) == [0, 0.5, 0.5]


def test_a_class_without_votes_does_not_win_a_tie_by_its_mean():
    members = [0.5, 0.0, 0.5 - 1e-3], [0.0, 0.5, 0.5 - 1e-3]
    assert decided(soft, *members)[1] == 2
    assert decided(hard, *members)[1] == 0


def test_the_networks_see_the_same_pixels():
    members = [nn.Sequential(nn.Flatten(), nn.Linear(12, 3)) for _ in range(4)]
    pixels = torch.rand(5, 3, 2, 2)
    expected = torch.stack([member(pixels).softmax(1) for member in members]).mean(0)
    torch.testing.assert_close(Vote(members, "soft")(pixels)[0], expected)
    assert set(Vote(members, "hard")(pixels)[0].unique().tolist()) <= {0, 0.25, 0.5, 0.75, 1}
