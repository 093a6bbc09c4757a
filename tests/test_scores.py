"""Scores of predictions that were counted by hand."""

import numpy as np
import pytest

from tasks.errors import InputError
from tasks.metrics.scores import judge

CLASSES = ("cat", "dog", "owl")


def judged(labels, predicted, classes=CLASSES):
    return judge(np.array(labels, np.int64), np.array(predicted, np.int64), classes)


def test_scores_of_a_small_case():
    quality = judged([0, 0, 0, 1, 1, 2], [0, 0, 1, 1, 1, 0])
    assert quality.images == 6
    assert quality.accuracy == pytest.approx(4 / 6)
    assert quality.confusion == ((2, 1, 0), (0, 2, 0), (1, 0, 0))
    assert quality.per_class["cat"] == pytest.approx(
        {"precision": 2 / 3, "recall": 2 / 3, "f1": 2 / 3, "images": 3}
    )
    assert quality.per_class["dog"] == pytest.approx(
        {"precision": 2 / 3, "recall": 1, "f1": 0.8, "images": 2}
    )
    assert quality.per_class["owl"] == pytest.approx({"precision": 0, "recall": 0, "f1": 0, "images": 1})
    assert quality.recall == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert quality.f1 == pytest.approx((2 / 3 + 0.8 + 0) / 3)


def test_a_class_without_images_does_not_pull_the_means_down():
    quality = judged([0, 1], [0, 1])
    assert (quality.precision, quality.recall, quality.f1) == (1, 1, 1)
    assert set(quality.per_class) == {"cat", "dog"}


def test_a_class_outside_the_data_set_is_wrong_and_in_no_column():
    quality = judged([0, 1, 1], [0, -1, 1])
    assert quality.accuracy == pytest.approx(2 / 3)
    assert quality.confusion == ((1, 0, 0), (0, 1, 0), (0, 0, 0))
    assert quality.per_class["dog"]["recall"] == 0.5


def test_nothing_but_outside_predictions_is_all_wrong():
    quality = judged([0, 1], [-1, -1])
    assert quality.accuracy == 0
    assert sum(map(sum, quality.confusion)) == 0


def test_numbers_are_plain_so_that_they_become_json():
    quality = judged([0, 1, 2], [0, 1, 2])
    assert type(quality.accuracy) is type(quality.precision) is float
    assert type(quality.confusion[0][0]) is int


def test_no_images_and_unequal_counts_are_refused():
    with pytest.raises(InputError, match="got 0 and 0"):
        judged([], [])
    with pytest.raises(InputError, match="got 2 and 1"):
        judged([0, 1], [0])
