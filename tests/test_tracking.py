"""Runs in a real MLflow server, found again by the night's name, and closed with a reason."""

import threading
import time

import mlflow
import pytest
from waiting import wait_for

from nightshift.errors import OutageError, PrunedError
from nightshift.tracking import runs


def test_a_night_has_one_run_however_often_it_is_opened(mlflow_server):
    one = runs.open_run("tracked", "manual__2026-01-01T00:00:00+00:00", params={"train.epochs": 3})
    two = runs.open_run("tracked", "manual__2026-01-01T00:00:00+00:00", params={"train.epochs": 3})
    assert one == two
    assert runs.open_run("tracked", "other", params={}) != one
    assert mlflow.MlflowClient().get_run(one).data.params == {"train.epochs": "3"}


def test_a_failed_night_is_closed_with_its_reason_and_can_be_opened_again(mlflow_server):
    run = runs.open_run("tracked", "bad night", params={})
    runs.close_run(run, failed=True, reason="stage train was killed")
    closed = mlflow.MlflowClient().get_run(run)
    assert closed.info.status == "FAILED"
    assert closed.data.tags["nightshift.reason"] == "stage train was killed"
    runs.open_run("tracked", "bad night", params={})
    assert mlflow.MlflowClient().get_run(run).info.status == "RUNNING"


@pytest.mark.parametrize("changed", [{"lr": 0.2}, {"lr": 0.1, "start": "models:/x/3"}, {}])
def test_a_night_that_is_cleared_after_a_change_has_runs_with_the_new_parameters(mlflow_server, changed):
    name, client = f"cleared with {len(changed)}, {sum(map(len, changed))}", mlflow.MlflowClient()
    before = runs.open_run("tracked", name, params={"lr": 0.1})
    with runs.child_run(before, "train-0", params={"lr": 0.1}) as first:
        pass
    with runs.child_run(before, "train-0", params=changed) as second:  # other data, the same night
        assert client.get_run(second).data.params == {key: str(value) for key, value in changed.items()}
    with runs.child_run(before, "train-0", params={"lr": 0.1}) as third:
        assert third == first
    after = runs.open_run("tracked", name, params=changed)
    assert after != before
    assert client.get_run(before).info.status == "KILLED"
    assert runs.open_run("tracked", name, params=changed) == after
    assert client.get_run(before).data.params == {"lr": "0.1"}
    assert client.get_run(after).data.params == {key: str(value) for key, value in changed.items()}


def test_what_runs_below_a_night_ends_with_it_although_its_process_was_killed(mlflow_server):
    parent = runs.open_run("tracked", "with a killed training", params={})
    killed = runs.child_run(parent, "train-0", params={})
    run_id = killed.__enter__()  # a killed process never gets to the exit
    runs.close_run(parent, failed=True, reason="stage train was killed")
    client = mlflow.MlflowClient()
    assert client.get_run(run_id).info.status == "KILLED"
    assert client.get_run(parent).info.status == "FAILED"
    with runs.child_run(parent, "train-0", params={}) as again:
        assert again == run_id
        assert client.get_run(run_id).info.status == "RUNNING"


def test_a_child_run_ends_as_its_body_does(mlflow_server):
    parent = runs.open_run("tracked", "with children", params={})
    with runs.child_run(parent, "train-0", params={"lr": 0.1}) as child:
        runs.log_metrics(child, [("loss", 1.0 / (step + 1), step) for step in range(1500)])
    client = mlflow.MlflowClient()
    assert client.get_run(child).info.status == "FINISHED"
    assert len(client.get_metric_history(child, "loss")) == 1500
    with pytest.raises(ZeroDivisionError), runs.child_run(parent, "train-0", params={"lr": 0.1}) as again:
        raise ZeroDivisionError
    assert again == child
    assert client.get_run(child).info.status == "FAILED"
    with runs.child_run(parent, "train-0", params={"lr": 0.1}):
        assert client.get_run(child).info.status == "RUNNING"
    with pytest.raises(PrunedError), runs.child_run(parent, "train-0", params={"lr": 0.1}):
        raise PrunedError("most did better")
    assert client.get_run(child).info.status == "KILLED"


def test_a_child_run_says_who_ran_which_program(mlflow_server):
    parent = runs.open_run("tracked", "who", params={})
    with runs.child_run(parent, "train-0", params={}) as child:
        runs.set_tags(child, {"nightshift.models.device": "a lamp"})
    tags = mlflow.MlflowClient().get_run(child).data.tags
    assert tags["nightshift.models.device"] == "a lamp"
    assert {"mlflow.user", "mlflow.source.name"} <= set(tags)


