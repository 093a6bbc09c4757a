"""The guardian of the tests: small runs of pytest of their own, what they start, and what is left of it."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest
from guardian import Ward, children, lives, take_down
from waiting import patience, wait_for

from nightshift.stack import processes

HERE = Path(__file__).parent
FILES = {
    "conftest.py": """
from guardian import dismiss, guard

def pytest_configure(config):
    guard(config)

def pytest_unconfigure(config):
    dismiss(config)
""",
    # Does not end when it is asked to.
    "stubborn.py": """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
time.sleep(3600)
""",
    # Says the number of a child whose variables are its own.
    "parent.py": """
import sys
from subprocess import DEVNULL, Popen
child = Popen([sys.executable, "stubborn.py"], env={}, stdin=DEVNULL, stdout=DEVNULL, stderr=DEVNULL)
print(child.pid, flush=True)
child.wait()
""",
    "daemon.py": """
import sys
from subprocess import DEVNULL, Popen
child = Popen([sys.executable, "stubborn.py"], start_new_session=True, stdout=DEVNULL, stderr=DEVNULL)
print(child.pid)
""",
    # A plain child, a family in a session of its own, and a daemon; they are told of once all are there.
    "family.py": """
import json, os, sys
from pathlib import Path
from subprocess import PIPE, Popen, check_output

def begin():
    plain = Popen([sys.executable, "stubborn.py"])
    apart = Popen([sys.executable, "parent.py"], stdout=PIPE, start_new_session=True)
    daemon = int(check_output([sys.executable, "daemon.py"]))
    tell(os.getpid(), plain.pid, apart.pid, int(apart.stdout.readline()), daemon)
    return apart

def tell(*pids):
    Path("new").write_text(json.dumps([os.environ["TESTED_STACKS"], *pids]))
    os.rename("new", "begun.json")
""",
}


class Run(NamedTuple):
    """A run of pytest in a folder of its own."""

    folder: Path
    pytest: "subprocess.Popen[bytes]"

    def log(self) -> str:
        return (self.folder / "log").read_text()

    def begun(self) -> tuple[Path, list[psutil.Process]]:
        """The folder of its notes, the process of its test, and those that the test started."""
        path = self.folder / "begun.json"
        wait_for(lambda: path.exists() or self.pytest.poll() is not None, "the test to begin")
        assert path.exists(), self.log()
        folder, *pids = json.loads(path.read_text())
        return Path(folder), [psutil.Process(pid) for pid in pids]


@contextmanager
def running(folder: Path, test: str, *arguments: str) -> Iterator[Run]:
    for name, text in (FILES | {"test_it.py": f"import os, time\nimport family\n{test}"}).items():
        (folder / name).write_text(text)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-s", *arguments, "test_it.py"]
    mine = os.environ | {"PYTHONPATH": f"{HERE}{os.pathsep}{folder}"}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=folder, env=mine, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    try:
        yield Run(folder, process)
    finally:
        process.kill()
        process.wait()
        if (folder / "begun.json").exists():
            for pid in json.loads((folder / "begun.json").read_text())[1:]:
                with suppress(psutil.NoSuchProcess):
                    psutil.Process(pid).kill()


@pytest.fixture
def stranger(tmp_path: Path) -> Iterator[psutil.Popen]:
    """A process that has nothing to do with the runs, and looks like theirs."""
    (tmp_path / "stubborn.py").write_text(FILES["stubborn.py"])
    with psutil.Popen([sys.executable, "stubborn.py"], cwd=tmp_path) as process:
        yield process
        process.kill()


def gone(family: list[psutil.Process]) -> None:
    wait_for(
        lambda: not any(map(lives, family)), lambda: f"the end of {[one for one in family if lives(one)]}"
    )


# The test of a run begins a family, and ends when it is told to.
TEST = """
def test_it():
    apart = family.begin()
    while not os.path.exists("go"):
        time.sleep(0.05)
