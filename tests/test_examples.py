"""Which images are shown to people."""

import numpy as np

from nightshift.evaluation.metrics import examples

LABELS = np.array([0, 0, 0, 1, 1, 1])
SHARES = np.array([[0.9, 0.1], [0.8, 0.2], [0.05, 0.95], [0.1, 0.9], [0.4, 0.6], [0.55, 0.45]], np.float32)


def test_the_hardest_are_those_whose_label_gets_the_least():
    assert examples.hardest(LABELS, SHARES, limit=2).tolist() == [2, 5]


def test_wrong_predictions_are_shown_the_most_confident_first():
    assert examples.confidently_wrong(LABELS, SHARES.argmax(1), SHARES).tolist() == [2, 5]


def test_a_label_is_suspected_when_another_class_gets_what_its_own_images_get():
    # Images of class 1 get 0.65 there on average: row 2 is above that, row 5 gets 0.55 of class 0's 0.583.
    assert examples.suspects(LABELS, SHARES).tolist() == [2]


def test_a_swapped_label_among_many_is_found():
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 5, 500)
    shares = np.full((500, 5), 0.02, np.float32)
    shares[np.arange(500), labels] = 0.92
    labels[[7, 70]] = (labels[[7, 70]] + 1) % 5
    assert sorted(examples.suspects(labels, shares).tolist()) == [7, 70]


def test_good_predictions_leave_nothing_to_suspect():
    assert len(examples.suspects(LABELS, np.eye(2, dtype=np.float32)[LABELS])) == 0
