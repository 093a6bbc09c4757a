"""The picture of a training is small, light, and shows what it says."""

import math
import warnings

import cv2
import numpy as np
import pytest

from nightshift.records.models import Epoch
from nightshift.report.training_curves import TRAIN, VALIDATION, duration, figure


def epochs_of(count: int) -> list[Epoch]:
    return [
        Epoch(
            n,
            2 * math.exp(-n / 9),
            1 - 0.8 * math.exp(-n / 5),
            1.8 * math.exp(-n / 7),
            0.1 / n,
            800.0,
            40.0 * n,
        )
        for n in range(1, count + 1)
    ]


def shown(picture: np.ndarray, colour: str) -> np.ndarray:
    """Where a colour such as `#0072B2` is, roughly."""
    wanted = [int(colour[start : start + 2], 16) for start in (5, 3, 1)]
    return np.abs(picture.astype(int) - wanted).max(axis=2) < 24


@pytest.mark.parametrize("count", [1, 12, 300])
def test_the_picture_is_small_light_and_has_both_splits(count):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = figure(epochs_of(count), "cifar10, resnet18, member 0")
    picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape == (900, 800, 3)
    assert len(data) < 100_000
    assert (picture == 255).all(axis=2).mean() > 0.8
    upper, middle, lower = np.split(picture, [340, 650])
    assert shown(upper, TRAIN).any()
    assert shown(upper, VALIDATION).any()
    assert shown(middle, VALIDATION).any()
    assert not shown(middle, TRAIN).any()
    assert shown(lower, TRAIN).any()


def test_accuracy_rises_to_the_right():
    picture = cv2.imdecode(np.frombuffer(figure(epochs_of(100), "t"), np.uint8), cv2.IMREAD_COLOR)
    rows, columns = np.nonzero(shown(picture[340:650, 80:460], VALIDATION))  # left of the legend
    heights = [rows[columns == column].mean() for column in np.unique(columns)]
    assert heights[-1] < heights[0] - 100
    assert np.all(np.diff(heights) < 3)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "0 s"), (42.2, "42 s"), (59.7, "1 min 0 s"), (725, "12 min 5 s"), (7900, "2 h 11 min")],
)
def test_durations_are_said_in_words(seconds, words):
    assert duration(seconds) == words
