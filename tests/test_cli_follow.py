"""What a followed night says, without Airflow."""

from typing import Any

import pytest
from ml_fixtures import spec_of

from nightshift.cli.console import messages
from nightshift.cli.follow import follow, goes_on
from nightshift.evaluate import evaluate
from nightshift.records import FailedCandidate
from nightshift.tracking import runs


class Ended:
    """Airflow with one night that ended; `given` is what its tasks returned."""

    url = "http://airflow"

    def __init__(self, given: dict[str, Any]) -> None:
        self.given = given

    def run_state(self, dag: str, run_id: str) -> str:
        return "success"

    def tasks(self, dag: str, run_id: str) -> list[dict[str, Any]]:
        return []

    def xcom(self, dag: str, run_id: str, task: str, key: str = "return_value") -> Any:
        return self.given.get(task)


@pytest.fixture
def said(monkeypatch, capsys):
    """Follows such a night; its result and what was printed."""
    monkeypatch.setattr(runs, "run_url", lambda run_id: "http://mlflow")

    def through(given: dict[str, Any]) -> tuple[dict[str, Any], str]:
        return follow(Ended(given), "tiny", "run-1", messages()), capsys.readouterr().err

    return through


def test_what_was_passed_over_is_said_and_in_the_result(said, ml_night, timed):
    unmade = FailedCandidate(recipe="int8", reason="node [head] has no int8 kernel")
    evaluation = evaluate(spec_of(ml_night, candidates=(ml_night.candidates["fp32"], unmade)))
    registered = {"name": "tiny", "version": "1", "state": "refused", "reasons": [], "mlflow_run_id": "run"}
    given = {"register": registered, "evaluate": evaluation.model_dump(mode="json")}
    result, printed = said(given)
    sentence = "int8 was not made: node [head] has no int8 kernel"
    assert f"rejected: {sentence}" in printed
    assert result["rejected"] == {"int8": sentence}
    assert result["front"] == ["fp32"]
    assert (result["state"], result["recipe"]) == ("refused", "fp32")
    speed = evaluation.speeds["fp32"]
    assert result["metrics"]["latency_ms_p50"] == speed.full.latency_ms_p50
    assert result["metrics"]["memory_mb"] == speed.memory_mb
    assert result["metrics"]["accuracy"] == evaluation.test["fp32"].accuracy


def test_ctrl_c_of_waiting_says_that_the_night_goes_on(capsys):
    with pytest.raises(SystemExit) as ended, goes_on("night run-1 of tiny", "http://airflow/runs/run-1"):
        raise KeyboardInterrupt
    assert ended.value.code == 130
    said = capsys.readouterr().err
    assert "night run-1 of tiny goes on in Airflow, only the waiting ended: http://airflow/runs/run-1" in said
    assert "to stop it, mark it as failed there" in said


def test_a_night_that_trained_nothing_has_the_same_keys(said):
    reason = "too few new images in [/b]"
    result, printed = said({"assemble": reason})
    assert (result["state"], result["reason"]) == ("nothing-new", reason)
    assert (result["rejected"], result["front"], result["metrics"]) == ({}, [], {})
    assert reason in printed
