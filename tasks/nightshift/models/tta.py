"""Test-time augmentation: a network that looks at an image and at its mirror image."""

import torch
from torch import Tensor, nn


class FlipTTA(nn.Module):
    """float32 [N,C,H,W] in; out are logits [N,K] whose softmax is the mean of both images' probabilities.

    Both go through the network as one batch, so that the graph holds it once.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> Tensor:
        logits: Tensor = self.network(torch.cat([pixels, pixels.flip(3)]))
        return logits.log_softmax(1).reshape(2, -1, logits.shape[1]).logsumexp(0)
