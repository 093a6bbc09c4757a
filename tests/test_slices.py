"""Accuracy by what is known about the images."""

import numpy as np
import pytest

from nightshift.evaluation.metrics.slices import Answers, slices


def found(columns, right, known=None):
    right = np.array(right, bool)
    known = np.ones(len(right), bool) if known is None else np.array(known, bool)
    return slices(columns, {"int8": Answers(right, known)})


def test_texts_are_sliced_by_value():
    rows = found({"camera": ["b"] * 5 + ["a"] * 5}, [1, 1, 1, 0, 0, 1, 1, 1, 1, 1])
    assert [(row.column, row.value, row.images, row.accuracy) for row in rows] == [
        ("camera", "a", 5, {"int8": 1.0}),
        ("camera", "b", 5, {"int8": pytest.approx(0.6)}),
    ]


def test_numbers_are_cut_into_quarters_of_equally_many_images():
    rows = found({"brightness": np.linspace(0, 1, 100).tolist()}, np.arange(100) >= 25)
    assert [row.images for row in rows] == [25, 25, 25, 25]
    assert [row.accuracy["int8"] for row in rows] == [0, 1, 1, 1]
    assert rows[0].value == "0 to 0.25"


def test_few_numbers_are_sliced_by_value_in_their_order():
    rows = found({"side": [128] * 5 + [16] * 5}, [1] * 10)
    assert [row.value for row in rows] == ["16", "128"]


def test_small_slices_are_left_out_and_missing_values_are_one():
    rows = found({"camera": ["a"] * 4 + [None] * 6}, [1] * 10)
    assert [(row.value, row.images) for row in rows] == [("missing", 6)]


def test_rare_values_are_others():
    values = [f"common-{number}" for number in range(20) for _ in range(6)] + [f"rare-{n}" for n in range(5)]
    rows = found({"camera": values}, [1] * len(values))
    assert len(rows) == 21
    assert (rows[-1].value, rows[-1].images) == ("others", 5)


def test_a_model_is_judged_on_the_images_of_classes_that_it_knows():
    (row,) = found({"camera": ["a"] * 6}, [1, 1, 1, 0, 0, 0], known=[1, 1, 1, 1, 0, 0])
    assert row.accuracy == {"int8": pytest.approx(0.75)}
    (row,) = found({"camera": ["a"] * 6}, [0] * 6, known=[0] * 6)
    assert row.accuracy == {}
