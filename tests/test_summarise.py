"""What a prediction run ends with: finished batches, a page in MLflow, and what a person should label."""

import csv
import io
import os

import pytest
from predicting import Lights, lines, png

from nightshift import storage
from nightshift.config import AssembleSettings, PredictPolicy, store_root
from nightshift.data import drift, labels, quarantine
from nightshift.errors import InputError
from nightshift.records import BatchPredictions, Dataset, Profile
from nightshift.records.specs import PredictSpec
from nightshift.tracking import runs
from nightshift.workflows.predict import layout
from nightshift.workflows.predict.predict import predict


def done(lights: Lights, version: str, batch: str) -> BatchPredictions:
    found = layout.done(layout.folder(lights.pipeline.name, version, batch))
    assert found is not None
    return found


def test_a_finished_batch_names_its_files(lights: Lights) -> None:
    version = lights.register()
    lights.batch("b1", [0, 255, 128])
    lights.batch("b2", [0])
    summary = lights.run()
    assert summary is not None
    assert (summary.batches, summary.images, summary.refused) == (("b1", "b2"), 4, 0)
    assert summary.uri == f"{store_root()}/predictions/{lights.pipeline.name}/{version}"
    found = done(lights, version, "b1")
    assert (found.version, found.images) == (version, 3)
    assert [os.path.basename(file.uri) for file in found.files] == [
        key.removeprefix("b1/") for key in lights.keys(version) if key.startswith("b1/") and "parquet" in key
    ]


def test_an_earlier_cut_of_the_batch_is_removed(lights: Lights) -> None:
    version = lights.register()
    lights.batch("b1", [0, 255])
    assert lights.run() is not None
    old = set(lights.keys(version))
    lights.file("b1", "more.png", png(1))
    forecast = lights.look()
    predict(PredictSpec(forecast=forecast, message=forecast.messages[0]))
    place = layout.folder(lights.pipeline.name, version, "b1")
    assert layout.done(place) is None  # tables of both cuts lie here, and nothing says that it is whole
    assert lights.run() is not None
    found = done(lights, version, "b1")
    assert found.images == 3
    tables = [key for key in lights.keys(version) if key.endswith(".parquet")]
    assert len(tables) == 1
    assert not set(tables) & old


def test_the_least_sure_images_are_a_manifest_to_correct(lights: Lights) -> None:
    lights.pipeline = lights.pipeline.model_copy(update={"predict": PredictPolicy(low_confidence=1)})
    version = lights.register()
    lights.batch("b1", [127, 0, 128])
    lights.file("b1", "=x.png", png(128))
    summary = lights.run()
    assert summary is not None
    place = layout.folder(lights.pipeline.name, version, "b1")
    text = storage.read(storage.join(place, layout.TO_LABEL)).decode()
    rows = list(csv.DictReader(io.StringIO(text)))
    assert {row["path"] for row in rows} == {"000.png", "002.png", "'=x.png"}  # the black one is certain
    shown = [float(row["confidence"]) for row in rows]
    assert shown == sorted(shown)
    assert summary.unsure == 3
    # What a person corrected in a spreadsheet and gives to `nightshift ingest` names the same files.
    assert set(labels.read(text.encode(), "manifest.csv")) == {"000.png", "002.png", "=x.png"}


def test_too_many_refusals_fail_their_batch_and_no_other(lights: Lights) -> None:
    limit = AssembleSettings(max_refused_fraction=0.4)
    lights.pipeline = lights.pipeline.model_copy(update={"assemble": limit})
    version = lights.register()
    lights.batch("good", [0, 255])
    lights.batch("torn", [0])
    lights.file("torn", "a.png", png(9)[:40])
    with pytest.raises(InputError, match=r"batch torn: 1 of 2 files \(50%\) are refused \(1 truncated\)"):
        lights.run()
    assert done(lights, version, "good").images == 2
    assert layout.done(layout.folder(lights.pipeline.name, version, "torn")) is None
    name = quarantine.unlabelled(lights.pipeline.name)
    assert [refusal.key for refusal in quarantine.read(name)["torn"]] == ["torn/a.png"]
    assert quarantine.read(lights.pipeline.name) == {}
    uri = storage.join(store_root(), "quarantine", name, "torn", quarantine.REASONS)
    assert lines(uri)[0]["reason"] == "truncated"


def test_the_run_in_mlflow_says_what_was_seen(lights: Lights) -> None:
    lights.register()
    lights.batch("b1", [0, 255, 250, 251])
    summary = lights.run()
    assert summary is not None
    mlflow = runs.client()
    experiment = mlflow.get_experiment_by_name(f"{lights.pipeline.name}-predictions")
    assert experiment is not None
    (run,) = mlflow.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.metrics["images"] == 4
    assert run.data.metrics["share/bright"] == 0.75
    assert run.data.params["version"] == summary.version
    assert run.info.run_id in summary.page
    picture = runs.stored_artifact(run.info.run_id, "predictions.png")
    assert picture is not None
    assert picture.startswith(b"\x89PNG")


def test_drift_is_told_against_the_data_that_the_model_learnt_from(
    lights: Lights, ml_dataset: Dataset
) -> None:
    bright = Profile(
        images=60,
        classes={"bright": 60},
        histograms=dict.fromkeys(drift.SCALES, (0,) * 63 + (60,)),
    )
    trained = ml_dataset.model_copy(update={"profile": bright})
    storage.write_record(storage.join(store_root(), "datasets", f"{trained.digest}.json"), trained)
    lights.register(dataset=trained.digest)
    lights.batch("b1", [0] * 30)
    lights.batch("b2", [2] * 30)
    summary = lights.run()
    assert summary is not None
    assert set(summary.drift) == {"brightness", "contrast", "sharpness", "pixels", "classes"}
    assert min(summary.drift["brightness"], summary.drift["classes"]) > drift.LARGE
