"""Curves of each class against all others."""

import numpy as np
import pytest

from nightshift.evaluation.metrics.curves import POINTS, curves


def test_a_class_that_is_told_apart_perfectly_has_an_area_of_one():
    labels = np.array([0, 0, 1, 1])
    shares = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.4, 0.6]], np.float32)
    cat, dog = curves(labels, shares, ("cat", "dog"))
    assert (cat.name, dog.name) == ("cat", "dog")
    assert cat.roc_auc == cat.average_precision == dog.roc_auc == 1
    assert (cat.false_positive_rate[0], cat.true_positive_rate[-1]) == (0, 1)


def test_one_image_in_the_wrong_place_costs_its_pairs():
    labels = np.array([0, 0, 1, 1])
    shares = np.array([[0.9, 0], [0.3, 0], [0.4, 0], [0.1, 0]], np.float32)
    (cat, _) = curves(labels, shares, ("cat", "dog"))
    assert cat.roc_auc == pytest.approx(3 / 4)
    assert cat.average_precision == pytest.approx((1 + 2 / 3) / 2)


def test_classes_without_images_or_without_others_have_no_curve():
    shares = np.full((3, 2), 0.5, np.float32)
    assert curves(np.zeros(3, np.int64), shares, ("cat", "dog")) == ()


def test_long_curves_are_thinned_and_keep_their_ends():
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 2, 5000)
    share = generator.random(5000).astype(np.float32)
    for curve in curves(labels, np.stack([share, 1 - share], 1), ("cat", "dog")):
        assert len(curve.false_positive_rate) <= POINTS
        assert len(curve.precision) <= POINTS
        assert (curve.false_positive_rate[0], curve.false_positive_rate[-1]) == (0, 1)
        assert curve.recall[0] == 1
