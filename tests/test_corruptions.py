"""Corrupted images: worse with severity, the same with the seed, whatever the side and the channels."""

import cv2
import numpy as np
import pytest
from sklearn.datasets import load_sample_images

from nightshift.errors import InputError
from nightshift.evaluation.metrics.corruptions import FAMILIES, SEVERITIES, corrupt


def photos(side: int) -> np.ndarray:
    """Two photos, uint8 [2,side,side,3]."""
    squares = [image[:, 100:527] for image in load_sample_images().images]
    return np.stack([cv2.resize(each, (side, side), interpolation=cv2.INTER_AREA) for each in squares])


def test_there_are_fifteen():
    assert len(FAMILIES) == 15


@pytest.mark.parametrize("side", [32, 224])
@pytest.mark.parametrize("family", FAMILIES)
def test_each_severity_changes_more_than_the_one_before(family, side):
    images = photos(side)
    changes = [
        np.abs(corrupt(images, family, severity, 0).astype(int) - images).mean() for severity in SEVERITIES
    ]
    assert changes == sorted(changes), changes
    assert changes[0] > 0.3
    assert changes[4] < 90


@pytest.mark.parametrize("family", FAMILIES)
def test_the_mildest_severity_is_seen_on_the_smallest_images(family):
    images = photos(8)
    assert not np.array_equal(corrupt(images, family, 1, 0), images)


@pytest.mark.parametrize("family", FAMILIES)
def test_an_image_becomes_the_same_in_any_company(family):
    images = photos(16)
    both = corrupt(images, family, 3, 5)
    assert np.array_equal(corrupt(images[1:], family, 3, 5), both[1:])


@pytest.mark.parametrize("family", ["gaussian_noise", "fog", "motion_blur", "elastic_transform"])
def test_the_seed_decides(family):
    images = photos(16)
    assert not np.array_equal(corrupt(images, family, 3, 1), corrupt(images, family, 3, 2))


@pytest.mark.parametrize("channels", [1, 2, 5])
@pytest.mark.parametrize("family", FAMILIES)
def test_images_of_other_channels_and_eight_pixels_are_corrupted_too(family, channels):
    images = np.random.default_rng(0).integers(60, 200, (2, 8, 8, channels)).astype(np.uint8)
    changed = corrupt(images, family, 5, 0)
    assert (changed.shape, changed.dtype) == (images.shape, np.uint8)
    assert not np.array_equal(changed, images)


@pytest.mark.parametrize(("family", "severity"), [("rain", 1), ("fog", 6)])
def test_an_unknown_corruption_is_refused(family, severity):
    with pytest.raises(InputError, match=rf"corruption '{family}' of severity {severity} is unknown"):
        corrupt(photos(8), family, severity, 0)
