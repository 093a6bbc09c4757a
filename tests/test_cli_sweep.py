"""`nightshift sweep`: without Airflow on a tiny data set, through the whole stack, and what it refuses."""

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import mlflow
import pytest
from typer.testing import CliRunner

from nightshift import storage
from nightshift.cli import app
from nightshift.config import Pipeline
from nightshift.records import Decision
from nightshift.tracking import ledger
from nightshift.workflows.sweep.records import Sweep

OVER = ("--over", "train.learning_rate=0.05,0.02,1e-9", "--set", "train.epochs=2")


@pytest.fixture
def tracked(ml_dataset, tmp_path, monkeypatch) -> None:
    """A data set on which a night decided, and an MLflow of its own."""
    monkeypatch.chdir(tmp_path)  # MLflow keeps artifacts there
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent.parent / "tasks"))
    decision = {"pipeline": "tiny", "kind": "refused", "version": "1", "sha256": "", "data_digest": "d"}
    decision |= {"settings_digest": "s", "replaces": None, "by": "", "night": "", "reasons": ()}
    decision |= {"dataset": ml_dataset.digest, "at": ledger.now()}
    ledger.append(Decision.model_validate(decision))


def test_a_sweep_without_airflow_ends_with_settings_for_the_pipeline_file(tracked, ml_store):
    done = CliRunner().invoke(app, ["sweep", "tiny", *OVER, "--local"])
    assert done.exit_code == 0, done.output
    comment, table, _ = done.stdout.splitlines()
    assert comment.endswith("of 3")
    assert (comment[:2], table) == ("# ", "[train]")
    best = tomllib.loads(done.stdout)["train"]["learning_rate"]
    assert best in (0.05, 0.02)
    assert "trial" in done.stderr
    assert "1e-09" in done.stderr
    (record,) = ml_store.glob("sweeps/tiny/*/sweep.json")
    run = storage.read_record(f"file://{record}", Sweep).mlflow_run_id
    client = mlflow.MlflowClient()
    assert client.get_run(run).info.status == "FINISHED"
    assert client.get_run(run).data.params["train.learning_rate"] == "0.05,0.02,1e-9"
    found = client.search_runs(["1"], f"tags.`mlflow.parentRunId` = '{run}'")
    assert {child.info.run_name for child in found} == {"trial-1", "trial-2", "trial-3"}
    assert {child.data.params["epochs"] for child in found} == {"2"}


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("--over", "train.dropout=0..2"), "train.dropout: Input should be less than 1, got 2"),
        (("--over", "train.dropout"), "must look like train.learning_rate=log"),
        ((*OVER, "--set", "preprocess.image_size=16"), "--set preprocess.image_size does nothing in a sweep"),
    ],
)
def test_a_mistake_is_said_before_anything_is_started(ml_store, arguments, why):
    done = CliRunner().invoke(app, ["sweep", "tiny", *arguments])
    assert done.exit_code == 2
    assert why in done.stderr
    assert not list(ml_store.iterdir())


def nightshift(*arguments: str) -> str:
    """The real command in a process of its own; what it says on stdout."""
    command = [str(Path(sys.executable).with_name("nightshift")), *arguments]
    done = subprocess.run(command, env=dict(os.environ), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_sweep_through_airflow_finds_settings_on_the_last_night_s_data(stack, watched):
    over = ("--over", "train.learning_rate=log:0.01..0.1", "--trials", "2", "--set", "train.epochs=2")
    text = nightshift("sweep", "tiny", *over, "--wait")
    found = tomllib.loads(text)["train"]
    assert 0.01 <= found["learning_rate"] <= 0.1
    assert Pipeline.model_validate({"name": "tiny", "train": found})
    root = os.environ["NIGHTSHIFT_STORE"]
    keys = [entry.key for entry in storage.listing(storage.join(root, "sweeps", "tiny"))]
    assert [key.rpartition("/")[2] for key in keys] == [
        *("best.json", "sweep.json", "trial-0001.json", "trial-0002.json")
    ]
    sweep = storage.read_record(storage.join(root, "sweeps", "tiny", keys[1]), Sweep)
    newest = ledger.registered("tiny")
    assert newest is not None
    assert sweep.dataset_uri == storage.join(root, "datasets", f"{newest.dataset}.json")
    run = mlflow.MlflowClient().get_run(sweep.mlflow_run_id)
    assert run.info.status == "FINISHED"
    assert (
        run.data.metrics["best_validation_accuracy"]
        == json.loads(storage.read(storage.join(root, "sweeps", "tiny", keys[0])))["value"]
    )
