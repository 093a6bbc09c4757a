"""The picture of a prediction run: labels, how sure the model was, and how far the images moved."""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nightshift.data import drift
from nightshift.records import Profile
from nightshift.report.quality import COLOURS, DPI, plain, png

BARS = 30  # classes with a bar, the commonest


def figure(
    found: Profile, training: Profile | None, confidences: Sequence[int], moved: Mapping[str, float]
) -> bytes:
    """A PNG. `confidences` counts images in equal bins from 0 to 1, `moved` are stability indexes."""
    names = sorted(found.classes, key=lambda name: -found.classes[name])[:BARS]
    height = 2.2 + 0.24 * len(names)
    whole = Figure(figsize=(10.5, max(3.6, height)), layout="constrained", dpi=DPI)
    panels = whole.subplots(1, 3 if moved else 2)
    left, middle = panels[:2]
    _classes(left, names, found, training)
    edges = [place / len(confidences) for place in range(len(confidences))]
    middle.bar(edges, confidences, width=0.9 / len(confidences), align="edge", color=COLOURS[0])
    middle.set(xlabel="probability of the label", ylabel="images", title="confidence", xlim=(0, 1))
    if any(confidences):
        middle.set_yscale("log")
    if moved:
        _drift(panels[2], moved)
    whole.suptitle(f"{found.images:,} images")
    return png(whole)


def _classes(axes: Axes, names: Sequence[str], found: Profile, training: Profile | None) -> None:
    """Shares of the commonest classes, beside those of the data that the model learnt from."""
    places = range(len(names))
    total = max(1, found.images)
    axes.barh(
        [place - 0.2 for place in places],
        [found.classes[name] / total for name in names],
        height=0.4,
        color=COLOURS[0],
        label="predicted",
    )
    if training is not None:
        axes.barh(
            [place + 0.2 for place in places],
            [training.classes.get(name, 0) / max(1, training.images) for name in names],
            height=0.4,
            color=COLOURS[4],
            label="training data",
        )
    axes.set_yticks(places, [plain(name) for name in names])
    axes.invert_yaxis()
    rest = len(found.classes) - len(names)
    axes.set(xlabel="share of the images", title=f"classes, {rest} more not shown" if rest else "classes")
    if names:
        axes.legend(fontsize=8, loc="lower right")


def _drift(axes: Axes, moved: Mapping[str, float]) -> None:
    names = list(moved)
    axes.barh(range(len(names)), [moved[name] for name in names], color=COLOURS[2])
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    for limit, word in ((drift.SMALL, "small"), (drift.LARGE, "large")):
        axes.axvline(limit, color="#999999", linestyle=":")
        place = axes.get_xaxis_transform()  # up in shares of the height
        axes.text(limit, 0.01, f" {word}", transform=place, fontsize=8, color="#555555")
    axes.set(xlabel="population stability index", title="drift from the training data")
