"""How far the images of a data set have moved from those of an earlier one, from counts alone.

A profile counts images in fixed fine bins, so that any two data sets can be compared long after the images
of one are gone. Nothing here says that a model became worse: only that it now sees other images.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nightshift.errors import InputError
from nightshift.records import Profile

BINS: Final = 64


class Scale(NamedTuple):
    """How a property is binned: `BINS` equal steps from `low` to `high`, open at the ends."""

    low: float
    high: float
    logarithm: bool = False  # steps of log2(1 + value)

    def positions(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Where values lie on the scale, in bins from the lowest; float64 [N]."""
        scaled = np.log2(1 + values) if self.logarithm else values
        return (scaled - self.low) / (self.high - self.low) * BINS

    @property
    def edges(self) -> NDArray[np.float64]:
        """The borders of the bins in the property's own unit, float64 [BINS + 1]."""
        steps = np.linspace(self.low, self.high, BINS + 1)
        return np.exp2(steps) - 1 if self.logarithm else steps


SCALES: Final[Mapping[str, Scale]] = {
    "brightness": Scale(0, 1),  # mean luma
    "contrast": Scale(0, 0.5),  # standard deviation of the luma
    "sharpness": Scale(0, 20, logarithm=True),  # variance of the luma's Laplacian, at most about 2**20
    "pixels": Scale(0, 32, logarithm=True),  # width times height of the file's image: half an octave a bin
}
# The usual reading of the index: Lewis, An Introduction to Credit Scoring (1994); Siddiqi, Credit Risk
# Scorecards (2006). It is a convention of practitioners, not a test.
SMALL: Final = 0.1
LARGE: Final = 0.25
# What sampling alone may add to the index on average, and the most groups that a histogram is cut into.
NOISE: Final = 0.015
GROUPS: Final = 10
# Images to be expected from which their absence means something: the usual rule for chi-squared tests.
EXPECTED: Final = 5


def profile(index: pa.Table, keep: NDArray[np.bool_]) -> Profile:
    """Class counts and histograms of the rows of an index for which keep, bool [N], holds."""
    rows = index.select(["label", "width", "height", "brightness", "contrast", "sharpness"]).filter(
        pa.array(keep)
    )
    size = rows["width"].to_numpy().astype(np.float64) * rows["height"].to_numpy()
    values = {"pixels": size} | {name: rows[name].to_numpy() for name in SCALES if name != "pixels"}
    counts = rows["label"].value_counts().to_pylist()
    return Profile(
        images=rows.num_rows,
        classes=dict(sorted((entry["values"], entry["counts"]) for entry in counts)),
        histograms={name: _histogram(values[name], scale) for name, scale in SCALES.items()},
    )


def merged(profiles: Sequence[Profile]) -> Profile:
    """The profile of several disjoint sets of images together."""
    classes: Counter[str] = Counter()
    histograms = {name: np.zeros(BINS, np.int64) for name in SCALES}
    for each in profiles:
        classes.update(each.classes)
        for name, counts in each.histograms.items():
            histograms[name] += np.array(counts, np.int64)
    return Profile(
        images=sum(each.images for each in profiles),
        classes=dict(sorted(classes.items())),
        histograms={name: tuple(counts.tolist()) for name, counts in histograms.items()},
    )


def drift(reference: Profile, now: Profile) -> dict[str, float]:
    """The population stability index of each property, and of the mix of classes as `classes`.

    Before counting, the bins are merged into groups that hold about equal shares of the reference, at most
    ten of a histogram (the deciles of scorecards) and fewer for small data sets: without any drift the index
    of G groups is on average (G - 1)(1/N + 1/M) (Yurdakul and Naranjo, Statistical properties of the
    population stability index, Journal of Risk Model Validation 14(4), 2020), and that is held to 0.015 where
    two groups allow it. Values beyond all that the reference showed, new classes, and classes that have gone
    are groups of their own as soon as five images on one side stand against none on the other.

    Raises InputError when one of the two has no images or was counted in other bins.
    """
    if not reference.images or not now.images:
        raise InputError(
            f"drift compares two data sets with images, got {reference.images} and {now.images}; "
            "leave out the empty one"
        )
    groups = max(2, int(1 + NOISE / (1 / reference.images + 1 / now.images)))
    deciles = min(GROUPS, groups)
    found = {
        name: psi(*_merged(reference.histograms.get(name, ()), now.histograms.get(name, ()), deciles))
        for name in SCALES
    }
    return found | {"classes": psi(*_merged_classes(reference, now, groups))}


