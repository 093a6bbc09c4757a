"""Whatever is wrong with one pipeline file or variable, the other pipelines are parsed and scheduled.

Each example puts something wrong into one file, and has Airflow's own DagBag, serialization and timetables
read the whole folder, as its DAG processor does.
"""

import importlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from dag_files import DAGS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from nightshift.config import STAGE_SETTINGS, Pipeline
from nightshift.config.pipelines import load_pipeline
from nightshift.errors import InputError

PREFIXES = ("retrain", "promote", "predict", "sweep")
FILES = (*PREFIXES, "upkeep", "pipeline_errors")
QUICK = settings(
    deadline=None,  # no limit of time is an assertion here
    max_examples=60,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
SETTINGS = [
    ("", name)
    for name, field in Pipeline.model_fields.items()
    if not isinstance(getattr(Pipeline(name="x"), name), tuple(STAGE_SETTINGS.values()))
] + [
    (table, name)
    for table in (*STAGE_SETTINGS, "retrain", "predict")
    for name in type(getattr(Pipeline(name="x"), table)).model_fields
]


class Parsed(NamedTuple):
    """Ids of the DAGs that Airflow would schedule, and the import error of each file that has one."""

    dags: set[str]
    errors: dict[str, str]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, airflow_home):
    """The DAGs with two good pipelines, digits and tiny."""
    there = tmp_path_factory.mktemp("isolation") / "dags"
    shutil.copytree(DAGS, there, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("photos", "cifar10"):
        (there / "pipelines" / f"{name}.toml").unlink()
    return there


def parse(folder: Path) -> Parsed:
    from airflow.dag_processing.dagbag import DagBag
    from airflow.serialization.serialized_objects import DagSerialization

    dags: set[str] = set()
    errors: dict[str, str] = {}
    for name in FILES:
        bag = DagBag(folder / f"{name}.py", bundle_path=folder, bundle_name="dags")
        errors |= {Path(file).stem: text for file, text in bag.import_errors.items()}
        for dag_id, dag in bag.dags.items():
            stored = json.dumps(DagSerialization.to_dict(dag), allow_nan=False)
            assert "\\u0000" not in stored, "PostgreSQL refuses it"
            DagSerialization.from_dict(json.loads(stored)).next_dagrun_info(last_automated_run_info=None)
            dags.add(dag_id)
    return Parsed(dags, errors)


def dags_of(*names: str) -> set[str]:
    return {f"{prefix}_{name}" for prefix in PREFIXES for name in names}


GOOD = dags_of("digits", "tiny") | {"upkeep"}


def check(folder: Path, path: Path) -> None:
    """Parse with what lies at `path`: it is a pipeline, or the list of import errors says why not."""
    parsed = parse(folder)
    said = refusal(lambda: load_pipeline(path))
    if said:
        assert parsed.dags == GOOD
        assert set(parsed.errors) == {"pipeline_errors"}
        assert said in parsed.errors["pipeline_errors"]
        assert path.name in said
    else:
        assert parsed.dags == GOOD | dags_of(path.stem)
        assert not parsed.errors


def refusal(call: Callable[[], object]) -> str:
    """What is said of what is refused, nothing of what is taken."""
    try:
        call()
    except (InputError, ValidationError) as error:
        return str(error)
    return ""


ODD = st.sampled_from(
    [
        *('"a\\u0000b"', '"\\u001b[31m"', '"\\u202e\\ud7ff\\U0001F980"', '"{name} {0} {{ x }} {% raw %}"'),
        *("inf", "-inf", "nan", "1e308", "-1e308", "1e-320", "0", "-1", "3.0", "true", "[]", "{}", "[[1]]"),
        *("9" * 30, "-" + "9" * 30, "9" * 5000, "0x" + "f" * 9000, '""', f'"{"x" * 5000}"', "2026-12-01"),
        *("{a = {b = 1}}", "[nan]", "07:30:00", '"None"', '"../../x"', '"file:///../etc"', '"http://x"'),
        *('"s3://"', '"America"', '"/etc/passwd"', '"posixrules"', f'"{"Z/" * 200}"', '"UTC\\n"'),
        *('"0 25 * * *"', '"0 0 30 2 *"', '"*/0 * * * *"', '"R * * * *"', '"H * * * *"', '"@reboot"'),
        *('"0 0 1 1 1 1"', '"1-999999999 * * * *"', '"٣ * * * *"', '"0 0 L * *"', '"0 0 * * 5#6"'),
    ]
)
NUMBERS = st.one_of(st.integers(), st.floats()).map(lambda number: str(number))
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40).map(json.dumps)


@QUICK
@given(where=st.sampled_from(SETTINGS), value=ODD | NUMBERS | TEXTS)
def test_a_wrong_value_of_any_setting_costs_its_own_pipeline_only(folder, where, value):
    table, name = where
    path = folder / "pipelines" / "odd.toml"
    path.write_text(f"[{table}]\n{name} = {value}\n" if table else f"\n{name} = {value}\n", encoding="utf-8")
    try:
        check(folder, path)
    finally:
        path.unlink()


@pytest.mark.parametrize("table", ["", "train"])
@pytest.mark.parametrize(
    "value", ["inf", "nan", "9" * 5000, "0x" + "f" * 9000, '"a\\u0000b"', "[[1]]", '"a', "2026-13-01", "=="]
)
def test_the_sentence_about_a_value_names_its_line(tmp_path, table, value):
    name = "epochs" if table else "deadline_hours"
    path = tmp_path / "odd.toml"
    path.write_text(f"\n\n[{table}]\n{name} = {value}\n" if table else f"\n\n\n{name} = {value}\n")
    with pytest.raises(InputError) as caught:
        load_pipeline(path)
    assert len(str(caught.value)) < 500
    if value != "9" * 5000:  # Python's parser does not say where
        assert "line 4" in str(caught.value)


