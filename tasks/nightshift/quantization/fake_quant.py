"""A network that computes as its int8 file will: all is rounded, and gradients pass as if it were not.

Jacob et al., "Quantization and training of neural networks for efficient integer-arithmetic-only inference",
CVPR 2018. Weights are rounded per channel by their present extremes, activations by those of some images.
"""

import operator
from typing import Final

import torch
from torch import Tensor, fx, nn
from torch.nn.utils import parametrize

from nightshift.inference.pair_sums import WEIGHTS

LAYERS: Final = (nn.Conv2d, nn.Linear)
SUMS: Final = (operator.add, operator.iadd, torch.add)
SMALLEST: Final = 1e-8  # of a scale


def weight_scales(weight: Tensor, *, portable: bool) -> Tensor:
    """The step of each output channel, float32 [O], in which weights float32 [O,...] are rounded to int8.

    All 255 steps where two of the largest weights of one sign stay within what
    `nightshift.inference.pair_sums` allows, as many as do so elsewhere: 128 to both sides of zero where all
    weights are of one size.
    """
    flat = weight.detach().flatten(1)
    scales = flat.abs().amax(1) / 127
    if portable and flat.shape[1] > 1:
        for signed in (flat, -flat):
            pairs = signed.topk(2).values.clamp_min(0).sum(1)
            # A little more, so that two that end in .5 are not both rounded up.
            scales = torch.maximum(scales, pairs / WEIGHTS * (1 + 2**-20))
    return scales.clamp_min(SMALLEST)


class FakeQuantWeight(nn.Module):
    """float32 [O,...] to the nearest of the steps of each output channel."""

    def __init__(self, *, portable: bool) -> None:
        super().__init__()
        self.portable = portable

    def forward(self, weight: Tensor) -> Tensor:
        scale = weight_scales(weight, portable=self.portable)
        zero = torch.zeros_like(scale, dtype=torch.int32)
        return torch.fake_quantize_per_channel_affine(weight, scale, zero, 0, -127, 127)


class FakeQuantActivation(nn.Module):
    """float32 of any shape to the nearest of 256 steps between the extremes seen while `measures` was set."""

    low: Tensor
    high: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.measures = True
        self.register_buffer("low", torch.zeros(()))
        self.register_buffer("high", torch.zeros(()))

    def forward(self, values: Tensor) -> Tensor:
        if self.measures:
            self.low.copy_(torch.minimum(self.low, values.detach().amin()))
            self.high.copy_(torch.maximum(self.high, values.detach().amax()))
            return values
        scale = ((self.high - self.low) / 255).clamp_min(SMALLEST)
        zero = (-self.low / scale).round().to(torch.int32)
        return torch.fake_quantize_per_tensor_affine(values, scale, zero, 0, 255)


@torch.no_grad()
def insert_fake_quant(network: nn.Module, pixels: list[Tensor], *, portable: bool) -> fx.GraphModule:
    """A network that shares the layers of `network`, and rounds their weights and what they and sums take.

    `network` has its batch norm folded; `pixels` are batches, float32 [B,C,H,W], for the ranges. `portable`
    is that of the settings.
    """
    traced = fx.symbolic_trace(network)
    modules = dict(traced.named_modules())
    rounded: dict[fx.Node, fx.Node] = {}
    for node in list(traced.graph.nodes):
        if isinstance(modules.get(str(node.target)), LAYERS) or node.target in SUMS:
            for given in node.all_input_nodes:
                if given not in rounded:
                    name = f"rounded_{len(rounded)}"
                    traced.add_submodule(name, FakeQuantActivation())
                    with traced.graph.inserting_after(given):
                        rounded[given] = traced.graph.call_module(name, (given,))
                node.replace_input_with(given, rounded[given])
    traced.recompile()
    traced.eval()
    for batch in pixels:
        traced(batch)
    for module in traced.modules():
        if isinstance(module, FakeQuantActivation):
            module.measures = False
    for module in modules.values():  # only now: the file's ranges are those of unrounded weights
        if isinstance(module, LAYERS):
            parametrize.register_parametrization(module, "weight", FakeQuantWeight(portable=portable))
    return traced


def remove_fake_quant(network: nn.Module) -> None:
    """Give the layers their weights back as they are without rounding."""
    for module in network.modules():
        if isinstance(module, LAYERS) and parametrize.is_parametrized(module):
            parametrize.remove_parametrizations(module, "weight", leave_parametrized=False)
