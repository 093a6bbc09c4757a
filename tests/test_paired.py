"""Two models on the same images, on cases small enough to check by hand."""

import numpy as np
import pytest

from nightshift.evaluation.metrics.paired import compare, paired_interval


def right(share: float, count: int = 100) -> np.ndarray:
    return np.arange(count) < round(share * count)


def test_wins_and_losses_are_images_that_one_of_them_has_right():
    first = np.array([True] * 3 + [False] + [True] * 6)
    second = np.array([False] * 3 + [True] + [True] * 6)
    found = compare(first, second)
    assert (found.images, found.wins, found.losses) == (10, 3, 1)
    assert found.difference == pytest.approx(0.2)
    # Of 4 images 3 or more to one side: 2 * (4 + 1) / 16.
    assert found.p_value == pytest.approx(0.625)
    assert (found.low, found.high) == paired_interval(first, second)


def test_models_that_never_differ_are_equal():
    assert compare(right(0.9), right(0.9)).p_value == 1
    low, high = paired_interval(right(0.9), right(0.9))
    assert low < 0 < high


def test_no_images_are_no_difference():
    none = np.zeros(0, bool)
    found = compare(none, none)
    assert (found.images, found.difference, found.p_value) == (0, 0, 1)


def test_paired_interval_is_agresti_and_min_s():
    # 20 pairs won, 10 lost, of 100: (20.5 - 10.5) / 102, and its spread.
    first = np.array([True] * 20 + [False] * 10 + [True] * 70)
    second = np.array([False] * 20 + [True] * 10 + [True] * 70)
    low, high = paired_interval(first, second)
    assert (low + high) / 2 == pytest.approx(10 / 102)
    assert (high - low) / 2 == pytest.approx(1.959964 * (31 - 100 / 102) ** 0.5 / 102)
