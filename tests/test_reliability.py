"""Confidence against how often it was right."""

import numpy as np
import pytest

from nightshift.evaluation.metrics.reliability import reliability


def test_images_are_binned_by_confidence_and_empty_bins_left_out():
    confidence = np.array([0.55, 0.51, 0.95, 1.0, 0.99], np.float32)
    found = reliability(confidence, np.array([True, False, True, True, False]))
    assert found.images == (2, 3)
    assert found.confidence == pytest.approx((0.53, 0.98))
    assert found.accuracy == pytest.approx((0.5, 2 / 3))
