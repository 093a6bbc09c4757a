"""Squares of one size, denoising and smoothing."""

import cv2
import numpy as np
import pytest

from nightshift.config import PreprocessSettings
from nightshift.data.transforms import Pixels, Whole, clean, denoise, resize, scale_for, smooth

RED = (255, 0, 0)


def plain(height: int, width: int) -> Pixels:
    return np.full((height, width, 3), RED, np.uint8)


def noise(height: int, width: int) -> Pixels:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def squared(image: Pixels, side: int, how: str) -> Pixels:
    return resize(image, Whole(image.shape[1], image.shape[0]), side, how)


def test_crop_takes_the_centre_square() -> None:
    image = np.zeros((8, 16, 3), np.uint8)
    image[:, 4:12] = RED
    for side in (4, 8, 16):
        assert (squared(image, side, "crop") == RED).all()
        assert (squared(image.transpose(1, 0, 2), side, "crop") == RED).all()


def test_letterbox_keeps_everything_between_black_bars() -> None:
    result = squared(plain(8, 16), 8, "letterbox")
    assert (result[2:6] == RED).all()
    assert not result[:2].any()
    assert not result[6:].any()
    assert squared(plain(1, 1000), 8, "letterbox").any()


def test_stretch_keeps_everything_without_bars() -> None:
    image = plain(8, 16)
    image[:, :8] = 0
    result = squared(image, 8, "stretch")
    assert (result[:, 4:] == RED).all()
    assert not result[:, :4].any()


def test_shrinking_averages_areas() -> None:
    """Every pixel counts: a fine chessboard becomes grey, not black or white."""
    board = np.indices((64, 64)).sum(0) % 2 * 255
    result = squared(np.repeat(board[..., None], 3, 2).astype(np.uint8), 8, "stretch")
    assert np.abs(result.astype(int) - 128).max() <= 1


@pytest.mark.parametrize("ratio", [1.1, 1.3, 1.55, 1.9, 2.5, 3.3, 5.7])
def test_less_gets_through_that_is_too_fine_than_with_opencv_s_area_filter(ratio: float) -> None:
    """Waves of every frequency beyond what the result can show, 256 pixels to 256 / ratio."""
    side = round(256 / ratio)
    frequencies = np.linspace(side / 512 * 1.05, 0.5, 40)
    phases = np.random.default_rng(0).uniform(0, 2 * np.pi, 40)
    waves = 128 + 100 * np.cos(2 * np.pi * frequencies[:, None] * np.arange(256) + phases[:, None])
    power = {"ours": 0.0, "area": 0.0}
    for wave in waves:
        image = np.ascontiguousarray(np.broadcast_to(np.rint(wave).astype(np.uint8)[:, None], (256, 256, 3)))
        area = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
        for name, result in (("ours", squared(image, side, "stretch")), ("area", area)):
            power[name] += float(result[2:-2].astype(float).var())
    assert power["ours"] < power["area"]
    coarse = cv2.resize(noise(9, 9), (256, 256), interpolation=cv2.INTER_CUBIC)
    area = cv2.resize(coarse, (side, side), interpolation=cv2.INTER_AREA)
    assert np.abs(squared(coarse, side, "stretch").astype(int) - area).max() <= 6


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5])
def test_a_processor_without_vector_units_gives_the_same_pixels(channels: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (203, 331, channels), np.uint8)
    fast = [squared(image, side, how) for side in (24, 100, 150, 240) for how in ("crop", "stretch")]
    cv2.setUseOptimized(False)
    try:
        assert not cv2.useOptimized()
        slow = [squared(image, side, how) for side in (24, 100, 150, 240) for how in ("crop", "stretch")]
    finally:
        cv2.setUseOptimized(True)
    assert all(np.array_equal(one, other) for one, other in zip(fast, slow, strict=True))


def test_the_right_size_is_left_alone() -> None:
    image = noise(32, 32)
    for how in ("crop", "letterbox", "stretch"):
        assert (squared(image, 32, how) == image).all()


