"""What the gates look at, and the form of what they say."""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nightshift.records import ClassScores, Drift, Robustness, Verdict

ROUNDING: Final = 1e-9  # 0.985 - 0.98 must not exceed a limit of 0.005
Right = NDArray[np.bool_]


class Rival(NamedTuple):
    """Another model, and who was right on the images whose class it knows.

    `labels` are the images' true classes, int64 [N]; `challenger_right` and `rival_right` are bool [N].
    """

    version: str  # of a champion; the float reference has none
    scores: ClassScores
    labels: NDArray[np.int64]
    challenger_right: Right
    rival_right: Right


class Case(NamedTuple):
    """The chosen candidate, its float reference and the champions on the same test images."""

    chosen: str
    reference: str  # the float candidate of the same networks
    classes: tuple[str, ...]
    scores: ClassScores
    validation: Mapping[str, float]  # accuracy per candidate
    float32: Rival  # the reference on the test images
    champion_version: str | None  # the present champion, whether or not it can be judged on these images
    lost_classes: tuple[str, ...]  # that the champion knows and the challenger does not
    champion: Rival | None  # the present champion, where it knows a class of these images
    best: Rival | None  # the best champion so far; the present one when it is that
    robustness: Robustness | None
    fresher: bool  # made of other data than the champion
    drift: Drift | None  # of the data from the champion's training data
    leakage: float  # training images that look like a validation or test image, as a share of all
    data_age_days: float | None  # of the newest image, None where the source does not tell
    new_classes: tuple[str, ...]
    pair_sum: int | None  # see `nightshift.inference.pair_sums`; None where the file need not be portable


def lead(rival: Rival) -> float:
    """How far a rival is ahead of the challenger on the images of classes that it knows, -1 to 1."""
    return mean(rival.rival_right) - mean(rival.challenger_right)


def champions_corrupted(case: Case) -> float | None:
    """The champion's mean accuracy on corrupted images, where it knows the class of every image."""
    tried = case.robustness
    if tried is None or not tried.corruptions or case.new_classes or "champion" not in tried.clean:
        return None
    return tried.corrupted("champion")


def at_most(gate: str, value: float, limit: float, sentence: str, champion: float | None = None) -> Verdict:
    passed = value <= limit + ROUNDING
    return Verdict(gate=gate, passed=passed, value=value, limit=limit, champion=champion, sentence=sentence)


def at_least(gate: str, value: float, limit: float, sentence: str, champion: float | None = None) -> Verdict:
    passed = value >= limit - ROUNDING
    return Verdict(gate=gate, passed=passed, value=value, limit=limit, champion=champion, sentence=sentence)


def points(difference: float) -> str:
    return f"{100 * difference:+.2f}"


def mean(right: Right) -> float:
    return float(right.mean()) if len(right) else 0.0


def some(names: Sequence[str], most: int = 5) -> str:
    """The first few names, and how many more there are: a thousand fit into no limit."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
