"""Whole nights through Airflow, Celery, S3 and MLflow on the embedded stack."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
from sklearn.datasets import load_digits
from waiting import wait_for

from nightshift import storage
from nightshift.cli.airflow_api import Airflow
from nightshift.config import PreprocessSettings
from nightshift.data.images import prepare
from nightshift.inference.runtime import Session
from nightshift.register import SBOM
from nightshift.security import signing
from nightshift.tracking import ledger, registry, runs, signatures
from nightshift.workflows.predict import layout

ROOT = Path(__file__).parent.parent
COMMAND = str(Path(sys.executable).with_name("nightshift"))


def nightshift(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """The real command in a process of its own."""
    done = subprocess.run(
        [COMMAND, *arguments],
        cwd=ROOT,
        env=dict(os.environ),
        capture_output=True,
        text=True,
        check=False,
    )
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done


def night(name: str, *arguments: str) -> dict:
    """Run one night to its end; its result is the last line on stdout."""
    done = nightshift("run", name, "--wait", *arguments)
    return json.loads(done.stdout.splitlines()[-1])


def gray(image: np.ndarray) -> np.ndarray:
    """A digit of scikit-learn, 0 to 16, as 8-bit grey."""
    return np.rint(image / 16 * 255).astype(np.uint8)


def drawn(folder: Path, numbers: range) -> str:
    """Some digits as files without labels, called by their number and what they show."""
    folder.mkdir()
    digits = load_digits()
    for index in numbers:
        cv2.imwrite(str(folder / f"{index}-{digits.target[index]}.png"), gray(digits.images[index]))
    return str(folder)


def predicted(version: str, batch: str) -> list[dict]:
    """The rows of a batch, once it is finished."""
    place = layout.folder("digits", version, batch)
    wait_for(lambda: layout.done(place) is not None, f"{place} to be finished", 120)
    found = layout.done(place)
    assert found is not None
    (file,) = found.files
    return pq.read_table(io.BytesIO(storage.read_artifact(file))).to_pylist()


@pytest.fixture(scope="module")
def first_night(stack, tmp_path_factory):
    nightshift("ingest", "--sample", "digits")
    # It waits for a champion.
    unlabelled = drawn(tmp_path_factory.mktemp("files") / "waiting", range(30))
    done = nightshift("ingest", unlabelled, "--pipeline", "digits", "--unlabelled")
    assert "predict_digits is told of it" in done.stdout
    return night("digits")


def test_the_first_night_makes_a_champion(first_night):
    assert first_night["state"] == "promoted", first_night
    assert first_night["metrics"]["accuracy"] >= 0.98
    assert set(first_night["seconds"]) == {
        *("plan", "preprocess", "assemble", "train", "quantize", "evaluate", "register")
    }
    assert registry.alias_version("digits", "champion") == first_night["version"]


def test_the_champion_is_the_evaluated_file_and_predicts(first_night):
    model, tags = registry.fetch_model("models:/digits@champion")
    assert tags["version"] == first_night["version"]
    digits = load_digits()
    settings = PreprocessSettings.model_validate_json(tags[registry.PREPROCESS])
    files = [cv2.imencode(".png", gray(image))[1].tobytes() for image in digits.images]
    _, labels = Session(model).predict(np.stack([prepare(file, settings) for file in files]))
    assert (labels == digits.target).mean() > 0.98


def test_the_champion_is_signed_by_the_stacks_key_and_the_night_lists_its_packages(first_night):
    (key,) = signing.trusted_keys()
    tags = registry.version_tags("digits", first_night["version"])
    assert tags[signatures.SIGNED_BY] == key.fingerprint
    packages = runs.stored_artifact(first_night["mlflow_run_id"], SBOM)
    assert packages is not None
    assert str(ROOT).encode() not in packages


def test_mlflow_loads_the_champion_without_pickle(first_night):
    import mlflow

    loaded = mlflow.pyfunc.load_model("models:/digits@champion")
    out = loaded.predict({"images": np.zeros((2, 16, 16, 3), np.uint8)})
    assert out["probabilities"].shape == (2, 10)


def test_the_promotion_starts_the_prediction_of_what_waits(first_night):
    rows = predicted(first_night["version"], "waiting")
    assert len(rows) == 30
    right = sum(row["key"].endswith(f"-{row['label']}.png") for row in rows)
    assert right >= 29
    digest = registry.version_tags("digits", first_night["version"])[registry.SHA256]
    assert {row["model_sha256"] for row in rows} == {digest}


def test_an_upload_without_labels_starts_its_prediction(first_night, tmp_path):
    unlabelled = drawn(tmp_path / "evening", range(30, 40))
    nightshift("ingest", unlabelled, "--pipeline", "digits", "--unlabelled")
    assert len(predicted(first_night["version"], "evening")) == 10


def test_predict_command_names_the_digit(first_night, tmp_path):
    digits = load_digits()
    for index in range(10):
        cv2.imwrite(str(tmp_path / f"{index}.png"), gray(digits.images[index]))
    done = nightshift("predict", "models:/digits@champion", str(tmp_path), "--json")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    right = sum(Path(row["file"]).stem == row["label"] for row in rows)
    assert len(rows) == 10
    assert right >= 9


def test_the_night_is_one_finished_mlflow_run_with_its_training_below(first_night):
    import mlflow

    client = mlflow.MlflowClient()
    parent = client.get_run(first_night["mlflow_run_id"])
    assert parent.info.status == "FINISHED"
    assert parent.data.params["train.epochs"]
    assert parent.inputs.dataset_inputs[0].dataset.name == "digits"
    below = client.search_runs(
        [parent.info.experiment_id], f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'"
    )
    assert [run.info.status for run in below] == ["FINISHED"]
    assert "validation_accuracy" in below[0].data.metrics


def test_the_promotion_is_in_the_ledger(first_night):
    kinds = [(entry.kind, entry.version) for entry in ledger.history("digits")]
    assert kinds[:2] == [("challenger", first_night["version"]), ("promoted", first_night["version"])]


@pytest.mark.parametrize("dry_run", [True, False])
def test_upkeep_runs_through_airflow_and_leaves_what_is_young(first_night, dry_run):
    airflow = Airflow()
    run = airflow.trigger("upkeep", {"dry_run": dry_run})
    wait_for(lambda: airflow.run_state("upkeep", run) in ("success", "failed"), "upkeep's end", 180)
    assert airflow.run_state("upkeep", run) == "success", airflow.tasks("upkeep", run)
    found = airflow.xcom("upkeep", run, "look")
    assert (found["objects"], found["findings"]) == (0, [])
    deleted = airflow.xcom("upkeep", run, "delete")
    assert (deleted is None) == dry_run
    assert registry.fetch_model("models:/digits@champion")[1]["version"] == first_night["version"]


def test_a_second_night_finds_nothing_new(first_night):
    second = night("digits")
    assert second["state"] == "nothing-new"
    assert set(second["seconds"]) == {"plan"}


@pytest.fixture(scope="module")
def third_night(first_night, tmp_path_factory):
    """The night after 60 more images came, a short one."""
    digits, photos = load_digits(), tmp_path_factory.mktemp("shifted")
    for index in range(60):
        folder = photos / str(digits.target[index])
        folder.mkdir(parents=True, exist_ok=True)
        shifted = np.roll(gray(digits.images[index]), 1, axis=1)
        cv2.imwrite(str(folder / f"{index}.png"), shifted)
    nightshift("ingest", str(photos), "--pipeline", "digits", "--batch", "shifted")
    quick = ("train.epochs=2", "evaluate.robustness=none", "evaluate.latency_runs=10")
    return night("digits", *(word for setting in quick for word in ("--set", setting)))


def test_a_new_batch_makes_a_third_night(first_night, third_night):
    third = third_night
    assert third["state"] in ("promoted", "refused", "superseded")
    assert int(third["version"]) == int(first_night["version"]) + 1
    dataset = registry.version_tags("digits", third["version"])["nightshift.data.dataset"]
    manifest = storage.read_json(f"{os.environ['NIGHTSHIFT_STORE']}/datasets/{dataset}.json")
    assert sum(shard["images"] for shard in manifest["shards"]) == 1797 + 60


def test_a_version_is_made_again_byte_for_byte(third_night):
    done = nightshift("reproduce", "digits", "--version", third_night["version"], "--json", check=False)
    found = json.loads(done.stdout)
    assert found["reproduced"], found["sentence"]
    assert done.returncode == 0


def test_airflow_s_metrics_come_from_its_servers_and_from_both_workers(first_night, stack):
    expected = {
        *("airflow.scheduler_heartbeat", "airflow.dag_processor_heartbeat", "airflow.triggerer_heartbeat"),
        *("airflow.executor.queued_tasks", "airflow.pool.open_slots.train", "airflow.task_instance_created"),
        *(f"airflow.ti.finish.retrain_digits.{name}.success" for name in ("plan", "train", "register")),
    }
    assert expected - stack.metrics == set()


def test_secrets_do_not_appear_in_the_json_line(first_night):
    text = io.StringIO(json.dumps(first_night)).getvalue()
    assert os.environ["AWS_SECRET_ACCESS_KEY"] not in text
    assert os.environ["NIGHTSHIFT_AIRFLOW_PASSWORD"] not in text