"""


@pytest.mark.parametrize("workers", [(), ("-n", "1")], ids=["plain", "xdist"])
def test_what_a_killed_pytest_started_is_ended_and_nothing_else(
    tmp_path: Path, stranger: psutil.Popen, workers: tuple[str, ...]
) -> None:
    with running(tmp_path, TEST, *workers) as run:
        folder, family = run.begun()
        run.pytest.kill()
        gone(family)
        wait_for(lambda: not folder.exists(), "the folder of notes to be removed")
    assert lives(stranger)


def test_what_a_killed_worker_started_is_ended_while_the_run_goes_on(tmp_path: Path) -> None:
    then = TEST.replace("test_it", "test_next").replace("family.begin()", "None")
    with running(tmp_path, TEST + then, "-n", "1") as run:
        _, family = run.begun()
        family[0].kill()
        gone(family)
        assert run.pytest.poll() is None
        (tmp_path / "go").touch()
        assert run.pytest.wait(patience(60)) == 1, run.log()
    assert "1 failed, 1 passed" in run.log()


def test_what_is_left_at_an_orderly_end_is_ended_and_told(tmp_path: Path) -> None:
    with running(tmp_path, TEST) as run:
        _, family = run.begun()
        (tmp_path / "go").touch()
        assert run.pytest.wait(patience(60)) == 0, run.log()
        gone(family)
    (told,) = [line for line in run.log().splitlines() if line.startswith("guardian: ")]
    assert told.startswith("guardian: ended what the tests had left: ")
    assert [str(one.pid) in told for one in family] == [False, True, True, True, True]


@pytest.fixture
def home() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="ns-", dir="/tmp"))
    yield folder
    take_down(folder)


def test_the_stacks_of_a_killed_pytest_are_taken_down(home: Path, tmp_path: Path) -> None:
    test = f"""
from pathlib import Path
from guardian import noted
from nightshift.stack import lifecycle

def test_it():
    home = Path({str(home)!r})
    with noted(home):
        lifecycle.up(home, only=["valkey"], random_ports=True)
        family.tell(os.getpid())
        time.sleep(3600)
"""
    with running(tmp_path, test) as run:
        folder, family = run.begun()
        session = processes.load(home)
        assert session is not None
        family += processes.living(session).values()
        assert len(family) > 2
        run.pytest.kill()
        gone(family)
        wait_for(lambda: not folder.exists(), "the folder of notes to be removed")
    assert not home.exists()


@pytest.fixture
def orphan(tmp_path: Path) -> Iterator[tuple[Ward, psutil.Process]]:
    """A child that was seen before its parent ended, which has nothing else to be known by."""
    for name in ("stubborn.py", "parent.py"):
        (tmp_path / name).write_text(FILES[name])
    with psutil.Popen([sys.executable, "parent.py"], cwd=tmp_path, stdout=subprocess.PIPE) as parent:
        child = psutil.Process(int(parent.stdout.readline()))
        ward = Ward(psutil.Process(parent.pid), tmp_path)
        ward.look(children())
        assert ward.seen == {child}
        parent.kill()
    wait_for(lambda: child.ppid() != parent.pid, "the child to be an orphan")
    ward.look(children())
    yield ward, child
    with suppress(psutil.NoSuchProcess):
        child.kill()


def test_what_was_seen_stays_known_when_its_parent_has_ended(
    orphan: tuple[Ward, psutil.Process], stranger: psutil.Popen
) -> None:
    ward, child = orphan
    assert ward.seen == {child}
    ward.end()
    gone([child])
    assert lives(stranger)


def test_a_number_that_is_anothers_now_is_left_alone(
    stranger: psutil.Popen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ward, former = Ward(None, tmp_path), psutil.Process(stranger.pid)
    monkeypatch.setattr(former, "_ident", (former.pid, 1.0))  # born long before
    ward.seen = {former}
    ward.end()
    with pytest.raises(psutil.TimeoutExpired):
        stranger.wait(0.3)
