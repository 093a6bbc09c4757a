"""Accuracy on changed images, of the night's models and of champions that see other pixels."""

import numpy as np
import pytest
from ml_fixtures import registered

from nightshift import storage
from nightshift.config import EvaluateSettings, PreprocessSettings
from nightshift.data.dataset import load_split
from nightshift.evaluation import contenders
from nightshift.evaluation.metrics.corruptions import corrupt
from nightshift.evaluation.robustness import QUICK, QUICK_SEVERITIES, assess
from nightshift.inference.runtime import Session
from nightshift.models import ensemble


@pytest.fixture
def tried(ml_night):
    """Robustness of the night's candidates beside others, by settings."""
    test = load_split(ml_night.dataset, "test")
    images, labels = test.images.numpy(), test.labels.numpy()
    network = ensemble.restore((ml_night.checkpoint,), ml_night.dataset, None)
    ours = {
        name: contenders.answered(
            contenders.of_candidate(storage.read_artifact(candidate.model), candidate, images, 4),
            "onnxruntime",
            4,
        )
        for name, candidate in ml_night.candidates.items()
    }

    def assessed(others=None, **settings):
        there = ours | {
            name: contenders.answered(
                contenders.of_registered(each, ml_night.dataset, images, labels), "onnxruntime", 4
            )
            for name, each in (others or {}).items()
        }
        return assess(there, network, labels, ml_night.dataset, EvaluateSettings(**settings), 3)

    return assessed, images, labels


def test_quick_is_four_families_at_two_severities_with_both_attacks(tried):
    found = tried[0](attack_epsilon=40)
    assert [(each.family, each.severity) for each in found.corruptions] == [
        (family, severity) for family in QUICK for severity in QUICK_SEVERITIES
    ]
    assert [attack.kind for attack in found.attacks] == ["fgsm", "pgd"]
    assert found.images == 24
    assert set(found.clean) == set(found.corruptions[0].accuracy) == {"fp32", "int8"}
    assert found.attacks[1].accuracy["fp32"] < found.clean["fp32"]
    assert 0 < found.corrupted("int8") <= 1


def test_full_is_all_families_at_all_severities_on_as_many_images_as_asked(tried):
    found = tried[0](robustness="full", robustness_images=8, attack_epsilon=0)
    assert (len(found.corruptions), found.images, found.attacks) == (75, 8, ())


def test_numbers_are_those_of_the_corrupted_images(tried, ml_night):
    assessed, images, labels = tried
    found = assessed(attack_epsilon=0)
    session = Session(storage.read_artifact(ml_night.candidates["int8"].model))
    _, predicted = session.predict(corrupt(images, "fog", 4, 3))
    row = next(each for each in found.corruptions if (each.family, each.severity) == ("fog", 4))
    assert row.accuracy["int8"] == (predicted == labels).mean()


def test_a_champion_of_other_pixels_is_corrupted_on_its_own_and_not_attacked(tried, ml_night):
    other = PreprocessSettings(image_size=8, resize="stretch")  # the same squares, read again
    found = tried[0]({"champion": registered(ml_night, preprocess=other)})
    assert found.clean["champion"] == found.clean["fp32"]
    assert [each.accuracy["champion"] for each in found.corruptions] == [
        each.accuracy["fp32"] for each in found.corruptions
    ]
    assert all("champion" not in attack.accuracy for attack in found.attacks)


def test_a_champion_is_judged_on_classes_that_it_knows(tried, ml_night):
    renamed = registered(ml_night, classes=(*ml_night.dataset.classes[:3], "gone"))
    unknown = registered(ml_night, classes=("a", "b", "c", "d"))
    found = tried[0]({"champion": renamed, "best": unknown})
    assert found.clean["champion"] > 0.9
    assert "best" not in found.clean
    assert np.isfinite([each.accuracy["champion"] for each in found.corruptions]).all()
