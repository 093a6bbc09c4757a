"""Who is judged on the test images, and through which eyes."""

import numpy as np
import pytest
from ml_fixtures import registered

from nightshift import storage
from nightshift.config import PreprocessSettings
from nightshift.data.dataset import load_split
from nightshift.evaluation import contenders
from nightshift.records import FailedCandidate
from nightshift.tracking.registry import Champions


@pytest.fixture
def there(ml_night):
    """What a champion, changed as named, is on the test images; with the labels."""
    test = load_split(ml_night.dataset, "test")
    images, labels = test.images.numpy(), test.labels.numpy()

    def judged(**changes):
        entrant = contenders.of_registered(registered(ml_night, **changes), ml_night.dataset, images, labels)
        if not entrant.known.any():
            return entrant
        return contenders.answered(entrant, "onnxruntime", len(ml_night.dataset.classes))

    return judged, labels


def test_what_could_not_be_made_is_told_apart_by_name(ml_ensemble):
    voted = ml_ensemble.candidates["fp32-soft-vote"]
    unmade = FailedCandidate(recipe="int8", vote="soft", reason="no room")
    assert contenders.made((voted, unmade)) == (
        {"fp32-soft-vote": voted},
        {"int8-soft-vote": "int8-soft-vote was not made: no room"},
    )


def test_the_best_champion_stands_beside_the_present_one_only_when_it_is_another(ml_night):
    one, two = registered(ml_night), registered(ml_night, version="1")
    assert contenders.distinct(None) == contenders.distinct(Champions(None, None)) == {}
    assert contenders.distinct(Champions(one, one)) == {"champion": one}
    assert contenders.distinct(Champions(one, two)) == {"champion": one, "best": two}


def test_calibration_images_are_training_images_as_the_network_sees_them(ml_build, monkeypatch):
    dataset = ml_build(side=8, stored=12)
    stored = load_split(dataset, "train").images[:, 2:10, 2:10].numpy()
    train = [image.tobytes() for image in stored]
    everything = contenders.calibration(dataset, seed=0)
    assert (everything.shape, everything.dtype) == ((80, 8, 8, 3), np.uint8)
    assert sorted(image.tobytes() for image in everything) == sorted(train)
    monkeypatch.setattr(contenders, "CALIBRATION", 8)
    some, same, other = (contenders.calibration(dataset, seed) for seed in (0, 0, 1))
    labels = load_split(dataset, "train").labels.numpy()
    assert np.bincount(labels[[train.index(image.tobytes()) for image in some]]).tolist() == [2] * 4
    assert np.array_equal(some, same)
    assert not np.array_equal(some, other)


def test_classes_are_compared_by_name(there, ml_night):
    judged, labels = there
    usual = judged()
    assert (usual.predicted == labels).mean() > 0.9
    assert usual.known.all()
    assert (usual.probabilities.argmax(1) == usual.predicted).all()
    assert np.allclose(usual.probabilities.sum(1), 1, atol=1e-5)
    turned = judged(classes=tuple(reversed(ml_night.dataset.classes)))
    assert turned.predicted.tolist() == (3 - usual.predicted).tolist()


def test_a_class_that_the_champion_lacks_is_not_known_to_it(there, ml_night):
    judged, labels = there
    found = judged(classes=(*ml_night.dataset.classes[:3], "gone"))
    assert found.known.tolist() == (labels != 3).tolist()
    assert set(found.predicted[labels == 3]) == {-1}
    assert np.all(found.probabilities[:, 3] == 0)
    assert np.array_equal(found.probabilities[:, :3], judged().probabilities[:, :3])


def test_other_preprocessing_reads_the_originals(there, ml_night, monkeypatch):
    judged, _ = there
    read = []
    original = storage.read
    monkeypatch.setattr(storage, "read", lambda uri: read.append(uri) or original(uri))
    # A PNG prepared by cropping and by stretching is the same square here, so the labels must agree.
    found = judged(preprocess=PreprocessSettings(image_size=8, resize="stretch"))
    assert sum("/incoming/tiny/batch-1/" in uri for uri in read) == 24
    assert found.predicted.tolist() == judged().predicted.tolist()
    test = load_split(ml_night.dataset, "test").images.numpy()
    assert found.pixels is not judged().pixels
    assert np.array_equal(found.pixels, test)


def test_other_channels_know_nothing(there, ml_night):
    judged, _ = there
    assert not judged(preprocess=ml_night.dataset.preprocess.model_copy(update={"channels": 5})).known.any()
