"""The command as a whole: its verbs, its start, and how it ends when something is wrong."""

import os
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner
from waiting import patience

from nightshift.cli import app
from nightshift.cli.connection import connect, connect_signing, decided, pipelines_folder
from nightshift.errors import InputError
from nightshift.security import signing
from nightshift.stack.private_files import Ports, ensure_secrets, store_ports

NIGHTSHIFT = sysconfig.get_path("scripts") + "/nightshift"


@pytest.fixture(autouse=True)
def home(tmp_path: Path) -> Iterator[Path]:
    """A home without a stack, and an environment that says nothing; both are as before afterwards."""
    before = dict(os.environ)
    for name in before:
        if name.startswith(("NIGHTSHIFT_", "AWS_", "MLFLOW_")):
            del os.environ[name]
    os.environ["NIGHTSHIFT_HOME"] = str(tmp_path / "home")
    yield tmp_path / "home"
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def started_once(home: Path) -> Path:
    """A home in which a stack was started once."""
    home.mkdir()
    ensure_secrets(home)
    store_ports(home, Ports(s3=29000, mlflow=25000))
    return home


def test_every_verb_is_there_and_explained() -> None:
    result = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "200"})
    assert result.exit_code == 0
    for verb in (
        "up",
        "down",
        "status",
        "logs",
        "env",
        "run",
        "promote",
        "rollback",
        "audit",
        "history",
        "ingest",
        "predict",
        "reproduce",
        "keys",
        "export",
        "unseal",
        "sbom",
        "upkeep",
        "doctor",
    ):
        assert f" {verb} " in result.stdout, verb
        assert CliRunner().invoke(app, [verb, "--help"]).exit_code == 0


def test_the_command_starts_without_anything_heavy() -> None:
    heavy = ("torch", "mlflow", "boto3", "airflow", "numpy", "cv2", "onnxruntime", "pandas", "sklearn")
    program = f"import sys, nightshift.cli; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_an_error_is_one_sentence_on_stderr_and_exit_2() -> None:
    done = subprocess.run(
        [NIGHTSHIFT, "ingest", "--sample", "dogs"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == "nightshift: --sample must be one of digits, tiny, got 'dogs'\n"


def test_debug_shows_where_an_error_comes_from() -> None:
    environment = os.environ | {"NIGHTSHIFT_DEBUG": "1"}
    command = [NIGHTSHIFT, "ingest", "--sample", "dogs"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "InputError: --sample must be" in done.stderr


def test_ctrl_c_ends_with_130(tmp_path: Path) -> None:
    """While the command waits on a pipe that nobody writes."""
    pipe = tmp_path / "pipe.onnx"
    os.mkfifo(pipe)
    image = tmp_path / "a.png"
    image.touch()
    with subprocess.Popen(
        [NIGHTSHIFT, "predict", str(pipe), str(image)], stderr=subprocess.PIPE, text=True
    ) as process:
        writer = os.open(pipe, os.O_WRONLY)  # returns when the command has the other end open
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=patience(60))
        os.close(writer)
    assert process.returncode == 130
    assert "Traceback" not in said


def test_without_a_store_and_without_a_stack_both_ways_are_named() -> None:
    with pytest.raises(InputError, match=r"there is no stack in .*/home: start one with `nightshift up`"):
        connect()


def test_the_stack_fills_in_what_is_missing(started_once: Path) -> None:
    connect()
    assert os.environ["NIGHTSHIFT_STORE"] == "s3://nightshift"
    assert os.environ["AWS_ENDPOINT_URL_S3"] == "http://127.0.0.1:29000"
    assert os.environ["MLFLOW_TRACKING_URI"] == "http://127.0.0.1:25000"
    assert os.environ["NIGHTSHIFT_AIRFLOW_PASSWORD"] == ensure_secrets(started_once).airflow_password


def test_the_user_s_store_is_not_mixed_with_the_stack_s(
    started_once: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bucket at AWS must not be looked for on the loopback interface."""
    monkeypatch.setenv("NIGHTSHIFT_STORE", "s3://production")
    connect()
    assert os.environ["NIGHTSHIFT_STORE"] == "s3://production"
    assert "AWS_ENDPOINT_URL_S3" not in os.environ
    assert "AWS_ACCESS_KEY_ID" not in os.environ
    assert os.environ["MLFLOW_TRACKING_URI"] == "http://127.0.0.1:25000"


def test_models_of_the_stack_are_trusted_by_its_key_and_signed_with_it(started_once: Path) -> None:
    connect()
    assert os.environ[signing.PUBLIC_KEYS] == f"{started_once}/keys/signing.pub"
    assert signing.SIGNING_KEY not in os.environ
    connect_signing()
    assert os.environ[signing.SIGNING_KEY] == f"{started_once}/keys/signing.key"


def test_keys_of_one_s_own_are_not_mixed_with_the_stack_s(
    started_once: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow.example.org")
    connect()
    connect_signing()
    assert not {signing.PUBLIC_KEYS, signing.SIGNING_KEY} & os.environ.keys()
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    monkeypatch.setenv(signing.PUBLIC_KEYS, "/own.pub")
    connect()
    connect_signing()
    assert os.environ[signing.PUBLIC_KEYS] == "/own.pub"
    assert signing.SIGNING_KEY not in os.environ


def test_a_store_of_one_s_own_needs_no_stack(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NIGHTSHIFT_STORE", f"file://{tmp_path}")
    connect()
    assert decided("store")
    assert not decided("tracking")
    with pytest.raises(InputError, match="there is no stack"):
        connect("tracking")


def test_the_pipelines_are_beside_the_package_unless_said_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NIGHTSHIFT_DAGS", raising=False)
    assert pipelines_folder() == Path(__file__).resolve().parent.parent / "dags" / "pipelines"
    monkeypatch.setenv("NIGHTSHIFT_DAGS", "/etc/nightshift")
    assert pipelines_folder() == Path("/etc/nightshift/pipelines")