def psi(reference: Sequence[int], now: Sequence[int]) -> float:
    """Population stability index of two lists of counts over the same groups: 0 or more, 0 for equal shares.

    The sum over groups of (q - p) ln(q / p) for shares p of the reference and q of now (Siddiqi, Credit Risk
    Scorecards, 2006), which is the symmetric Kullback-Leibler divergence of Jeffreys. Groups that are empty
    in both are left out. To each of the others half an image is added on both sides, so that a group that
    is empty on one side counts by how many images could have shown it, and not without limit.

    Raises InputError for lists of different lengths or without images.
    """
    if len(reference) != len(now) or not sum(reference) or not sum(now):
        raise InputError(
            "a stability index needs two histograms with images in the same bins, "
            f"got {sum(reference)} images in {len(reference)} bins and {sum(now)} in {len(now)}; "
            "profile both data sets again"
        )
    counts = np.array([reference, now], np.float64)
    counts = counts[:, counts.any(axis=0)] + 0.5
    p, q = counts / counts.sum(axis=1, keepdims=True)
    return float(((q - p) * np.log(q / p)).sum())


def words(index: float) -> str:
    """The usual reading of a stability index."""
    return "stable" if index < SMALL else "some drift" if index <= LARGE else "large drift"


def _histogram(values: NDArray[np.float64], scale: Scale) -> tuple[int, ...]:
    bins = np.clip(scale.positions(values.astype(np.float64)), 0, BINS - 1).astype(np.int64)
    return tuple(np.bincount(bins, minlength=BINS).tolist())


def _merged(reference: Sequence[int], now: Sequence[int], groups: int) -> tuple[list[int], list[int]]:
    """Neighbouring bins merged by the quantile of the reference in which their middle lies.

    A bin with a large share stands alone, whatever its neighbours hold; what lies below the lowest or above
    the highest image of the reference gets a group of its own.
    """
    if len(reference) != len(now):
        return list(reference), list(now)  # for psi to refuse
    before, after = np.array(reference, np.float64), np.array(now, np.float64)
    total = max(1.0, before.sum())
    middle = (np.cumsum(before) - before / 2) / total
    beyond = EXPECTED * max(1.0, after.sum()) / total
    below, above = (after[outside].sum() >= beyond for outside in (middle <= 0, middle >= 1))
    group = np.clip(np.floor(middle * groups), 0, groups - 1)
    group[(middle <= 0) & below] = -1
    group[(middle >= 1) & above] = groups
    places = group.astype(np.int64) + 1
    merged = [np.bincount(places, counts, groups + 2).astype(np.int64).tolist() for counts in (before, after)]
    return merged[0], merged[1]


def _merged_classes(reference: Profile, now: Profile, groups: int) -> tuple[list[int], list[int]]:
    """Classes of both merged from large to small, then those that have gone, then the new ones."""
    scale = now.images / reference.images
    gone = {n for n, count in reference.classes.items() if n not in now.classes and count * scale >= EXPECTED}
    new = {n for n, count in now.classes.items() if n not in reference.classes and count >= EXPECTED * scale}
    shared = (reference.classes.keys() | now.classes.keys()) - gone - new
    counts = {name: (reference.classes.get(name, 0), now.classes.get(name, 0)) for name in shared}
    # By the shares of both: by those of one, its chance winners would be grouped, and chance look like drift.
    order = sorted(shared, key=lambda name: (-counts[name][0] * scale - counts[name][1], name))
    before, after = ([counts[name][side] for name in order] for side in (0, 1))
    merged = _merged(before, after, groups)
    return (
        [*merged[0], sum(reference.classes[name] for name in gone), 0],
        [*merged[1], 0, sum(now.classes[name] for name in new)],
    )
