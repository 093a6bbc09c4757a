"""The caller's own PostgreSQL, broker, S3 and MLflow instead of the stack's, lent by another stack."""

import os
import re
import shutil
import stat
import tempfile
from pathlib import Path

import httpx
import pytest
from test_storage import free_port
from waiting import patience

from nightshift import storage
from nightshift.errors import InputError, OutageError
from nightshift.security import signing
from nightshift.stack import environment, external_services, lifecycle, prepare, private_files, supervisor
from nightshift.stack.environment import Site
from nightshift.stack.private_files import Ports
from nightshift.stack.roles import build_roles

AIRFLOW_DB, MLFLOW_DB = "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "MLFLOW_BACKEND_STORE_URI"
BROKER, RESULTS = "AIRFLOW__CELERY__BROKER_URL", "AIRFLOW__CELERY__RESULT_BACKEND"
OWN = {
    AIRFLOW_DB: "postgresql+psycopg2://me:word@db.example/airflow",
    MLFLOW_DB: "postgresql://me:word@db.example/mlflow",
    BROKER: "rediss://:word@queue.example:6390/3",
    RESULTS: "rediss://:word@queue.example:6390/4",
    "NIGHTSHIFT_STORE": "s3://mine/nights",
    "AWS_ENDPOINT_URL_S3": "https://s3.example",
    "AWS_ACCESS_KEY_ID": "my-key",
    "AWS_SECRET_ACCESS_KEY": "my-secret",
    "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
    "MLFLOW_TRACKING_URI": "https://mlflow.example",
    "MLFLOW_TRACKING_PASSWORD": "my-word",
    "MLFLOW_RUN_ID": "of-something-else",
}


