"""Test images as people see them in the report."""

import numpy as np
import pytest
from findings import example

from nightshift.records import Profile
from nightshift.report import predictions
from nightshift.report.image_grid import SIDE, grid, shown


def test_colours_stay_and_other_channels_become_grey():
    colours = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    assert np.array_equal(shown(colours), colours)
    assert shown(np.full((2, 2, 5), 7, np.uint8)).tolist() == [[[7, 7, 7]] * 2] * 2
    assert shown(np.full((2, 2, 1), 7, np.uint8)).shape == (2, 2, 3)


def test_large_images_are_thinned_out():
    assert max(shown(np.zeros((800, 900, 3), np.uint8)).shape) < 2 * SIDE


def test_a_grid_holds_any_number_of_pictures_with_and_without_overlays():
    images = np.random.default_rng(0).integers(0, 255, (9, 8, 8, 3)).astype(np.uint8)
    many = tuple(example(row=row, label="$" * 40) for row in range(9))
    sizes = [len(grid(many[:count], images, {2: images[0]})) for count in (1, 4, 5, 9)]
    assert sizes == sorted(sizes)


@pytest.mark.filterwarnings("error")
def test_the_picture_of_predictions_shows_names_of_strangers_as_they_are():
    names = ["<script>", "$\\frac{$", "$x$", "a\nb", "=cmd()", "x" * 500, "%s{{7*7}}"]
    found = Profile(images=len(names), classes=dict.fromkeys(names, 1), histograms={})
    plain = Profile(images=1, classes={"cat": 1}, histograms={})
    assert predictions.figure(found, plain, [1, 2, 3], {"brightness": 0.3}).startswith(b"\x89PNG")
