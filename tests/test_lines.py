"""What a stage prints, as JSON that says of what it is."""

import json

import pytest
from pydantic import BaseModel

from nightshift.config import Pipeline, PreprocessSettings, QuantizeSettings, TrainSettings
from nightshift.data.batches import message
from nightshift.errors import InputError
from nightshift.records import Message, Part
from nightshift.records.specs import CloseSpec, PlanSpec, PreprocessSpec, PromoteSpec, QuantizeSpec, TrainSpec
from nightshift.runner import json_logs

MESSAGE = Message(parts_uri="s3://n/plans/0123456789abcdef.json", parts=2, images=9, batches=("mon", "tue"))
CLOSE = CloseSpec(mlflow_run_id="", failed=False, reason="")


def facts(spec: BaseModel, stage: str = "stage", line: str = "a line", **labels: object) -> dict[str, object]:
    """What is known of a line, without the time."""
    printed: list[str] = []
    json_logs.labelled(printed.append, stage, spec, labels)(line)
    (text,) = printed
    found = json.loads(text)
    assert found.pop("time").endswith("Z")
    assert next(iter(found)) == "level"
    assert list(found)[-1] == "message"
    return found


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """JSON, outside of Airflow."""
    monkeypatch.setenv(json_logs.LOG, "json")
    for name in ("DAG_ID", "DAG_RUN_ID", "TRY_NUMBER"):
        monkeypatch.delenv(f"AIRFLOW_CTX_{name}", raising=False)


@pytest.mark.parametrize("given", [None, "", "text"])
def test_lines_stay_as_they_are_unless_json_is_asked_for(monkeypatch, given):
    monkeypatch.delenv(json_logs.LOG, raising=False)
    if given is not None:
        monkeypatch.setenv(json_logs.LOG, given)
    assert json_logs.labelled(print, "close", CLOSE) is print


def test_another_form_is_refused(monkeypatch):
    monkeypatch.setenv(json_logs.LOG, "xml")
    with pytest.raises(InputError, match="NIGHTSHIFT_LOG is 'xml'; it must be text or json"):
        json_logs.labelled(print, "close", CLOSE)


@pytest.mark.parametrize(
    ("spec", "known"),
    [
        (PlanSpec(pipeline=Pipeline(name="digits"), night="n1"), {"pipeline": "digits", "run": "n1"}),
        (
            PreprocessSpec(message=MESSAGE, source="s3://n", settings=PreprocessSettings()),
            {"batches": ["mon", "tue"], "part": "0123456789ab"},
        ),
        (TrainSpec(dataset_uri="s3://n/d", settings=TrainSettings(), member=0), {"member": 0}),
        (
            QuantizeSpec(recipe="int8", vote="soft", checkpoints=(), settings=QuantizeSettings()),
            {"recipe": "int8", "vote": "soft"},
        ),
        (
            PromoteSpec(action="check", pipeline="digits", run="m1", asks="never"),
            {"pipeline": "digits", "run": "m1"},
        ),
        (CLOSE, {}),
    ],
)
@pytest.mark.usefixtures("asked")
def test_a_line_says_what_its_stage_was_told(spec, known):
    assert facts(spec) == {"level": "info", "stage": "stage", "message": "a line", **known}


@pytest.mark.usefixtures("asked")
def test_airflow_and_the_caller_say_the_rest(monkeypatch):
    spec = TrainSpec(dataset_uri="s3://n/d", settings=TrainSettings(), member=2)
    monkeypatch.setenv("AIRFLOW_CTX_DAG_ID", "retrain_night_shift")
    monkeypatch.setenv("AIRFLOW_CTX_DAG_RUN_ID", "manual__1")
    monkeypatch.setenv("AIRFLOW_CTX_TRY_NUMBER", "3")
    expected = {"pipeline": "night_shift", "run": "manual__1", "try": 3, "member": 2}
    assert facts(spec).items() >= expected.items()
    assert facts(spec, run="local__1")["run"] == "local__1"


@pytest.mark.parametrize(
    ("line", "level"),
    [
        ("ERROR train: it is empty", "error"),
        ("Traceback (most recent call last):", "error"),
        ("torch.cuda.OutOfMemoryError: no memory", "error"),
        ("WARNING: slow", "warning"),
        ("/x/y.py:3: UserWarning: old", "warning"),
        ("epoch 1: loss 0.3, error 2 %", "info"),
        ('ünïcode "quoted"\tand tabs', "info"),
        ("", "info"),
    ],
)
@pytest.mark.usefixtures("asked")
def test_levels_are_those_of_the_line(line, level):
    found = facts(CLOSE, line=line)
    assert (found["level"], found["message"]) == (level, line)


def test_a_message_names_the_first_few_batches(tmp_path, monkeypatch):
    monkeypatch.setenv("NIGHTSHIFT_STORE", f"file://{tmp_path}")
    parts = [Part(batch=name, keys=(), digest=name) for name in ("b", "b", "a", "c", "d")]
    assert message(parts).batches == ("b", "a", "c")