def raw(data: bytes) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(data) and None


WRONG_FILES: dict[str, Callable[[Path], Any]] = {
    "broken": raw(b"[train\nepochs = 3"),
    "the same key twice": raw(b"[train]\nepochs = 3\nepochs = 4\n"),
    "the same table twice": raw(b"[train]\nepochs = 3\n[train]\nwidth = 1\n"),
    "latin-1": raw("description = 'Vögel'".encode("latin-1")),
    "utf-16": raw('description = "x"'.encode("utf-16")),
    "a photo": raw(b"\x89PNG\r\n\x1a\n" + bytes(range(256))),
    "zeros": raw(bytes(4096)),
    "nested": raw(b"description = " + b"[" * 20_000),
    "huge": raw(b"# " + b"x" * (2 << 20)),
    "the name of another": raw(b'name = "digits"\n'),
    "unknown": raw(b"[trane]\nepochs = 3\n"),
    "a folder": lambda path: path.mkdir(),
    "a loop": lambda path: path.symlink_to(path.name),
    "nowhere": lambda path: path.symlink_to("not-there"),
    "a pipe": lambda path: os.mkfifo(path),
    "endless": lambda path: path.symlink_to("/dev/zero"),
    "unreadable": lambda path: (path.write_text(""), path.chmod(0)),
}


@pytest.mark.parametrize("kind", WRONG_FILES)
def test_a_wrong_file_costs_its_own_pipeline_only(folder, kind):
    path = folder / "pipelines" / "odd.toml"
    WRONG_FILES[kind](path)
    try:
        check(folder, path)
    finally:
        path.rmdir() if path.is_dir() else path.unlink()


@pytest.mark.parametrize(
    "name", ["Odd", "digits ", "1", "ö", "x" * 41, "digits-predictions", "a.b", "digits'"]
)
def test_a_wrong_name_costs_its_own_pipeline_only(folder, name):
    path = folder / "pipelines" / f"{name}.toml"
    path.write_text("")
    try:
        check(folder, path)
    finally:
        path.unlink()


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("NIGHTSHIFT_NOTIFY", "smpt:ops@example.org", "NIGHTSHIFT_NOTIFY has 'smpt:ops@example.org'"),
        ("NIGHTSHIFT_RETRY_SECONDS", "a minute", "must be seconds from 0 to 86400, got 'a minute'"),
        ("NIGHTSHIFT_RETRY_SECONDS", "nan", "must be seconds from 0 to 86400, got 'nan'"),
        ("NIGHTSHIFT_RETRY_SECONDS", "1e300", "must be seconds from 0 to 86400, got '1e300'"),
    ],
)
def test_a_mistyped_variable_costs_no_pipeline_and_is_shown(folder, monkeypatch, variable, value, words):
    path = folder / "pipelines" / "odd.toml"
    path.write_text("deadline_hours = 3\n")
    monkeypatch.setenv(variable, value)
    try:
        parsed = parse(folder)
    finally:
        path.unlink()
    assert parsed.dags == GOOD | dags_of("odd")
    assert set(parsed.errors) == {"pipeline_errors"}
    assert words in parsed.errors["pipeline_errors"]


@pytest.mark.parametrize("prefix", PREFIXES)
def test_what_airflow_refuses_of_one_pipeline_costs_that_dag_only_and_is_shown(folder, monkeypatch, prefix):
    """Whatever a validation here does not foresee, a builder that breaks off half-way stands for."""
    from airflow.sdk import DAG

    module = importlib.import_module(f"nightshift.airflow.{prefix}")
    real = module.dag_of

    def breaks_off(pipeline: Pipeline) -> DAG:
        if pipeline.name == "odd":
            with DAG("half", schedule=None, auto_register=False):
                raise RuntimeError("no such")
        return real(pipeline)

    breaks_off.__module__ = real.__module__
    monkeypatch.setattr(module, "dag_of", breaks_off)
    path = folder / "pipelines" / "odd.toml"
    path.write_text("")
    try:
        parsed = parse(folder)
    finally:
        path.unlink()
    assert parsed.dags == GOOD | dags_of("odd") - {f"{prefix}_odd"}
    assert set(parsed.errors) == {"pipeline_errors"}
    assert (
        f"odd.toml: Airflow takes no {prefix} DAG: RuntimeError: no such" in parsed.errors["pipeline_errors"]
    )


PARTS = st.one_of(
    st.sampled_from(
        ["*", "0", "7", "59", "60", "31", "MON", "fri", "MAR", "JAN-DEC", "L", "5#3", "R", "H", "?"]
    ),
    st.from_regex(r"[0-9]{1,2}([-/,][0-9]{1,2}){0,2}|\*/[0-9]{1,3}", fullmatch=True),
    st.text("0123456789*,/-#LRHWlr?", min_size=1, max_size=5),
)


@settings(QUICK, max_examples=400)
@given(parts=st.lists(PARTS, min_size=5, max_size=5))
def test_airflow_takes_and_describes_every_schedule_that_is_taken_here(airflow_home, parts):
    from airflow.sdk import CronTriggerTimetable
    from airflow.serialization.encoders import coerce_to_core_timetable
    from airflow.timetables.base import TimeRestriction

    cron = " ".join(parts)
    if said := refusal(lambda: Pipeline(name="x", schedule=cron)):
        assert "schedule must be @daily and the like or five cron fields" in said
        return
    timetable = coerce_to_core_timetable(CronTriggerTimetable(cron, timezone="Europe/Berlin"))
    timetable.validate()
    restriction = TimeRestriction(earliest=None, latest=None, catchup=False)
    assert timetable.next_dagrun_info(last_automated_data_interval=None, restriction=restriction)
