"""The runner with real processes: NIGHTSHIFT_PYTHON names a script that plays the stage."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from waiting import patience, slowness, wait_for

from nightshift.errors import InputError, OutageError, StageError
from nightshift.records.specs import CloseSpec
from nightshift.runner import STAGES, run_stage, stage_environment

SPEC = CloseSpec(mlflow_run_id="m1", failed=False, reason="done")
# What every played stage begins with: die with the runner, and read the arguments of `python -m nightshift`.
PREAMBLE = """
import json, os, signal, subprocess, sys, time
from pathlib import Path
from nightshift.runner import die_with_parent
die_with_parent()
stage, spec, result = sys.argv[3], Path(sys.argv[5]), Path(sys.argv[7])
"""
# A child of the stage that dies with it, and says its process id.
GRANDCHILD = """
program = "import os, time; from nightshift.runner import die_with_parent; die_with_parent(); time.sleep(120)"
child = subprocess.Popen([sys.executable, "-c", program])
Path(os.environ["PIDS"]).write_text(f"{os.getpid()} {child.pid}")
"""


@pytest.fixture
def play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Let the given program be the stage."""

    def use(program: str) -> None:
        script, wrapper = tmp_path / "stage.py", tmp_path / "python"
        script.write_text(PREAMBLE + program)
        wrapper.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{script}" "$@"\n')
        wrapper.chmod(0o755)
        monkeypatch.setenv("NIGHTSHIFT_PYTHON", str(wrapper))
        monkeypatch.setenv("PIDS", str(tmp_path / "pids"))

    return use


