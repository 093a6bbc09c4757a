"""Figures of how good a model is: confusion, reliability, curves.

Colours are those of Okabe and Ito (Color Universal Design, 2008), told apart with any colour vision.
"""

import io
from collections.abc import Mapping, Sequence
from typing import Final

from matplotlib.figure import Figure

from nightshift.records import ClassScores, Curve, Reliability

COLOURS: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
MOST_CURVES: Final = 8  # told apart by colour; of more classes the worst are shown
DPI: Final = 110


def confusion(scores: ClassScores, classes: Sequence[str]) -> bytes:
    """The confusion matrix as a PNG: shares of each true class, with counts where there is room."""
    count = len(classes)
    side = max(3.5, min(12.0, 1.2 + 0.45 * count))
    figure = Figure(figsize=(side, side), layout="constrained", dpi=DPI)
    axes = figure.subplots()
    shares = [[cell / max(1, sum(row)) for cell in row] for row in scores.confusion]
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set(
        xlabel="predicted class", ylabel="true class", title=f"{scores.model}, {scores.images:,} test images"
    )
    if count <= 40:
        names = [plain(name) for name in classes]
        axes.set_xticks(range(count), names, rotation=90 if max(map(len, names)) > 3 else 0)
        axes.set_yticks(range(count), names)
    if count <= 20:
        for y, row in enumerate(scores.confusion):
            for x, cell in enumerate(row):
                if cell:
                    colour = "white" if shares[y][x] > 0.5 else "black"
                    axes.text(x, y, str(cell), ha="center", va="center", color=colour, fontsize=8)
    return png(figure)


def reliability(models: Mapping[str, Reliability]) -> bytes:
    """Accuracy against confidence of every model, above a histogram of the first one's confidence; a PNG."""
    figure = Figure(figsize=(5.2, 5.2), layout="constrained", dpi=DPI)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    above.plot([0, 1], [0, 1], color="#999999", linestyle=":", label="as sure as right")
    for (name, found), colour in zip(models.items(), COLOURS, strict=False):
        above.plot(
            found.confidence, found.accuracy, marker="o", markersize=4, color=colour, label=plain(name)
        )
    above.set(ylabel="accuracy", xlim=(0, 1.02), ylim=(0, 1.04))
    above.legend(loc="upper left", frameon=False)
    first = next(iter(models.values()))
    below.bar(first.confidence, first.images, width=0.07, color=COLOURS[0])
    below.set(xlabel="confidence", ylabel="images", yscale="log")
    return png(figure)


def curves(found: Sequence[Curve]) -> bytes:
    """ROC and precision-recall curves side by side, of the classes with the smallest areas; a PNG."""
    worst = sorted(found, key=lambda curve: curve.average_precision)[:MOST_CURVES]
    figure = Figure(figsize=(9.4, 4.4), layout="constrained", dpi=DPI)
    left, right = figure.subplots(1, 2)
    for curve, colour in zip(worst, COLOURS, strict=False):
        roc, label = f"{curve.roc_auc:.4f}", plain(curve.name)
        left.plot(curve.false_positive_rate, curve.true_positive_rate, color=colour, label=f"{label} {roc}")
        area = f"{curve.average_precision:.4f}"
        right.plot(curve.recall, curve.precision, color=colour, label=f"{label} {area}")
    left.set(xlabel="false positive rate", ylabel="true positive rate", title="ROC, area")
    right.set(xlabel="recall", ylabel="precision", title="precision and recall, average precision")
    for axes, place in ((left, "lower right"), (right, "lower left")):
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.04))
        axes.legend(loc=place, fontsize=8, frameon=False)
    return png(figure)


def png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def plain(name: str, most: int = 24) -> str:
    """A name for a figure: not too long, and without the dollar signs that start formulas."""
    return (name if len(name) <= most else name[: most - 1] + "…").replace("$", r"\$")
