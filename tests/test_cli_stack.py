"""The verbs of the embedded stack, on a stack of one quick server."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from guardian import noted
from typer.testing import CliRunner
from waiting import patience

from nightshift.cli.stack import app
from nightshift.errors import InputError
from nightshift.stack import lifecycle, processes

LEFT_OUT = "postgres,s3,mlflow,api-server,scheduler,dag-processor,triggerer,janitor,worker,worker-train"


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    for name in ("NIGHTSHIFT_STORE", "MLFLOW_TRACKING_URI"):  # what is left out is not the caller's then
        monkeypatch.delenv(name, raising=False)
    folder = Path(tempfile.mkdtemp(prefix="ns-", dir="/tmp"))
    (folder / "dags").mkdir()
    monkeypatch.setenv("NIGHTSHIFT_DAGS", str(folder / "dags"))
    monkeypatch.setenv("NIGHTSHIFT_HOME", str(folder))
    with noted(folder):
        yield folder
        lifecycle.down(folder)
        shutil.rmtree(folder)


def test_up_status_logs_env_down(home: Path) -> None:
    runner = CliRunner()
    started = runner.invoke(app, ["up", "--detach", "--random-ports", "--without", LEFT_OUT])
    assert started.exit_code == 0, started.output
    assert "valkey healthy after" in started.output
    assert "http://127.0.0.1:" in started.output

    told = runner.invoke(app, ["status", "--json"])
    assert told.exit_code == 0
    (valkey,) = json.loads(told.output)
    assert (valkey["name"], valkey["health"], valkey["healthy"]) == ("valkey", "healthy", True)
    assert "valkey" in runner.invoke(app, ["status"]).output

    assert "Ready to accept connections" in runner.invoke(app, ["logs", "valkey"]).output
    assert len(runner.invoke(app, ["logs", "valkey", "-n", "2"]).output.splitlines()) == 2
    refused = runner.invoke(app, ["logs", "redis"])
    assert isinstance(refused.exception, InputError)
    assert "there is no log named redis: choose one of postgres, valkey" in str(refused.exception)

    exports = runner.invoke(app, ["env"]).output
    shell = subprocess.run(
        ["/bin/sh", "-c", 'eval "$1"; echo "$NIGHTSHIFT_HOME $NIGHTSHIFT_STORE"', "sh", exports],
        capture_output=True,
        text=True,
        check=True,
    )
    assert shell.stdout.strip() == f"{home} s3://nightshift"

    ended = runner.invoke(app, ["down"])
    assert ended.exit_code == 0
    assert f"the stack in {home} is down" in ended.output
    assert runner.invoke(app, ["status"]).exit_code == 1


def test_without_a_stack_the_verbs_say_so(home: Path) -> None:
    runner = CliRunner()
    nothing = runner.invoke(app, ["down"])
    assert (nothing.exit_code, nothing.output.strip()) == (0, f"nothing runs in {home}")
    assert runner.invoke(app, ["status"]).exit_code == 1
    for verb in ("logs", "env"):
        assert isinstance(runner.invoke(app, [verb]).exception, InputError)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_foreground_takes_everything_down(home: Path, number: signal.Signals) -> None:
    command = [sys.executable, "-c", "from nightshift.cli.stack import app; app()", "up", "--random-ports"]
    child = subprocess.Popen(
        [*command, "--without", LEFT_OUT],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"COLUMNS": "200"},
    )
    assert child.stdout is not None
    with child.stdout as output:
        assert any("Ctrl-C takes everything down" in line for line in iter(output.readline, ""))
        session = processes.load(home)
        assert session is not None
        child.send_signal(number)
        assert "taking everything down" in output.read()
    assert child.wait(patience(30)) == 0
    assert processes.living(session) == {}
