"""Drift between data sets, on real digits where their scatter matters."""

import cv2
import numpy as np
import pyarrow as pa
import pytest
from sklearn.datasets import load_digits

from nightshift.data import drift, index
from nightshift.errors import InputError
from nightshift.records import Profile


def table(images: np.ndarray, labels: np.ndarray) -> pa.Table:
    """An index of grey images uint8 [N,H,W], by the columns that a profile needs."""
    rows = [
        {
            "label": str(label),
            "width": image.shape[1],
            "height": image.shape[0],
            "brightness": image.mean() / 255,
            "contrast": image.std() / 255,
            "sharpness": cv2.Laplacian(image, cv2.CV_32F).var(),
        }
        for image, label in zip(images, labels, strict=True)
    ]
    return pa.Table.from_pylist(rows, schema=index.SCHEMA)


def profile_of(images: np.ndarray, labels: np.ndarray) -> Profile:
    return drift.profile(table(images, labels), np.ones(len(images), np.bool_))


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray]:
    """400 digits, 32x32, in random order."""
    found = load_digits()
    chosen = np.random.default_rng(7).permutation(len(found.target))[:400]
    images = [cv2.resize(np.uint8(image * 15), (32, 32)) for image in found.images[chosen]]
    return np.stack(images), found.target[chosen]


def profile(classes: dict[str, int], **histograms: dict[int, int]) -> Profile:
    """A profile with these bins filled; all images in the middle bin of the other histograms."""
    images = sum(classes.values())
    filled = {name: histograms.get(name, {drift.BINS // 2: images}) for name in drift.SCALES}
    counts = {name: tuple(bins.get(b, 0) for b in range(drift.BINS)) for name, bins in filled.items()}
    return Profile(images=images, classes=classes, histograms=counts)


def test_the_index_agrees_with_the_formula_worked_by_hand():
    # Shares with half an image added: 99.5/200 and 100.5/200 against 49.5/100 and 50.5/100, and so on.
    p, q = np.array([80.5, 20.5]) / 101, np.array([50.5, 50.5]) / 101
    assert drift.psi([80, 20], [50, 50]) == pytest.approx(((q - p) * np.log(q / p)).sum())
    assert drift.psi([80, 0, 20], [50, 0, 50]) == drift.psi([80, 20], [50, 50])
    assert drift.psi([80, 20], [80, 20]) == 0
    assert drift.psi([80, 20], [50, 50]) == pytest.approx(drift.psi([50, 50], [80, 20]))


def test_an_empty_group_counts_more_the_more_images_could_have_shown_it():
    few, many = drift.psi([10, 10], [20, 0]), drift.psi([1000, 1000], [2000, 0])
    assert 0.25 < few < many < 10


def test_a_profile_counts_the_kept_rows_and_no_image_falls_off_the_scale(digits):
    images, labels = digits
    keep = np.arange(400) % 4 > 0
    found = drift.profile(table(images, labels), keep)
    assert found.images == 300 == sum(found.classes.values())
    assert found.classes == {str(c): int((labels[keep] == c).sum()) for c in range(10)}
    assert {name: sum(counts) for name, counts in found.histograms.items()} == dict.fromkeys(
        drift.SCALES, 300
    )
    extremes = np.stack([np.zeros((8, 8)), np.full((8, 8), 255), np.indices((8, 8)).sum(0) % 2 * 255])
    ends = profile_of(extremes.astype(np.uint8), np.zeros(3))
    assert ends.histograms["brightness"][0] == ends.histograms["brightness"][-1] == 1
    assert ends.histograms["contrast"][-1] == 1  # black and white in equal parts: 0.5
    assert all(sum(counts) == 3 for counts in ends.histograms.values())


def test_bins_are_where_the_scale_says(digits):
    images, labels = digits
    for name, scale in drift.SCALES.items():
        edges = scale.edges
        values = (edges[1:] + edges[:-1]) / 2
        assert scale.positions(values).astype(int).tolist() == list(range(drift.BINS)), name
    pixels = profile_of(images, labels).histograms["pixels"]
    place = pixels.index(400)
    assert drift.SCALES["pixels"].edges[place] <= 32 * 32 < drift.SCALES["pixels"].edges[place + 1]


@pytest.mark.parametrize("images", [300, 400])
def test_two_halves_of_a_few_hundred_images_are_stable(digits, images):
    found = []
    for seed in range(30):
        order = np.random.default_rng(seed).permutation(400)[:images]
        halves = order[: images // 2], order[images // 2 :]
        found.append(drift.drift(*(profile_of(digits[0][half], digits[1][half]) for half in halves)))
    for name in (*drift.SCALES, "classes"):
        assert np.median([psi[name] for psi in found]) < 0.018, name
        assert np.quantile([psi[name] for psi in found], 0.9) < drift.SMALL, name


@pytest.mark.parametrize(
    ("change", "moved"),
    [
        (lambda image: np.uint8(image * 0.8), "brightness"),
        (lambda image: np.uint8(image * 0.5 + 64), "contrast"),
        (lambda image: cv2.GaussianBlur(image, (0, 0), 1), "sharpness"),
        (lambda image: cv2.resize(image, (64, 64)), "pixels"),
    ],
    ids=["darkened", "flattened", "blurred", "enlarged"],
)
def test_changed_images_drift_far(digits, change, moved):
    images, labels = digits
    found = drift.drift(profile_of(images, labels), profile_of(np.stack([*map(change, images)]), labels))
    assert found[moved] > drift.LARGE
    assert found["classes"] == 0


def test_a_new_class_a_lost_class_and_another_mix_count():
    before = profile({"cat": 500, "dog": 500})
    assert drift.drift(before, profile({"cat": 400, "dog": 400, "owl": 200}))["classes"] > drift.LARGE
    assert drift.drift(profile({"cat": 400, "dog": 400, "owl": 200}), before)["classes"] > drift.LARGE
    assert drift.drift(before, profile({"cat": 850, "dog": 150}))["classes"] > drift.LARGE
    assert drift.drift(before, profile({"owl": 1000}))["classes"] > 1


def test_a_single_image_of_a_new_class_is_no_large_drift():
    before = profile({"cat": 100, "dog": 100})
    assert drift.drift(before, profile({"cat": 100, "dog": 100, "owl": 1}))["classes"] < drift.SMALL


@pytest.mark.parametrize("bin_", [3, 60])
def test_values_beyond_all_that_the_reference_showed_count(bin_):
    before = profile({"cat": 100}, pixels={30: 100})
    assert drift.drift(before, profile({"cat": 100}, pixels={30: 60, bin_: 40}))["pixels"] > drift.LARGE
    assert drift.drift(before, profile({"cat": 100}, pixels={bin_: 100}))["pixels"] > 1
    wide = profile({"cat": 100}, pixels={30: 50, 40: 50})
    stays = 40 if bin_ < 30 else 30
    assert drift.drift(wide, profile({"cat": 100}, pixels={bin_: 50, stays: 50}))["pixels"] > 1


def test_data_sets_without_images_or_with_other_bins_are_refused():
    whole = profile({"cat": 100})
    with pytest.raises(InputError, match="got 100 and 0"):
        drift.drift(whole, profile({}))
    other = whole.model_copy(update={"histograms": {**whole.histograms, "contrast": (50, 50)}})
    with pytest.raises(InputError, match="in 64 bins and 100 in 2"):
        drift.drift(whole, other)


def test_words_follow_the_usual_limits():
    assert [drift.words(psi) for psi in (0.05, 0.1, 0.25, 0.3)] == [
        "stable",
        "some drift",
        "some drift",
        "large drift",
    ]