def ended(pid: int) -> bool:
    """A zombie that nobody collected has ended."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def wait_until_ended(*pids: int) -> None:
    wait_for(lambda: all(map(ended, pids)), f"the end of {pids}", 10)


def pids(tmp_path: Path) -> list[int]:
    file = tmp_path / "pids"
    wait_for(lambda: file.exists() and file.read_text(), "the stage to start", 20)
    return [int(pid) for pid in file.read_text().split()]


def test_the_result_comes_back_and_every_line_is_echoed(play: Callable[[str], None]) -> None:
    play(
        "print('first'); print('second', file=sys.stderr)\n"
        "result.write_text(json.dumps({'stage': stage, 'pid': os.getpid(), **json.loads(spec.read_text())}))"
    )
    lines: list[str] = []
    result = run_stage("close", SPEC, echo=lines.append)
    assert result.pop("pid") != os.getpid()  # a fresh interpreter
    assert result == {"stage": "close", **SPEC.model_dump()}
    assert sorted(lines) == ["first", "second"]


def test_lines_are_json_where_that_is_asked_for(
    play: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NIGHTSHIFT_LOG", "json")
    play("print('at work', flush=True); sys.exit(1)")
    lines: list[str] = []
    with pytest.raises(StageError, match="failed with exit 1; last line: at work"):
        run_stage("close", SPEC, echo=lines.append, labels={"run": "n1"})
    (found,) = map(json.loads, lines)
    assert (found["run"], found["stage"], found["message"]) == ("n1", "close", "at work")


def test_a_refusal_comes_back_as_the_stage_said_it(play: Callable[[str], None]) -> None:
    play("result.write_text(json.dumps({'error': 'batch x is empty; fill it'})); sys.exit(2)")
    with pytest.raises(InputError, match=r"^batch x is empty; fill it$"):
        run_stage("close", SPEC)


def test_an_outage_comes_back_as_an_outage(play: Callable[[str], None]) -> None:
    play("result.write_text(json.dumps({'error': 'MLflow is away'})); sys.exit(3)")
    with pytest.raises(OutageError, match=r"^MLflow is away$"):
        run_stage("close", SPEC)


def test_the_real_entry_point_refuses_an_unknown_stage() -> None:
    with pytest.raises(
        StageError, match=r"stage dream failed with exit 2; last line: .*invalid choice: 'dream'"
    ):
        run_stage("dream", SPEC, echo=lambda line: None)


def test_a_crash_says_the_last_line(play: Callable[[str], None]) -> None:
    play("raise RuntimeError('the disk is on fire')")
    with pytest.raises(StageError, match="failed with exit 1; last line: RuntimeError: the disk is on fire"):
        run_stage("close", SPEC, echo=lambda line: None)


def test_exit_2_without_a_result_is_a_crash_and_no_refusal(play: Callable[[str], None]) -> None:
    play("sys.exit(2)")
    with pytest.raises(StageError, match="failed with exit 2; last line: without a word"):
        run_stage("close", SPEC)


def test_success_without_a_result_is_a_crash(play: Callable[[str], None]) -> None:
    play("sys.exit(0)")
    with pytest.raises(StageError, match="left no result"):
        run_stage("close", SPEC)


def test_a_kill_is_said_as_out_of_memory(play: Callable[[str], None]) -> None:
    play("os.kill(os.getpid(), signal.SIGKILL)")
    with pytest.raises(
        StageError, match=r"was killed \(exit -9\), most likely by the kernel because memory ran out"
    ):
        run_stage("close", SPEC)


def test_another_signal_is_named(play: Callable[[str], None]) -> None:
    play("print('working', flush=True); os.kill(os.getpid(), signal.SIGABRT)")
    with pytest.raises(StageError, match=r"ended by SIGABRT \(exit -6\); last line: working"):
        run_stage("close", SPEC, echo=lambda line: None)


def test_an_exception_in_the_caller_ends_the_stage_and_its_children(
    play: Callable[[str], None], tmp_path: Path
) -> None:
    class Timeout(BaseException):  # as Airflow's is
        pass

    def timeout(line: str) -> None:
        raise Timeout

    play(GRANDCHILD + "print('started', flush=True); time.sleep(120)")
    with pytest.raises(Timeout):
        run_stage("close", SPEC, echo=timeout)
    wait_until_ended(*pids(tmp_path))


def test_killing_the_runner_ends_the_stage_and_its_children(
    play: Callable[[str], None], tmp_path: Path
) -> None:
    play(GRANDCHILD + "time.sleep(120)")
    program = (
        "from nightshift.records.specs import CloseSpec; from nightshift.runner import run_stage;"
        f"run_stage('close', CloseSpec.model_validate_json({SPEC.model_dump_json()!r}))"
    )
    with subprocess.Popen([sys.executable, "-c", program]) as runner:
        stage, child = pids(tmp_path)
        assert psutil.pid_exists(stage)
        assert psutil.pid_exists(child)
        runner.send_signal(signal.SIGKILL)
    wait_until_ended(stage, child)


def test_a_child_that_outlives_its_stage_does_not_hold_the_night(
    play: Callable[[str], None], tmp_path: Path
) -> None:
    """It has the stage's output open, and it does not ask to die with its parent."""
    late = tmp_path / "late"
    program = f"import pathlib, time; time.sleep({patience(15)}); pathlib.Path({str(late)!r}).touch()"
    play(
        f"child = subprocess.Popen([sys.executable, '-c', {program!r}])\n"
        f"Path(os.environ['PIDS']).write_text(str(child.pid)); time.sleep({1.5 * slowness()})\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    with pytest.raises(StageError, match="exit -9"):
        run_stage("close", SPEC)
    assert not late.exists()
    wait_until_ended(*pids(tmp_path))


def test_a_stage_that_finds_its_parent_gone_ends_at_once() -> None:
    program = "from nightshift.runner import die_with_parent; die_with_parent(); print('alive')"
    environment = os.environ | {"NIGHTSHIFT_PARENT_PID": "1" if os.getpid() != 1 else "2"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (1, b"")


def test_threads_are_capped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIGHTSHIFT_THREADS", "3")
    environment = stage_environment("train")
    assert environment["OMP_NUM_THREADS"] == environment["MKL_NUM_THREADS"] == "3"
    assert environment["MALLOC_TRIM_THRESHOLD_"] == "4294967296"
    monkeypatch.delenv("NIGHTSHIFT_THREADS")
    assert stage_environment("train")["OMP_NUM_THREADS"] == str(os.cpu_count())


def test_a_stage_gets_nothing_of_airflow(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AIRFLOW_CONN_CLOUD", "AIRFLOW__CELERY__BROKER_URL", "NIGHTSHIFT_AIRFLOW_PASSWORD"):
        monkeypatch.setenv(name, "hidden")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "needed")
    environment = stage_environment("train")
    assert "hidden" not in environment.values()
    assert environment["AWS_SECRET_ACCESS_KEY"] == "needed"


def test_only_the_stage_that_signs_is_told_where_the_private_key_is(monkeypatch):
    variables = {
        "NIGHTSHIFT_SIGNING_KEY": "/keys/signing.key",
        "NIGHTSHIFT_SIGNING_PASSPHRASE_FILE": "/keys/pass",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("NIGHTSHIFT_PUBLIC_KEYS", "/keys/signing.pub")
    told = {stage for stage in STAGES if set(variables) & stage_environment(stage).keys()}
    assert told == {"register"}
    assert all("NIGHTSHIFT_PUBLIC_KEYS" in stage_environment(stage) for stage in STAGES)


def test_a_stage_may_have_variables_of_its_own(
    play: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NIGHTSHIFT_STORE", "file:///ours")
    names = ("NIGHTSHIFT_STORE", "NIGHTSHIFT_THREADS", "OMP_NUM_THREADS", "PIDS")
    play(f"result.write_text(json.dumps({{name: os.environ[name] for name in {names}}}))")
    found = run_stage(
        "close", SPEC, environment={"NIGHTSHIFT_STORE": "file:///own", "NIGHTSHIFT_THREADS": "7"}
    )
    assert found == {
        **dict.fromkeys(names[1:3], "7"),
        "NIGHTSHIFT_STORE": "file:///own",
        "PIDS": os.environ["PIDS"],
    }
    assert os.environ["NIGHTSHIFT_STORE"] == "file:///ours"


def test_no_folder_is_left_behind(
    play: Callable[[str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    play("result.write_text('{}')")
    run_stage("close", SPEC)
    assert list(scratch.iterdir()) == []