@pytest.fixture
def child(mlflow_server):
    parent = runs.open_run("tracked", f"night {time.time()}", params={})
    with runs.child_run(parent, "train-0", params={}) as run_id:
        yield run_id


def test_rows_arrive_while_the_work_goes_on(child):
    with runs.live(child, machine=False) as log:
        log([("loss", 0.5, 1)])
        wait_for(lambda: runs.last_step(child, "loss"), "the row")
    assert runs.last_step(child, "none such") == 0


@pytest.mark.parametrize("state", ["closed", "deaf"])
def test_an_outage_neither_loses_nor_repeats_a_row(child, mlflow_server, state):
    with runs.live(child, machine=False) as log:
        mlflow_server.state = state
        log([("loss", 1.0, 1), ("loss", 0.5, 2)])
        before = len(mlflow_server.requests)
        wait_for(lambda: len(mlflow_server.requests) >= before + 2, "two requests")
        log([("loss", 0.25, 3)])
        mlflow_server.state = "open"
    history = mlflow.MlflowClient().get_metric_history(child, "loss")
    assert sorted((point.step, point.value) for point in history) == [(1, 1.0), (2, 0.5), (3, 0.25)]


def break_off(child, server, error: Exception | None) -> None:
    with runs.live(child, machine=True) as log:
        server.state = "closed"
        log([("loss", 1.0, 1)])
        before = len(server.requests)
        wait_for(lambda: len(server.requests) >= before + 2, "an answer of the closed server")
        if error:
            raise error


def test_an_outage_to_the_end_is_an_outage_unless_something_else_failed(child, mlflow_server, monkeypatch):
    monkeypatch.setattr(runs, "PATIENCE", 0.2)
    monkeypatch.setattr(runs, "FAILED_PATIENCE", 0.2)
    with pytest.raises(OutageError, match=r"\d values could not be sent within 0.2 s; MLflow at http"):
        break_off(child, mlflow_server, None)
    mlflow_server.state = "open"
    with pytest.raises(ZeroDivisionError):
        break_off(child, mlflow_server, ZeroDivisionError())
    mlflow_server.state = "open"


def test_the_load_of_the_machine_is_logged_and_outlasts_an_outage(child, mlflow_server, monkeypatch):
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.2")
    looks: list[object] = []
    points = runs._points
    monkeypatch.setattr(runs, "_points", lambda rows: (looks.append(rows), points(rows))[1])
    with runs.live(child, machine=True):
        mlflow_server.state = "closed"
        wait_for(lambda: len(looks) >= 12, "a dozen looks")
        mlflow_server.state = "open"
    client = mlflow.MlflowClient()
    names = {name for name in client.get_run(child).data.metrics if name.startswith("system/")}
    assert {"system/cpu_utilization_percentage", "system/system_memory_usage_megabytes"} <= names
    assert len(client.get_metric_history(child, "system/cpu_utilization_percentage")) >= 10
    assert {"machine", "journal"}.isdisjoint(thread.name for thread in threading.enumerate())


def test_artifacts_and_the_data_set_are_kept_with_the_run(mlflow_server):
    run = runs.open_run("tracked", "artifacts", params={})
    runs.log_artifact(run, "report/report.html", b"<p>fine</p>")
    runs.log_dataset(run, name="pets", digest="d" * 64, source="s3://b/datasets/x.json", rows=3)
    assert mlflow.artifacts.load_text(f"runs:/{run}/report/report.html") == "<p>fine</p>"
    inputs = mlflow.MlflowClient().get_run(run).inputs.dataset_inputs
    assert [entry.dataset.name for entry in inputs] == ["pets"]


def test_an_unreachable_server_is_an_outage_that_names_the_address(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(OutageError, match=r"MLflow at http://127\.0\.0\.1:9 cannot be reached; check MLFLOW"):
        runs.open_run("tracked", "n", params={})


def test_a_deleted_experiment_is_restored_and_that_is_said(mlflow_server, capsys):
    first = runs.open_run("binned", "n1", params={})
    mlflow = runs.client()
    mlflow.delete_experiment(mlflow.get_experiment_by_name("binned").experiment_id)
    second = runs.open_run("binned", "n2", params={})
    assert second != first
    assert "the experiment binned was deleted in MLflow and is restored" in capsys.readouterr().out