@pytest.mark.parametrize("how", ["crop", "letterbox", "stretch"])
@pytest.mark.parametrize("size", [(400, 256), (403, 261), (256, 417)])
@pytest.mark.parametrize("scale", [2, 4])
def test_a_scaled_image_gives_what_the_whole_gives(how: str, size: tuple[int, int], scale: int) -> None:
    """The scaled image is made here as an ideal decoder would, its last pixels partly outside the whole."""
    width, height = size
    whole = cv2.resize(noise(9, 13), size, interpolation=cv2.INTER_CUBIC)
    padded = np.pad(whole, ((0, -height % scale), (0, -width % scale), (0, 0)), mode="edge").astype(float)
    blocks = padded.reshape(padded.shape[0] // scale, scale, padded.shape[1] // scale, scale, 3)
    scaled = np.rint(blocks.mean((1, 3))).astype(np.uint8)
    expected = resize(whole, Whole(*size), 16, how).astype(int)
    assert np.abs(resize(scaled, Whole(*size), 16, how) - expected).max() <= 6


@pytest.mark.parametrize(
    ("size", "how", "expected"),
    [
        ((4000, 3000), "crop", 4),
        ((4000, 3584), "crop", 8),
        ((4000, 3583), "crop", 4),
        ((4000, 3000), "letterbox", 8),
        ((4000, 3000), "stretch", 4),
        ((895, 895), "crop", 1),
        ((896, 896), "crop", 2),
    ],
)
def test_a_decoder_leaves_twice_what_the_resize_needs(size: tuple[int, int], how: str, expected: int) -> None:
    assert scale_for(Whole(*size), 224, how) == expected


@pytest.mark.parametrize("method", ["median", "bilateral", "nlmeans"])
def test_denoising_brings_a_noisy_image_nearer_to_the_clean_one(method: str) -> None:
    ramp = np.repeat(np.linspace(40, 200, 64).astype(np.uint8)[None, :, None], 64, 0).repeat(3, 2)
    noisy = np.clip(ramp + np.random.default_rng(0).normal(0, 8, ramp.shape), 0, 255).astype(np.uint8)
    errors = [
        np.abs(image.astype(int) - ramp).mean()
        for image in (noisy, *(denoise(noisy, method, n) for n in (1, 4)))
    ]
    assert errors[2] < errors[1] < errors[0]


def test_smoothing_evens_areas_out_and_keeps_edges() -> None:
    image = np.full((64, 64, 3), 60, np.uint8)
    image[:, 32:] = 200
    noisy = np.clip(image + np.random.default_rng(0).normal(0, 5, image.shape), 0, 255).astype(np.uint8)
    result = smooth(noisy, 0.3)
    assert result[:, :28].std() < noisy[:, :28].std() / 2
    assert result[:, 36:].mean() - result[:, :28].mean() > 130


def test_by_default_nothing_is_cleaned() -> None:
    image = noise(32, 32)
    assert np.array_equal(clean(image, PreprocessSettings()), image)


@pytest.mark.parametrize("changes", [{"denoise": "median"}, {"smoothing": 0.2}, {"denoise": "bilateral"}])
def test_settings_that_change_pixels_change_the_digest(changes: dict[str, object]) -> None:
    plain_settings = PreprocessSettings()
    changed = plain_settings.model_copy(update=changes)
    assert not np.array_equal(clean(noise(32, 32), changed), noise(32, 32))
    assert changed.digest() != plain_settings.digest()
    assert not changed.same_pixels(plain_settings)


def test_settings_that_change_no_pixels_are_told_apart() -> None:
    settings = PreprocessSettings()
    for changes in (
        {"max_pixels": 100},
        {"denoise_strength": 5},
        {"decode_seconds": 1.0},
        {"stored_size": 32},
    ):
        assert settings.same_pixels(settings.model_copy(update=changes))
    assert not settings.same_pixels(settings.model_copy(update={"scaled_decoding": False}))
