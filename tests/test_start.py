"""Which weights `train.weights` means, in a real registry (a file, without a server) and a real store."""

import hashlib
import json

import pytest

from nightshift import storage
from nightshift.errors import InputError
from nightshift.models import initial_weights
from nightshift.records import Artifact
from nightshift.tracking import registry, runs

WEIGHTS = Artifact(uri="file:///store/checkpoints/k/model.safetensors", sha256="a" * 64, size=3)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A registry with `pets` 1 and 2, of which 2 records its checkpoint, and `plants` without a champion."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db")
        client = runs.client()
        for name in ("pets", "plants"):
            client.create_registered_model(name)
        client.create_model_version("pets", "file:///nowhere")
        tags = {registry.CHECKPOINTS: json.dumps([WEIGHTS.model_dump()])}
        client.create_model_version("pets", "file:///nowhere", tags=tags)
        yield client


def test_random_and_imagenet_weights_need_no_looking_up():
    assert initial_weights.find("none", "pets") is None
    assert initial_weights.find("imagenet", "pets") is None


def test_a_pipeline_without_a_champion_starts_from_scratch_and_says_so(models, capsys):
    assert initial_weights.find("champion", "plants") is None
    assert initial_weights.find("champion", "unheard_of") is None
    assert (
        "models:/plants@champion does not exist yet: training starts from scratch" in capsys.readouterr().out
    )


@pytest.mark.parametrize("weights", ["champion", "models:/pets@champion", "models:/pets/2"])
def test_a_registered_model_leads_to_its_checkpoint_by_version(models, weights):
    registry.set_alias("pets", registry.CHAMPION, "2")
    found = initial_weights.find(weights, "pets")
    assert found is not None
    assert (found.name, found.weights) == ("models:/pets/2", WEIGHTS)


def test_a_version_that_records_no_checkpoint_is_refused_also_as_champion(models):
    registry.set_alias("pets", registry.CHAMPION, "1")
    for weights in ("champion", "models:/pets/1"):
        with pytest.raises(
            InputError, match=r"models:/pets/1 does not record the checkpoint .*checkpoint\.json"
        ):
            initial_weights.find(weights, "pets")


def test_an_unknown_model_is_named(models):
    with pytest.raises(InputError, match=r"models:/pets@best does not exist at sqlite"):
        initial_weights.find("models:/pets@best", "pets")


def test_a_checkpoint_is_found_by_its_address(ml_night):
    weights = ml_night.checkpoint.weights
    found = initial_weights.find(weights.uri.replace("model.safetensors", "checkpoint.json"), "pets")
    assert found is not None
    assert found.weights == weights
    bare = initial_weights.find(weights.uri, "pets")
    assert bare is not None
    assert (bare.name, bare.weights) == (weights.uri, weights)
    assert bare.weights.sha256 == hashlib.sha256(storage.read(weights.uri)).hexdigest()


def test_what_is_no_checkpoint_is_refused(ml_store):
    uri = f"file://{ml_store}/checkpoint.json"
    with pytest.raises(InputError, match="does not exist"):
        initial_weights.find(uri, "pets")
    storage.write(uri, b'{"weights": 3}')
    with pytest.raises(
        InputError, match=r"is not the checkpoint\.json of a training; correct train\.weights"
    ):
        initial_weights.find(uri, "pets")
