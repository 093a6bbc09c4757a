"""Several networks as one model: they see the same pixels and vote on the class."""

from collections.abc import Callable, Sequence
from typing import Final

import torch
from torch import Tensor, nn

from nightshift.config import VoteRule


class Vote(nn.Module):
    """Networks side by side: float32 [N,C,H,W] in, probabilities float32 [N,K] and label int64 [N] out.

    It is what is served of an ensemble, not a network to train: it gives no logits.
    """

    def __init__(self, members: Sequence[nn.Module], rule: VoteRule) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.rule = rule

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        return RULES[self.rule](torch.stack([member(pixels) for member in self.members]))


def soft(logits: Tensor) -> tuple[Tensor, Tensor]:
    """The members' mean probabilities [N,K] and the likeliest class [N] of their logits float32 [M,N,K]."""
    probabilities = logits.softmax(2).mean(0)
    return probabilities, probabilities.argmax(1)


def hard(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Each class's share of the M votes, and the class with the most; logits and results as for `soft`.

    Between classes with equally many votes the mean probability decides, which leaves the shares as they
    are; between equal means the first class. No sum is needed for that: int8 would round its terms.
    """
    classes = torch.arange(logits.shape[2], device=logits.device)
    shares = (logits.argmax(2, keepdim=True) == classes).float().mean(0)
    leading = shares == shares.amax(1, keepdim=True)
    return shares, torch.where(leading, logits.softmax(2).mean(0), -1.0).argmax(1)


RULES: Final[dict[VoteRule, Callable[[Tensor], tuple[Tensor, Tensor]]]] = {"soft": soft, "hard": hard}
