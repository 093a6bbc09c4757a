"""Versions, aliases and digests in a real MLflow server."""

import hashlib
import json

import onnx
import pytest
from small_models import onnx_model

from nightshift.config import PreprocessSettings
from nightshift.errors import InputError
from nightshift.records import Artifact, InitialWeights, lengths
from nightshift.tracking import registry, runs


def register(name: str, night: str, seed: int) -> str:
    run_id = runs.open_run(name, night, params={})
    tags = {registry.PREPROCESS: PreprocessSettings(image_size=8).model_dump_json()}
    return registry.register_version(run_id, name, onnx_model(seed), classes=2, shape=(4, 4, 3), tags=tags)


def test_a_version_holds_the_very_bytes_and_their_digest(stack):
    version = register("bytes", "n1", 1)
    model, tags = registry.fetch_model(f"models:/bytes/{version}")
    assert model == onnx_model(1)
    assert tags[registry.SHA256] == hashlib.sha256(model).hexdigest()
    onnx.checker.check_model(onnx.load_model_from_string(model))


def test_the_same_night_reaches_the_same_version_again(stack):
    first = register("again", "n1", 1)
    assert register("again", "n1", 1) == first
    assert int(register("again", "n2", 1)) == int(first) + 1


def test_champions_are_the_current_one_and_the_best_so_far(stack):
    assert registry.champions("crown") == (None, None)
    one, two = register("crown", "n1", 1), register("crown", "n2", 2)
    registry.set_alias("crown", "champion", one)
    current, best = registry.champions("crown")
    assert current is not None
    assert current == best
    assert current.classes == ("cat", "dog")
    assert current.preprocess.image_size == 8
    registry.set_alias("crown", "champion", two)
    registry.set_version_tag("crown", two, registry.BEST, one)
    current, best = registry.champions("crown")
    assert (current and current.version, best and best.version) == (two, one)


def test_a_version_leads_back_to_its_checkpoint(stack):
    version = register("traced", "n1", 1)
    with pytest.raises(InputError, match=r"models:/traced/1 does not record the checkpoint"):
        registry.checkpoint_of(f"models:/traced/{version}")
    weights = Artifact(uri="s3://nightshift/model.safetensors", sha256="a" * 64, size=3)
    registry.set_version_tag("traced", version, registry.CHECKPOINTS, json.dumps([weights.model_dump()]))
    registry.set_alias("traced", "champion", version)
    assert registry.checkpoint_of("models:/traced@champion") == InitialWeights(
        name="models:/traced/1", weights=weights
    )


def test_a_file_that_is_not_the_registered_one_is_refused(stack):
    version = register("forged", "n1", 1)
    registry.set_version_tag("forged", version, registry.SHA256, "0" * 64)
    with pytest.raises(InputError, match=r"models:/forged/1 has SHA-256 .* its tag says 0000"):
        registry.fetch_model(f"models:/forged/{version}")


@pytest.mark.parametrize(
    "uri", ["models:/digits", "digits@champion", "models:/@champion", "models:/digits/latest"]
)
def test_a_malformed_address_is_refused_with_examples(uri):
    with pytest.raises(InputError, match=r"must look like models:/digits@champion or models:/digits/3"):
        registry.fetch_model(uri)


def test_an_unknown_alias_is_named(stack):
    with pytest.raises(InputError, match=r"models:/nobody@champion does not exist at http"):
        registry.fetch_model("models:/nobody@champion")


def test_a_description_is_cut_to_what_the_database_takes(stack):
    run_id = runs.open_run("wordy", "n1", params={})
    text = "ä" * (lengths.DESCRIPTION + 1)
    version = registry.register_version(
        run_id, "wordy", onnx_model(1), classes=2, shape=(4, 4, 3), tags={}, description=text
    )
    assert registry.described("wordy", version).description == f"{text[:-2]}…"
