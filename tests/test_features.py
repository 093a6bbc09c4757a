"""Numbers about an image: what they mean, and that they are stable."""

import cv2
import numpy as np
import pytest

from nightshift.data.image_stats import features
from nightshift.data.transforms import Pixels


def photo(seed: int = 0, side: int = 64) -> Pixels:
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC), np.uint8)


def distance(first: int, second: int) -> int:
    return (first ^ second).bit_count()


def test_black_and_white_are_the_ends_of_the_scales() -> None:
    black, white = (features(np.full((32, 32, 3), level, np.uint8)) for level in (0, 255))
    assert black[:3] == (0, 0, 0)
    assert white[:3] == (1, 0, 0)
    half = np.zeros((32, 32, 3), np.uint8)
    half[:16] = 255
    assert features(half)[:2] == pytest.approx((0.5, 0.5))


def test_brightness_weighs_the_colours_as_luma() -> None:
    for channel, weight in enumerate((0.299, 0.587, 0.114)):
        image = np.zeros((32, 32, 3), np.uint8)
        image[..., channel] = 255
        assert features(image).brightness == pytest.approx(weight, abs=0.002)


def test_sharpness_is_the_variance_of_the_laplacian() -> None:
    image = photo()
    luma = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(int)
    around = np.pad(luma, 1, mode="reflect")
    laplacian = around[:-2, 1:-1] + around[2:, 1:-1] + around[1:-1, :-2] + around[1:-1, 2:] - 4 * luma
    assert features(image).sharpness == pytest.approx(laplacian.var())
    assert features(cv2.GaussianBlur(image, (0, 0), 3)).sharpness < features(image).sharpness


def test_images_that_look_alike_have_hashes_that_are_near() -> None:
    image = photo(side=224)
    jpeg = cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 40])[1], cv2.IMREAD_COLOR)
    brighter = np.clip(image.astype(int) * 0.8 + 20, 0, 255).astype(np.uint8)
    smaller = cv2.resize(image, (96, 96), interpolation=cv2.INTER_AREA)
    hashed = features(image).phash
    for alike in (jpeg, brighter, smaller):
        assert distance(features(np.asarray(alike, np.uint8)).phash, hashed) <= 4


def test_images_that_differ_have_hashes_that_are_far_apart() -> None:
    hashes = [features(photo(seed)).phash for seed in range(20)]
    apart = [distance(one, other) for number, one in enumerate(hashes) for other in hashes[:number]]
    assert min(apart) > 12
    assert 28 < np.mean(apart) < 36


def test_the_hash_is_that_of_the_cosine_transform() -> None:
    image = photo(3, side=32)
    frequencies = cv2.dct(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float64))[1:9, 1:9].ravel()
    expected = "".join(str(int(value > np.median(frequencies))) for value in frequencies)
    assert f"{features(image).phash:064b}" == expected


def test_the_thumbnail_is_a_small_copy_in_luma() -> None:
    image = np.repeat(np.arange(0, 256, 4, dtype=np.uint8)[None, :, None], 64, 0).repeat(3, 2)
    thumbnail = np.frombuffer(features(image).thumbnail, np.uint8).reshape(16, 16)
    assert np.abs(thumbnail[0].astype(int) - np.arange(6, 256, 16)).max() <= 1
    assert (thumbnail == thumbnail[0]).all()


@pytest.mark.parametrize("side", [8, 16, 33, 224])
def test_every_size_has_features_of_the_same_shape(side: int) -> None:
    found = features(photo(side=side))
    assert len(found.thumbnail) == 256
    assert 0 <= found.phash < 2**64
    assert found == features(photo(side=side))
