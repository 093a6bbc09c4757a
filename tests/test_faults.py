"""Nights that go wrong: they stay red, say why, leave the champion alone, and the next night starts clean."""

import os
import subprocess
import sys
from pathlib import Path

import mlflow
import psutil
import pytest
from rich.console import Console
from waiting import wait_for

from nightshift.cli.airflow_api import Airflow
from nightshift.cli.follow import follow
from nightshift.tracking import ledger, registry

ROOT = Path(__file__).parent.parent
COMMAND = str(Path(sys.executable).with_name("nightshift"))


@pytest.fixture(scope="module")
def airflow(stack):
    return Airflow()


@pytest.fixture(scope="module")
def champion(watched):
    """The version that a first good night of `tiny` made champion."""
    assert registry.alias_version("tiny", "champion") == watched.version
    return watched.version


def ingest(batch: str) -> None:
    command = [COMMAND, "ingest", "--sample", "tiny", "--batch", batch]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)


def start(airflow: Airflow, **conf: object) -> str:
    values = {key.replace("__", "."): value for key, value in conf.items()}
    return airflow.trigger("retrain_tiny", {"force": True, **values})


def end(airflow: Airflow, run_id: str) -> dict:
    return follow(airflow, "tiny", run_id, Console(quiet=True))


def stage_process(stage: str) -> psutil.Process:
    """The running `python -m nightshift <stage>` of this run's stack."""
    found: list[psutil.Process] = []

    def look() -> bool:
        for process in psutil.process_iter(["cmdline"]):
            named = (process.info["cmdline"] or [])[1:4] == ["-m", "nightshift", stage]
            if named and process.environ().get("NIGHTSHIFT_HOME") == os.environ["NIGHTSHIFT_HOME"]:
                found.append(process)
        return bool(found)

    wait_for(look, f"stage {stage} to start")
    return found[0]


def parent_run(night: str) -> mlflow.entities.Run:
    experiment = mlflow.get_experiment_by_name("tiny")
    (run,) = mlflow.MlflowClient().search_runs(
        [experiment.experiment_id], f"tags.`nightshift.night` = '{night}'"
    )
    return run


def test_a_failed_night_says_why_and_touches_nothing(airflow, champion):
    before = ledger.history("tiny")
    night = start(airflow, train__weights="imagenet")
    result = end(airflow, night)
    assert result["state"] == "failed"
    assert "imagenet" in result["error"]
    run = parent_run(night)
    assert run.info.status == "FAILED"
    assert run.data.tags["nightshift.reason"] == result["error"]
    assert registry.alias_version("tiny", "champion") == champion
    assert ledger.history("tiny") == before


@pytest.fixture(scope="module")
def refused(airflow, champion):
    """A night after the failed one, whose model is larger than its policy allows."""
    return end(airflow, start(airflow, promotion__max_size_mb=0.001))


def test_the_night_after_a_failed_one_starts_clean_and_a_refusal_is_green(airflow, champion, refused):
    assert refused["state"] == "refused", refused
    assert any("0.00 MB" in reason for reason in refused["reasons"])
    assert parent_run(refused["dag_run_id"]).info.status == "FINISHED"
    assert registry.alias_version("tiny", "champion") == champion
    latest = ledger.history("tiny")[-1]
    assert (latest.kind, latest.version) == ("refused", refused["version"])


def test_clearing_a_night_reaches_the_same_version_again(airflow, refused):
    night = refused["dag_run_id"]
    before = ledger.history("tiny")
    airflow.clear("retrain_tiny", night, ["register", "close"])
    wait_for(lambda: airflow.run_state("retrain_tiny", night) != "success", "the cleared run to start")
    again = end(airflow, night)
    assert (again["state"], again["version"]) == ("refused", refused["version"])
    assert ledger.history("tiny") == before
    assert parent_run(night).info.status == "FINISHED"


def test_a_refused_version_is_not_promoted_by_hand_either(airflow, champion, refused):
    run_id = airflow.trigger("promote_tiny", {"version": refused["version"]})
    wait_for(lambda: airflow.run_state("promote_tiny", run_id) in ("success", "failed"), "the promotion")
    assert airflow.run_state("promote_tiny", run_id) == "failed"
    assert "was refused" in airflow.xcom("promote_tiny", run_id, "check", "error")
    assert registry.alias_version("tiny", "champion") == champion


def test_a_stage_killed_by_the_kernel_is_named_and_tried_again(airflow, champion):
    ingest("batch-2")  # fresher data is the gain that makes this night's model the champion
    night = start(airflow)
    process = stage_process("train")
    process.kill()
    wait_for(
        lambda: "exit -9" in str(airflow.xcom("retrain_tiny", night, "train", "error", 0)),
        "the sentence about the killed stage",
    )
    result = end(airflow, night)
    assert result["state"] == "promoted", result
    assert parent_run(night).info.status == "FINISHED"


def test_a_task_that_airflow_fails_takes_its_stage_process_with_it(airflow, champion):
    night = start(airflow, train__epochs=1000)
    process = stage_process("train")
    airflow.set_state("retrain_tiny", night, "train", 0, "failed")
    wait_for(lambda: not process.is_running(), "the stage's process to end")
    result = end(airflow, night)
    assert result["state"] == "failed"
    assert parent_run(night).info.status == "FAILED"


def test_a_promotion_can_be_taken_back(airflow, champion):
    """The killed and repeated night above made another champion; the first one is promoted again."""
    later = registry.alias_version("tiny", "champion")
    assert later != champion
    for version in (champion, later):
        run_id = airflow.trigger("promote_tiny", {"version": version})
        wait_for(
            lambda run_id=run_id: airflow.run_state("promote_tiny", run_id) == "success", "the promotion"
        )
        assert registry.alias_version("tiny", "champion") == version
        latest = ledger.history("tiny")[-1]
        assert (latest.kind, latest.version, latest.by) == ("promoted", version, "admin")
