"""The DAG `upkeep` as Airflow sees it, and its file."""

import runpy
import shutil
from pathlib import Path

import pytest
from dag_files import DAGS

from nightshift.config.pipelines import load_pipeline
from nightshift.config.toml import load
from nightshift.config.upkeep import Retention, Upkeep
from nightshift.errors import InputError

NAMES = sorted(path.stem for path in (DAGS / "pipelines").glob("*.toml"))
PLACE = str(DAGS / "upkeep.py")


@pytest.fixture(scope="module")
def upkeep(airflow_home):
    from nightshift.airflow import upkeep

    return upkeep


@pytest.fixture
def dag(upkeep):
    return upkeep.dag_of(load(DAGS / "upkeep.toml", Upkeep), PLACE)


def test_it_waits_looks_and_deletes_and_audits_beside_it(dag):
    edges = {task.task_id: set(task.downstream_task_ids) for task in dag.tasks}
    audits = {f"audit_{name}": set() for name in NAMES}
    assert edges == {
        "wait": {"look"},
        "look": {"go_on", "delete"},
        "go_on": {"delete"},
        "delete": set(),
        **audits,
    }
    assert (dag.max_active_runs, dag.timetable.expression) == (1, "0 5 * * 0")
    wait = dag.get_task("wait")
    assert (wait.mode, wait.soft_fail, wait.timeout) == ("reschedule", True, 12 * 3600)
    for name in NAMES:
        audit = dag.get_task(f"audit_{name}")
        assert (audit.trigger_dag_id, audit.conf) == (f"promote_{name}", {"action": "audit"})
    assert all(task.execution_timeout for task in dag.tasks if task.task_id != "wait")


def test_what_it_starts_takes_what_it_sends(dag, upkeep):
    from nightshift.airflow import promote

    built = promote.dag_of(load_pipeline(DAGS / "pipelines" / "digits.toml"))
    assert "audit" in built.params.get_param("action").schema["enum"]


def test_the_form_has_every_setting_with_its_help_and_the_files_value(dag):
    settings = load(DAGS / "upkeep.toml", Upkeep)
    assert set(dag.params) == {*Retention.model_fields, "dry_run"}
    for name in dag.params:
        param = dag.params.get_param(name)
        assert param.value == getattr(settings, name)
        assert len(param.description) > 10
    with pytest.raises(ValueError, match="less than the minimum of 1"):
        dag.params.get_param("keep_versions").resolve(0)


def test_it_waits_while_a_night_a_sweep_or_a_prediction_runs(upkeep, monkeypatch):
    running = {"sweep_digits": 1}
    asked = []

    class Instance:
        def get_dr_count(self, dag_id: str, states: list[str]) -> int:
            assert states == ["running"]
            asked.append(dag_id)
            return running.get(dag_id, 0)

    monkeypatch.setattr(upkeep, "get_current_context", lambda: {"ti": Instance()})
    assert upkeep.wait.function(PLACE) is False
    assert {f"{kind}_{name}" for kind in ("retrain", "sweep", "predict") for name in NAMES} == set(asked)
    running.clear()
    assert upkeep.wait.function(PLACE) is True


def test_the_form_s_settings_reach_the_stage_and_the_list_reaches_delete(upkeep, monkeypatch):
    specs, told = [], []

    def run(stage, spec):
        specs.append(spec)
        return {"list_uri": "s3://nightshift/upkeep/x.json", "findings": [f"f{n}" for n in range(7)]}

    monkeypatch.setattr(upkeep, "run", run)
    monkeypatch.setattr(upkeep.notifications, "tell", told.append)
    kept = {"grace_days": 3, "version_days": 50, "keep_versions": 2, "prediction_days": 9, "log_days": 8}
    params = kept | {"dry_run": True}
    found = upkeep.look.function(PLACE, params)
    upkeep.delete.function(found)
    assert specs[0].settings == Retention.model_validate(kept)
    assert len(specs[0].named) == len(NAMES)
    assert (specs[1].action, specs[1].list_uri) == ("delete", found["list_uri"])
    assert told == ["upkeep: f0; f1; f2; f3; f4; 7 findings in all"]
    assert upkeep.go_on.function(params) is False
    assert upkeep.go_on.function({**params, "dry_run": False}) is True


def test_a_pipeline_that_cannot_be_read_may_name_anything(upkeep, monkeypatch):
    mistake = InputError("pets.toml, line 1: x is not a setting")
    monkeypatch.setattr(upkeep, "pipelines", lambda place: ([], [mistake]))
    monkeypatch.setattr(upkeep, "run", lambda *given: pytest.fail("it looked"))
    with pytest.raises(Exception, match=f"{mistake}; nobody can tell what it needs"):
        upkeep.look.function(PLACE, dict(Retention()))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("\ngrace_days = 0\n", r"^upkeep.toml, line 2: grace_days: .*greater than or equal to 1, got 0$"),
        (
            "grace_day = 3\n",
            r"line 1: grace_day is not a setting; known are grace_days, version_days, .*dry_run$",
        ),
        ('timezone = "Mars"\n', r"line 1: timezone: timezone must be an IANA name .*, got 'Mars'$"),
        ('schedule = "daily"\n', r"line 1: schedule: schedule must be .* five cron fields: .*, got 'daily'$"),
        ("dry_run =\n", r"^upkeep.toml is not valid TOML: .*; correct that line$"),
    ],
)
def test_a_mistake_in_the_file_is_a_sentence_in_the_list_of_import_errors(upkeep, tmp_path, text, words):
    shutil.copy(DAGS / "upkeep.py", tmp_path)
    (tmp_path / "upkeep.toml").write_text(text)
    with pytest.raises(InputError, match=words):
        runpy.run_path(str(tmp_path / "upkeep.py"))


def test_without_a_schedule_it_runs_by_hand_only(upkeep, tmp_path: Path):
    (tmp_path / "upkeep.toml").write_text("")
    assert upkeep.dag_of(load(tmp_path / "upkeep.toml", Upkeep), PLACE).schedule is None
