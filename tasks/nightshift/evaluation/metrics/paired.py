"""Two models on the same images: who was right where the other was not, and what chance explains of it."""

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from nightshift.records import Paired

NORMAL_95: Final = 1.959964


def compare(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> Paired:
    """Both bool [N], whether the model is right about each image.

    The p-value is that of McNemar's exact test: of the images that only one has right, each falls to either
    with equal chance when the two are equally good.
    """
    wins, losses = int(np.sum(first & ~second)), int(np.sum(second & ~first))
    low, high = paired_interval(first, second)
    return Paired(
        images=len(first),
        wins=wins,
        losses=losses,
        difference=(wins - losses) / max(1, len(first)),
        low=low,
        high=high,
        p_value=float(binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0,
    )


def worse_by_chance(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    """Probability that chance alone gives as many losses of the first: McNemar's exact test, one-sided.

    Both bool [N], whether the model is right about each image.
    """
    wins, losses = int(np.sum(first & ~second)), int(np.sum(second & ~first))
    return float(binomtest(losses, wins + losses, alternative="greater").pvalue) if losses else 1.0


def rejected(p_values: Sequence[float], significance: float) -> NDArray[np.bool_]:
    """Which of many hypotheses are rejected, bool [M], so that a false one is among them this seldom.

    Holm 1979, A simple sequentially rejective multiple test procedure: from the smallest p-value on, each is
    held against the significance divided by how many are left, until one is too large.
    """
    order = np.argsort(p_values, kind="stable")
    small = np.asarray(p_values)[order] <= significance / np.arange(len(order), 0, -1)
    found = np.zeros(len(order), np.bool_)
    found[order] = np.logical_and.accumulate(small)
    return found


def paired_interval(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> tuple[float, float]:
    """95 % interval of the difference in accuracy, first less second, on the same images.

    Agresti and Min 2005: the Wald interval for matched pairs after adding half a pair to each of the four
    cells, which keeps its coverage on small sets and when the two never differ.
    """
    count = len(first) + 2
    wins = float(np.sum(first & ~second)) + 0.5
    losses = float(np.sum(second & ~first)) + 0.5
    difference = (wins - losses) / count
    spread = NORMAL_95 * math.sqrt(max(0.0, wins + losses - (wins - losses) ** 2 / count)) / count
    return max(-1.0, difference - spread), min(1.0, difference + spread)
