"""The picture of a training: loss, accuracy and learning rate by epoch."""

import io
from collections.abc import Sequence
from typing import Final

from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator
from PIL import Image

from nightshift.records.models import Epoch

TRAIN: Final = "#0072B2"  # the colours of the splits in the data card
VALIDATION: Final = "#E69F00"
BEST: Final = "#5A5A5A"
COLOURS: Final = 128  # enough for lines and letters, at a third of the size
MARKED: Final = 40  # epochs, up to which each is a point


def figure(epochs: Sequence[Epoch], title: str) -> bytes:
    """The picture as a PNG of 800 by 900 pixels, less than 100,000 bytes."""
    numbers = [epoch.number for epoch in epochs]
    best = max(epochs, key=lambda epoch: epoch.validation_accuracy)
    layout = ConstrainedLayoutEngine(w_pad=0.15, h_pad=0.1)  # inches
    drawing = Figure(figsize=(8, 9), dpi=100, layout=layout, facecolor="white")
    drawing.suptitle(title, fontweight="bold")
    loss, accuracy, rate = drawing.subplots(3, 1, sharex=True, height_ratios=(3, 3, 2))
    how = {"marker": "o" if len(epochs) <= MARKED else "", "markersize": 4, "linewidth": 1.8}
    loss.plot(
        numbers, [epoch.train_loss for epoch in epochs], color=TRAIN, label="training, as minimised", **how
    )
    losses = [epoch.validation_loss for epoch in epochs]
    loss.plot(numbers, losses, color=VALIDATION, label="validation, cross-entropy", **how)
    shares = [100 * epoch.validation_accuracy for epoch in epochs]
    accuracy.plot(numbers, shares, color=VALIDATION, label="validation", **how)
    rate.plot(numbers, [epoch.learning_rate for epoch in epochs], color=TRAIN, **how)
    loss.set(ylabel="loss (nats)")
    accuracy.set(ylabel="accuracy (%)")
    rate.set(ylabel="learning rate", xlabel="epoch")
    rate.xaxis.set_major_locator(MaxNLocator(integer=True))
    words = f"best: {100 * best.validation_accuracy:.2f} %, epoch {best.number}, {duration(best.seconds)}"
    where = (best.number, 100 * best.validation_accuracy)
    accuracy.plot(*where, "o", color=BEST, markersize=10, fillstyle="none", label=words)
    last = epochs[-1]
    accuracy.set_title(
        f"{shares[-1]:.2f} % after {len(epochs)} epochs in {duration(last.seconds)}, "
        f"{last.images_per_second:,.0f} images/s",
        fontsize=10,
    )
    for axes in (loss, accuracy, rate):
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        axes.margins(x=0.02)
    loss.legend(loc="upper right")
    accuracy.legend(loc="lower right")
    drawing.align_ylabels()
    return _png(drawing)


def _png(drawing: Figure) -> bytes:
    large, small = io.BytesIO(), io.BytesIO()
    drawing.savefig(large, format="png")
    Image.open(large).convert("RGB").quantize(
        COLOURS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE
    ).save(small, format="png")
    return small.getvalue()


def duration(seconds: float) -> str:
    """Such as `42 s`, `12 min 5 s` or `1 h 12 min`."""
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"
