"""Scores of predictions that were counted by hand."""

import numpy as np
import pytest

from nightshift.errors import InputError
from nightshift.evaluation.metrics.scores import judge

CLASSES = ("cat", "dog", "owl")


def judged(labels, predicted, classes=CLASSES, probabilities=None):
    """Sure of what is predicted, unless probabilities are given; nothing for a class outside."""
    predicted = np.array(predicted, np.int64)
    if probabilities is None:
        probabilities = np.where(predicted[:, None] == np.arange(len(classes)), 1.0, 0.0)
    shares = np.array(probabilities, np.float32).reshape(-1, len(classes))
    return judge(np.array(labels, np.int64), predicted, shares, classes)


def counted(row):
    return {name: row[name] for name in ("precision", "recall", "f1", "images")}


def test_scores_of_a_small_case():
    quality = judged([0, 0, 0, 1, 1, 2], [0, 0, 1, 1, 1, 0])
    assert quality.images == 6
    assert quality.accuracy == pytest.approx(4 / 6)
    assert quality.confusion == ((2, 1, 0), (0, 2, 0), (1, 0, 0))
    assert counted(quality.per_class["cat"]) == pytest.approx(
        {"precision": 2 / 3, "recall": 2 / 3, "f1": 2 / 3, "images": 3}
    )
    assert counted(quality.per_class["dog"]) == pytest.approx(
        {"precision": 2 / 3, "recall": 1, "f1": 0.8, "images": 2}
    )
    assert counted(quality.per_class["owl"]) == pytest.approx(
        {"precision": 0, "recall": 0, "f1": 0, "images": 1}
    )
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


SHARES = [[0.7, 0.2, 0.1], [0.5, 0.4, 0.1], [0.3, 0.3, 0.4], [0.2, 0.5, 0.3]]


def test_probabilities_are_judged_too():
    quality = judged([0, 1, 2, 2], [0, 0, 2, 1], probabilities=SHARES)
    assert (quality.k, quality.top_k) == (2, 1.0)
    squares = (0.3**2 + 0.2**2 + 0.1**2, 0.5**2 + 0.6**2 + 0.1**2, 0.3**2 + 0.3**2 + 0.6**2)
    assert quality.brier == pytest.approx((sum(squares) + 0.2**2 + 0.5**2 + 0.7**2) / 4)
    # Each image in a bin of its own but the two at 0.5, of which none is right: |0.7-1|, |0.4-1|, 2 |0.5-0|.
    assert quality.calibration_error == pytest.approx((0.3 + 0.6 + 2 * 0.5) / 4)
    # cat: its one image is above all others; dog: its one is above two of three; owl: both above both.
    assert quality.per_class["cat"]["roc_auc"] == 1
    assert quality.per_class["dog"]["roc_auc"] == pytest.approx(2 / 3)
    assert quality.roc_auc == pytest.approx((1 + 2 / 3 + 1) / 3)
    assert quality.per_class["dog"]["average_precision"] == pytest.approx(1 / 2)


def test_weighted_means_count_images():
    quality = judged([0, 0, 0, 1], [0, 0, 1, 1])
    assert quality.weighted_precision == pytest.approx((3 * 1 + 1 * 0.5) / 4)
    assert quality.weighted_f1 == pytest.approx((3 * 0.8 + 1 * 2 / 3) / 4)


def test_two_classes_are_judged_as_more_are():
    quality = judged([0, 1, 1], [0, 1, 0], ("no", "yes"), [[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]])
    assert (quality.k, quality.top_k) == (1, pytest.approx(2 / 3))
    assert quality.roc_auc == 1


def test_images_of_one_class_have_no_curves():
    quality = judged([0, 0], [0, 1])
    assert quality.roc_auc is quality.average_precision is None
    assert set(quality.per_class["cat"]) == {"precision", "recall", "f1", "images"}


def test_intervals_hold_the_value_and_narrow_with_more_images():
    few = judged([0, 1, 2, 0] * 5, [0, 1, 2, 1] * 5)
    many = judged([0, 1, 2, 0] * 500, [0, 1, 2, 1] * 500)
    for quality in (few, many):
        assert quality.interval[0] < quality.accuracy < quality.interval[1]
        assert quality.f1_interval[0] < quality.f1 < quality.f1_interval[1]
    assert np.ptp(many.interval) < np.ptp(few.interval) / 5
    assert np.ptp(many.f1_interval) < np.ptp(few.f1_interval) / 5
    # Wilson's interval of 15 of 20, as textbooks give it.
    assert few.interval == pytest.approx((0.5313, 0.8881), abs=1e-4)


def test_all_right_is_not_certain():
    assert judged([0, 1] * 10, [0, 1] * 10).interval == pytest.approx((0.8389, 1.0), abs=1e-4)


def test_the_interval_of_f1_is_that_of_drawing_images_again():
    generator = np.random.default_rng(1)
    labels = generator.integers(0, 3, 200)
    predicted = np.where(generator.random(200) < 0.7, labels, generator.integers(-1, 3, 200))
    draws = [generator.integers(0, 200, 200) for _ in range(300)]
    found = [judged(labels[rows], predicted[rows]).f1 for rows in draws]
    expected = tuple(np.quantile(found, (0.025, 0.975)))
    assert judged(labels, predicted).f1_interval == pytest.approx(expected, abs=0.02)


def test_probabilities_that_are_no_numbers_are_refused():
    with pytest.raises(InputError, match="got others for 1 of 2 images"):
        judged([0, 1], [0, 1], probabilities=[[1, 0, 0], [np.nan, 0, 0]])
