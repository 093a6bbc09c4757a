"""One candidate for one key: made once, found again, written whole."""

import pytest
import torch
from safetensors.torch import load, save

from nightshift import quantize as stage
from nightshift import storage
from nightshift.config import QuantizeSettings
from nightshift.errors import InputError
from nightshift.quantization import recipes
from nightshift.quantization.recipes import int8
from nightshift.quantize import quantize
from nightshift.records import Candidate, FailedCandidate
from nightshift.records.specs import QuantizeSpec

SETTINGS = QuantizeSettings(calibration_images=32)


@pytest.fixture
def made(monkeypatch) -> list[str]:
    """The candidates that were really made, without a network."""
    names: list[str] = []

    def fake(spec, folder):
        names.append(spec.name)
        return b"onnx", {"nodes": 1}, {}

    monkeypatch.setattr(stage, "_made", fake)
    return names


def test_a_candidate_names_its_checkpoint_and_its_bytes(ml_night):
    candidate = ml_night.candidates["int8"]
    assert candidate.checkpoints == (ml_night.checkpoint.weights,)
    assert len(storage.read_artifact(candidate.model)) == candidate.model.size
    assert candidate.details["calibration_images"] == 32
    done = storage.join(candidate.model.uri.rpartition("/")[0], "candidate.json")
    assert storage.read_record(done, Candidate) == candidate


def test_the_same_work_is_found_again(ml_night, made, capsys):
    spec = QuantizeSpec(recipe="int8", checkpoints=(ml_night.checkpoint,), settings=SETTINGS)
    assert quantize(spec) == ml_night.candidates["int8"]
    assert made == []
    assert "found again" in capsys.readouterr().out


def test_other_work_is_made_anew(ml_night, ml_store, made):
    spec = QuantizeSpec(recipe="int8", checkpoints=(ml_night.checkpoint,), settings=SETTINGS)
    uris = {quantize(spec).model.uri}
    uris.add(quantize(spec.model_copy(update={"cache_salt": "again"})).model.uri)
    uris.add(quantize(spec.model_copy(update={"recipe": "fp32"})).model.uri)
    fewer = QuantizeSettings(calibration_images=16)
    uris.add(quantize(spec.model_copy(update={"settings": fewer})).model.uri)
    assert len(uris) == len(made) == 4


def test_a_vote_is_made_of_exactly_its_members(ml_ensemble, ml_store, made):
    spec = QuantizeSpec(recipe="int8", vote="soft", checkpoints=ml_ensemble.members, settings=SETTINGS)
    two, hard = ml_ensemble.members[:2], spec.model_copy(update={"vote": "hard"})
    uris = {quantize(spec).model.uri, quantize(hard).model.uri}
    uris.add(quantize(spec.model_copy(update={"checkpoints": two})).model.uri)
    assert len(uris) == len(made) == 3


def test_another_list_of_recipes_does_not_remake_one(ml_night, ml_store, made):
    for settings in (SETTINGS, QuantizeSettings(calibration_images=32, recipes=("fp32",), vote="hard")):
        quantize(QuantizeSpec(recipe="fp32", checkpoints=(ml_night.checkpoint,), settings=settings))
    assert len(made) == 1


def broken(spec: QuantizeSpec, **changes) -> QuantizeSpec:
    checkpoint = spec.checkpoints[0]
    weights = checkpoint.weights.model_copy(update=changes)
    return spec.model_copy(update={"checkpoints": (checkpoint.model_copy(update={"weights": weights}),)})


@pytest.fixture
def spec(ml_night) -> QuantizeSpec:
    return QuantizeSpec(
        recipe="int8", checkpoints=(ml_night.checkpoint,), settings=SETTINGS, cache_salt="bad"
    )


def test_an_unknown_recipe_lists_the_known_ones(spec):
    unmade = quantize(spec.model_copy(update={"recipe": "int4"}))
    assert unmade.reason.startswith("recipe 'int4' is unknown; known are binary, fp16, fp32, int8")
    assert unmade.name == "int4"


def test_changed_weights_are_refused(spec):
    unmade = quantize(broken(spec, sha256="0" * 64))
    assert "changed or damaged" in unmade.reason


def test_weights_that_are_no_numbers_are_refused(spec, ml_night):
    data = load(storage.read_artifact(ml_night.checkpoint.weights))
    data["layer1.0.conv1.weight"][0, 0] = torch.nan
    stored = storage.write(f"file://{ml_night.root}/nan.safetensors", save(data))
    unmade = quantize(broken(spec, **stored.model_dump()))
    assert "holds weights that are not numbers (in layer1.0.conv1.weight)" in unmade.reason


def test_a_recipe_that_changed_nothing_says_so(spec, monkeypatch, capsys):
    monkeypatch.setattr(int8, "make", recipes.find("fp32").make)
    unmade = quantize(spec)
    assert unmade.reason.startswith("recipe int8 changed nothing: none of the 21 layers is quantized")
    assert f"int8 is not made: {unmade.reason}" in capsys.readouterr().out


def test_what_failed_is_tried_again(spec, monkeypatch, made):
    monkeypatch.setattr(int8, "make", recipes.find("fp32").make)
    folders = []

    def failing(spec, folder):
        folders.append(folder)
        raise InputError("no")

    monkeypatch.setattr(stage, "_made", failing)
    assert quantize(spec) == quantize(spec) == FailedCandidate(recipe="int8", reason="no")
    assert len(folders) == 2


def test_what_trying_again_may_mend_is_not_swallowed(spec, monkeypatch):
    def failing(spec, folder):
        raise OSError("the store is away")

    monkeypatch.setattr(stage, "_made", failing)
    with pytest.raises(OSError, match="the store is away"):
        quantize(spec)
