"""The batches that need no files."""

import cv2
import numpy as np
import pytest

from nightshift.data.sources import Batch
from nightshift.data.sources.samples import sample
from nightshift.errors import InputError


def pixels(batch: Batch, index: int) -> np.ndarray:
    image = cv2.imdecode(np.frombuffer(batch.items[index].read(), np.uint8), cv2.IMREAD_UNCHANGED)
    assert image is not None
    return image


def test_digits_are_six_batches_of_every_class() -> None:
    batches = sample("digits")
    assert [batch.name for batch in batches] == [f"batch-{number}" for number in range(1, 7)]
    assert sum(len(batch.items) for batch in batches) == 1797
    assert len({item.key for batch in batches for item in batch.items}) == 1797
    for batch in batches:
        assert list(batch.classes) == [str(digit) for digit in range(10)]
        assert min(batch.classes.values()) > 15


def test_digits_are_grey_at_full_contrast_and_labelled_rightly() -> None:
    from sklearn.datasets import load_digits

    bundle, (batch, *_) = load_digits(), sample("digits")
    image = pixels(batch, 5)
    assert image.shape == (8, 8)
    assert image.dtype == np.uint8
    assert (image == np.rint(bundle.images[30] * 255 / 16)).all()
    assert batch.items[5].label == str(bundle.target[30])
    assert max(pixels(batch, index).max() for index in range(20)) == 255


def test_one_batch_of_the_digits_can_be_chosen() -> None:
    assert [batch.name for batch in sample("digits", "batch-4")] == ["batch-4"]
    with pytest.raises(
        InputError, match=r"'monday' is not one of the sample digits, which has batch-1, .* batch-6"
    ):
        sample("digits", "monday")


def test_tiny_is_80_images_whose_class_is_the_bright_quadrant() -> None:
    (batch,) = sample("tiny")
    assert batch.name == "batch-1"
    assert batch.classes == {"bottom-left": 20, "bottom-right": 20, "top-left": 20, "top-right": 20}
    for index, item in enumerate(batch.items):
        quadrants = pixels(batch, index).reshape(2, 4, 2, 4).mean((1, 3))
        row, column = np.unravel_index(quadrants.argmax(), (2, 2))
        assert item.label == f"{['top', 'bottom'][row]}-{['left', 'right'][column]}"


def test_tiny_is_the_same_for_the_same_name_and_new_for_another() -> None:
    first, again, other = sample("tiny", "a")[0], sample("tiny", "a")[0], sample("tiny", "b")[0]
    assert [item.read() for item in first.items] == [item.read() for item in again.items]
    assert not {item.read() for item in first.items} & {item.read() for item in other.items}
    with pytest.raises(InputError, match="batch name must not"):
        sample("tiny", "../x")