@pytest.fixture(autouse=True)
def _caller(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody's variables."""
    for name in list(os.environ):
        if name.startswith(("AWS_", "MLFLOW_", "AIRFLOW__", "NIGHTSHIFT_")):
            monkeypatch.delenv(name)


def roles_of(folder: Path, *without: str) -> dict[str, dict[str, str]]:
    """The environments of all roles of a stack that leaves these parts to the caller."""
    site = site_of(folder, *without)
    return {role.name: dict(role.environment) for role in build_roles(site, OWN)}


def site_of(folder: Path, *without: str) -> Site:
    own = external_services.take(without, ["mlflow", "scheduler", "worker", "worker-train"], OWN)
    return Site(folder, Ports(), private_files.ensure_secrets(folder), folder, cores=4, own=own)


@pytest.mark.parametrize(
    ("part", "variable"),
    [
        ("s3", "NIGHTSHIFT_STORE"),
        ("mlflow", "MLFLOW_TRACKING_URI"),
        ("postgres", AIRFLOW_DB),
        ("valkey", BROKER),
    ],
)
def test_a_variable_that_is_missing_is_one_sentence_and_nothing_starts(
    home: Path, part: str, variable: str
) -> None:
    with pytest.raises(
        InputError, match=rf"^{part} is left out and {variable} is not set, by which .* finds "
    ):
        lifecycle.up(home, without=[part], random_ports=True)
    assert supervisor.connect(home) is None


def test_a_server_that_does_not_answer_is_one_sentence_and_nothing_starts(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = f"127.0.0.1:{free_port()}"
    given = {
        "s3": {"NIGHTSHIFT_STORE": "s3://mine", "AWS_ENDPOINT_URL": f"http://{at}"},
        "mlflow": {"MLFLOW_TRACKING_URI": f"http://me:word@{at}"},
        "postgres": {AIRFLOW_DB: f"postgresql://me:word@{at}/a", MLFLOW_DB: f"postgresql://me:word@{at}/m"},
        "valkey": {BROKER: f"redis://:word@{at}/0", RESULTS: f"redis://:word@{at}/1"},
    }
    for part, variables in given.items():
        with monkeypatch.context() as patch:
            for name, value in variables.items():
                patch.setenv(name, value)
            with pytest.raises(
                OutageError, match=f"^your own .* at .*{at} does not work .*start it, or"
            ) as said:
                lifecycle.up(home, without=[part], random_ports=True)
            assert "word" not in str(said.value)
    assert supervisor.connect(home) is None


def test_what_no_role_needs_may_be_left_out_without_a_variable() -> None:
    assert external_services.take(["postgres", "s3", "mlflow"], ["valkey"], {}) == {}


def test_every_role_reaches_the_callers_own_store(tmp_path: Path) -> None:
    roles = roles_of(tmp_path, "s3")
    for name in ("mlflow", "worker", "worker-train", "api-server", "serve"):
        assert roles[name].items() >= {name: OWN[name] for name in OWN if name.startswith("AWS_")}.items()
        assert name == "mlflow" or roles[name]["NIGHTSHIFT_STORE"] == "s3://mine/nights"
        assert "AWS_DEFAULT_REGION" not in roles[name]
    assert roles["mlflow"]["MLFLOW_BOTO_CLIENT_ADDRESSING_STYLE"] == "path"
    (mlflow,) = [each for each in build_roles(site_of(tmp_path, "s3"), {}) if each.name == "mlflow"]
    assert "s3://mine/nights/mlflow" in mlflow.command
    assert roles["worker"]["MLFLOW_TRACKING_URI"] == "http://127.0.0.1:5000"


def test_every_role_reaches_the_callers_own_mlflow_and_gets_nothing_else_of_it(tmp_path: Path) -> None:
    worker = roles_of(tmp_path, "mlflow")["worker"]
    assert worker["MLFLOW_TRACKING_URI"] == "https://mlflow.example"
    assert worker["MLFLOW_TRACKING_PASSWORD"] == "my-word"
    assert not {"MLFLOW_RUN_ID", MLFLOW_DB} & worker.keys()
    assert worker["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] == "false"
    assert worker["NIGHTSHIFT_STORE"] == "s3://nightshift"


def test_only_servers_get_the_callers_own_database(tmp_path: Path) -> None:
    roles = roles_of(tmp_path, "postgres", "valkey")
    assert roles["scheduler"][AIRFLOW_DB] == OWN[AIRFLOW_DB]
    assert roles["mlflow"][MLFLOW_DB] == OWN[MLFLOW_DB]
    assert {name for name, variables in roles.items() if AIRFLOW_DB in variables} >= {"migrate", "janitor"}
    for name in ("worker", "worker-train"):
        assert (roles[name][BROKER], roles[name][RESULTS]) == (OWN[BROKER], OWN[RESULTS])
        assert "db.example" not in " ".join(roles[name].values())


def test_models_of_the_callers_own_mlflow_are_signed_by_the_callers_own_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    mine = {signing.PUBLIC_KEYS: "mine.pub:/keys/old.pub", signing.SIGNING_KEY: "mine.key"}
    own = external_services.take(["mlflow"], ["worker"], OWN | mine)
    site = Site(tmp_path, Ports(), private_files.ensure_secrets(tmp_path), tmp_path, cores=4, own=own)
    roles = {role.name: role.environment for role in build_roles(site, {})}
    assert roles["worker-train"][signing.PUBLIC_KEYS] == f"{tmp_path}/mine.pub:/keys/old.pub"
    assert roles["worker"][signing.SIGNING_KEY] == f"{tmp_path}/mine.key"
    assert {name for name, variables in roles.items() if signing.SIGNING_KEY in variables} == {"worker"}
    assert signing.SIGNING_KEY not in environment.client_variables(site)


def test_another_database_is_migrated_anew(tmp_path: Path) -> None:
    (tmp_path / "airflow").mkdir()
    for without in ((), ("postgres",)):
        site = site_of(tmp_path, *without)
        assert "migrate" in {role.name for role in prepare.make_roles(site)}
        prepare.note_migrated(site)
        assert "migrate" not in {role.name for role in prepare.make_roles(site)}


def test_mlflow_runs_on_servers_of_the_caller(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = Path(tempfile.mkdtemp(prefix="ns-", dir="/tmp"))
    try:
        lifecycle.up(theirs, only=["postgres", "valkey", "s3"], random_ports=True)
        site = prepare.find_site(theirs)
        assert site is not None
        (theirs / "s3" / "mine").mkdir()
        variables = environment.client_environment(theirs)
        given = {name: value for name, value in variables.items() if name.startswith("AWS_")}
        given |= {"NIGHTSHIFT_STORE": "s3://mine", MLFLOW_DB: site.database_url("mlflow")}
        given |= {
            AIRFLOW_DB: site.database_url("airflow"),
            BROKER: site.broker_url,
            RESULTS: site.result_backend,
        }
        for name, value in given.items():
            monkeypatch.setenv(name, value)
        lifecycle.up(home, only=["mlflow"], without=["postgres", "valkey", "s3"], random_ports=True)
        found = {one.name: (one.state, one.health) for one in lifecycle.status(home)}
        assert found == dict.fromkeys(("postgres", "valkey", "s3"), ("your own", "healthy")) | {
            "mlflow": ("running", "healthy")
        }
        client = environment.client_environment(home)
        artifact = f"{client['MLFLOW_TRACKING_URI']}/api/2.0/mlflow-artifacts/artifacts/probe/note.txt"
        login = (client["MLFLOW_TRACKING_USERNAME"], client["MLFLOW_TRACKING_PASSWORD"])
        with httpx.Client(auth=login, trust_env=False, timeout=patience(30)) as asking:
            assert asking.put(artifact, content=b"kept").status_code == 200
        assert storage.read("s3://mine/mlflow/probe/note.txt") == b"kept"
        assert stat.S_IMODE((home / "own.json").stat().st_mode) == 0o600
        for name in given:
            monkeypatch.delenv(name)
        said: list[str] = []  # another shell, without the variables
        lifecycle.up(home, only=["mlflow", "s3"], on_event=said.append)
        assert said == ["everything is up already"]
        known = environment.client_environment(home)
        assert known["NIGHTSHIFT_STORE"] == "s3://mine"
        assert not {AIRFLOW_DB, MLFLOW_DB, BROKER} & known.keys()
        lifecycle.down(theirs)
        sick = {one.name: one.health for one in lifecycle.status(home) if not one.healthy}
        assert {"postgres", "valkey", "s3"} <= sick.keys()
        assert all(re.search("refused", reason) for name, reason in sick.items() if name != "mlflow")
    finally:
        lifecycle.down(home)
        lifecycle.down(theirs)
        shutil.rmtree(theirs)
