"""Test images for people to look at, each beside where the network looked."""

import math
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from nightshift.records import Example
from nightshift.report.quality import plain, png

Pixels = NDArray[np.uint8]
COLUMNS: Final = 4
DPI: Final = 80
SIDE: Final = 160  # pixels; larger images are thinned out, which the eye does not see in a picture this small


def grid(
    examples: Sequence[Example], images: Pixels, overlays: Mapping[int, Pixels], *, suspected: bool = False
) -> bytes:
    """A PNG of the examples from uint8 [N,H,W,C], with overlays uint8 [H,W,3] by row where there are any."""
    rows = math.ceil(len(examples) / COLUMNS)
    figure = Figure(figsize=(9.6, 1.85 * rows), layout="constrained", dpi=DPI)
    cells = figure.subplots(rows, COLUMNS, squeeze=False).ravel()
    for axes in cells:
        axes.set_axis_off()
    for axes, example in zip(cells, examples, strict=False):
        picture = shown(images[example.row])
        beside = overlays.get(example.row)
        pair = picture if beside is None else np.concatenate([picture, shown(beside)], axis=1)
        axes.imshow(pair, interpolation="nearest")
        axes.set_title(_caption(example, suspected), fontsize=9)
    return png(figure)


def shown(image: Pixels) -> Pixels:
    """uint8 [H,W,3] of uint8 [H,W,C]: colours as they are, of other channels the mean."""
    if image.shape[2] != 3:
        image = image.mean(2, keepdims=True).astype(np.uint8).repeat(3, 2)
    step = max(1, min(image.shape[:2]) // SIDE)
    return image[::step, ::step]


def _caption(example: Example, suspected: bool) -> str:
    label, predicted = plain(example.label, 16), plain(example.predicted, 16)
    if suspected:
        return f"labelled {label} ({example.own:.1%})\nlooks like {predicted} ({example.confidence:.1%})"
    if example.label == example.predicted:
        return f"{label}\nonly {example.own:.1%} sure"
    return f"{label} ({example.own:.1%})\ntaken for {predicted} ({example.confidence:.1%})"
