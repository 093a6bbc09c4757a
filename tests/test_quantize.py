"""One candidate for one key: made once, found again, written whole."""

import pytest

from tasks import quantize as stage
from tasks import storage
from tasks.config import QuantizeSettings
from tasks.errors import InputError
from tasks.quantize import quantize
from tasks.records import Candidate
from tasks.specs import QuantizeSpec

SETTINGS = QuantizeSettings(calibration_images=32)


@pytest.fixture
def made(monkeypatch) -> list[str]:
    """The recipes that really ran; instead of a network they see nothing and give their salt."""
    names: list[str] = []

    class Fake:
        def make(self, trained, settings):
            names.append("made")
            return b"onnx", {"nodes": 1}

    monkeypatch.setattr(stage.recipes, "find", lambda name: Fake())
    return names


def test_a_candidate_names_its_checkpoint_and_its_bytes(ml_night):
    candidate = ml_night.candidates["int8"]
    assert candidate.checkpoints == (ml_night.checkpoint.weights,)
    assert len(storage.read_artifact(candidate.model)) == candidate.model.size
    assert candidate.details["calibration_images"] == 32
    done = candidate.model.uri.replace("model.onnx", "candidate.json")
    assert storage.read_record(done, Candidate) == candidate


def test_the_same_work_is_found_again(ml_night, made, capsys):
    spec = QuantizeSpec(recipe="int8", checkpoints=(ml_night.checkpoint,), settings=SETTINGS)
    assert quantize(spec) == ml_night.candidates["int8"]
    assert made == []
    assert "found again" in capsys.readouterr().out


def test_other_work_is_made_anew(ml_night, ml_store, made):
    spec = QuantizeSpec(recipe="int8", checkpoints=(ml_night.checkpoint,), settings=SETTINGS)
    uris = {quantize(spec).model.uri}
    uris.add(quantize(spec.model_copy(update={"salt": "again"})).model.uri)
    uris.add(quantize(spec.model_copy(update={"recipe": "fp32"})).model.uri)
    fewer = QuantizeSettings(calibration_images=16)
    uris.add(quantize(spec.model_copy(update={"settings": fewer})).model.uri)
    assert len(uris) == len(made) == 4


def test_a_vote_is_made_of_exactly_its_members(ml_ensemble, ml_store, made, monkeypatch):
    monkeypatch.setattr(stage, "_trained", lambda spec: None)
    spec = QuantizeSpec(recipe="int8", vote="soft", checkpoints=ml_ensemble.members, settings=SETTINGS)
    two, hard = ml_ensemble.members[:2], spec.model_copy(update={"vote": "hard"})
    uris = {quantize(spec).model.uri, quantize(hard).model.uri}
    uris.add(quantize(spec.model_copy(update={"checkpoints": two})).model.uri)
    assert len(uris) == len(made) == 3


def test_another_list_of_recipes_does_not_remake_one(ml_night, ml_store, made):
    for settings in (SETTINGS, QuantizeSettings(calibration_images=32, recipes=("fp32",), vote="hard")):
        quantize(QuantizeSpec(recipe="fp32", checkpoints=(ml_night.checkpoint,), settings=settings))
    assert len(made) == 1


def test_an_unknown_recipe_lists_the_known_ones(ml_night):
    spec = QuantizeSpec(recipe="int4", checkpoints=(ml_night.checkpoint,), settings=SETTINGS)
    with pytest.raises(InputError, match="recipe 'int4' is unknown; known are fp32, int8"):
        quantize(spec)


def test_changed_weights_are_refused(ml_night):
    weights = ml_night.checkpoint.weights.model_copy(update={"sha256": "0" * 64})
    checkpoint = ml_night.checkpoint.model_copy(update={"weights": weights})
    with pytest.raises(InputError, match="changed or damaged"):
        quantize(QuantizeSpec(recipe="fp32", checkpoints=(checkpoint,), settings=SETTINGS))
