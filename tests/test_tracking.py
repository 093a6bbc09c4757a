"""Runs in a real MLflow server, found again by the night's name, and closed with a reason."""

import mlflow
import pytest

from tasks import tracking
from tasks.errors import OutageError, PrunedError


def test_a_night_has_one_run_however_often_it_is_opened(stack):
    one = tracking.open_night("tracked", "manual__2026-01-01T00:00:00+00:00", params={"train.epochs": 3})
    two = tracking.open_night("tracked", "manual__2026-01-01T00:00:00+00:00", params={"train.epochs": 3})
    assert one == two
    assert tracking.open_night("tracked", "other", params={}) != one
    assert mlflow.MlflowClient().get_run(one).data.params == {"train.epochs": "3"}


def test_a_failed_night_is_closed_with_its_reason_and_can_be_opened_again(stack):
    run = tracking.open_night("tracked", "bad night", params={})
    tracking.close_night(run, failed=True, reason="stage train was killed")
    closed = mlflow.MlflowClient().get_run(run)
    assert closed.info.status == "FAILED"
    assert closed.data.tags["nightshift.reason"] == "stage train was killed"
    tracking.open_night("tracked", "bad night", params={})
    assert mlflow.MlflowClient().get_run(run).info.status == "RUNNING"


def test_a_child_run_ends_as_its_body_does(stack):
    parent = tracking.open_night("tracked", "with children", params={})
    with tracking.child_run(parent, "train-0", params={"lr": 0.1}) as child:
        tracking.log_metrics(child, [("loss", 1.0 / (step + 1), step) for step in range(1500)])
    client = mlflow.MlflowClient()
    assert client.get_run(child).info.status == "FINISHED"
    assert len(client.get_metric_history(child, "loss")) == 1500
    with pytest.raises(ZeroDivisionError), tracking.child_run(parent, "train-0", params={}) as again:
        raise ZeroDivisionError
    assert again == child
    assert client.get_run(child).info.status == "FAILED"
    with pytest.raises(PrunedError), tracking.child_run(parent, "train-0", params={}):
        raise PrunedError("most did better")
    assert client.get_run(child).info.status == "KILLED"


def test_artifacts_and_the_data_set_are_kept_with_the_run(stack):
    run = tracking.open_night("tracked", "artifacts", params={})
    tracking.log_artifact(run, "report/report.html", b"<p>fine</p>")
    tracking.log_dataset(run, name="pets", digest="d" * 64, source="s3://b/datasets/x.json", rows=3)
    assert mlflow.artifacts.load_text(f"runs:/{run}/report/report.html") == "<p>fine</p>"
    inputs = mlflow.MlflowClient().get_run(run).inputs.dataset_inputs
    assert [entry.dataset.name for entry in inputs] == ["pets"]


def test_an_unreachable_server_is_an_outage_that_names_the_address(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(OutageError, match=r"MLflow at http://127\.0\.0\.1:9 cannot be reached; check MLFLOW"):
        tracking.open_night("tracked", "n", params={})
