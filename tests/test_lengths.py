"""The longest texts, written to a real MLflow on PostgreSQL: no night's work is lost for them."""

import os

import mlflow
import pytest
import speeds
from mlflow.store.model_registry.dbmodels.models import SqlModelVersion
from mlflow.utils import validation
from promotions import registering_spec
from small_models import onnx_model

from nightshift import storage
from nightshift.config import PreprocessSettings
from nightshift.records import Scores, Verdict, lengths
from nightshift.register import register
from nightshift.tracking import ledger, registry, runs

NAMES = tuple(f"genus {number:04d} ".ljust(60, "ä") for number in range(5000))
ENDLESS = "ö" * 200_000


def test_the_lengths_are_those_of_the_installed_mlflow():
    assert lengths.PARAM == validation.MAX_PARAM_VAL_LENGTH
    assert lengths.RUN_TAG == validation.MAX_TAG_VAL_LENGTH
    assert lengths.METRIC_NAME == validation.MAX_ENTITY_KEY_LENGTH
    assert lengths.VERSION_TAG == validation.MAX_MODEL_REGISTRY_TAG_VALUE_LENGTH
    assert lengths.DATASET_DIGEST == validation.MAX_DATASET_DIGEST_SIZE
    assert SqlModelVersion.description.type.length == lengths.DESCRIPTION


def test_a_text_that_is_cut_shows_it():
    assert lengths.cut("abcd", 4) == "abcd"
    assert lengths.cut("abcde", 4) == "abc…"


@pytest.fixture
def wordy(stack, request, monkeypatch):
    """To register a version with the longest of everything, in the MLflow of the stack."""
    address = os.environ["MLFLOW_TRACKING_URI"]
    ml_night = request.getfixturevalue("ml_night")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    spec = registering_spec(ml_night, "endless", "night-1", 1, passed=True)
    dataset = ml_night.dataset.model_copy(update={"classes": NAMES})
    dataset_uri = storage.join(ml_night.dataset.source, "endless.json")
    storage.write_record(dataset_uri, dataset)
    model = storage.write(storage.join(ml_night.dataset.source, "endless.onnx"), onnx_model(1, NAMES))
    refusal = Verdict(gate="gain", passed=False, value=0.0, limit=1.0, sentence=ENDLESS)
    candidate = spec.evaluation.candidate.model_copy(update={"model": model})
    changes = {
        "candidate": candidate,
        "verdicts": (*spec.evaluation.verdicts, refusal),
        "test": {"int8": Scores.model_construct(accuracy=0.9, images=40, speed=speeds.speed(model.size))},
        "rejected": {"fp16": ENDLESS},
    }
    evaluation = spec.evaluation.model_copy(update=changes)
    yield spec.model_copy(update={"dataset_uri": dataset_uri, "evaluation": evaluation})
    # What it is made of is in this test's store, so that the stack's upkeep would find all of it lacking.
    runs.client().delete_registered_model("endless")


def test_a_version_with_endless_texts_and_thousands_of_classes_is_registered(wordy):
    made = register(wordy)
    assert register(wordy) == made
    found = registry.described(made.name, made.version)
    assert len(found.description) == lengths.DESCRIPTION
    assert found.tags[registry.CLASSES].startswith(f"5,000: {NAMES[0]}, {NAMES[1]}, ")
    assert len(found.tags[registry.CLASSES]) == lengths.CLASSES
    assert len(found.tags[registry.REASONS]) == lengths.VERSION_TAG
    assert len(found.tags[f"{registry.GATE}gain"]) == lengths.VERSION_TAG
    assert ledger.history(made.name)[-1].reasons == (ENDLESS,)  # a file has room for all of it
    registry.check_judgement(made.name, made.version)
    registry.set_version_tag(made.name, made.version, registry.REASONS, ENDLESS)
    registry.set_alias(made.name, registry.CHAMPION, made.version)
    champion = registry.champions(made.name).current
    assert champion is not None
    assert champion.classes == NAMES
    assert champion.preprocess == PreprocessSettings(image_size=8)


def test_a_run_takes_endless_texts(stack):
    run_id = runs.open_run("endless runs", "night-1", params={"train.start": ENDLESS})
    runs.set_tags(run_id, {"nightshift.rejected": ENDLESS})
    runs.log_dataset(run_id, name="endless", digest="d" * 64, source=f"s3://n/{'k' * 1024}", rows=1)
    runs.close_run(run_id, failed=True, reason=ENDLESS)
    run = mlflow.MlflowClient().get_run(run_id)
    assert len(run.data.params["train.start"]) == lengths.PARAM
    assert len(run.data.tags["nightshift.rejected"]) == lengths.RUN_TAG
    assert len(run.data.tags["nightshift.reason"]) == lengths.RUN_TAG


def test_metrics_of_strange_names_stay_apart(stack):
    labels = ["a+b", "a*b", "a_b", "..", ".", "/", "a//b", "/a", "日本", "", "ä" * 300, "ä" * 301, *NAMES]
    names = [f"share/{label}" for label in labels]
    assert lengths.metric_name("share/日本") == "share/日本"
    run_id = runs.open_run("strange names", "night-1", params={})
    runs.log_metrics(run_id, [(lengths.metric_name(name), 0.5, 0) for name in names])
    assert len(mlflow.MlflowClient().get_run(run_id).data.metrics) == len(names)
