"""One embedded stack for the session, on random ports in a temporary folder, taken down whatever happens."""

import os
import re
import secrets
import shutil
import signal
import tempfile
from collections.abc import Iterator, Mapping, Set
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import FrameType

import pytest
from metrics_server import statsd
from webhook import Hook, webhook
from xdist.scheduler import LoadScopeScheduling

from tasks import signing
from tasks.stack import environment, lifecycle, processes

# Two workers on two cores: a computation of one must not wait for threads that the other has.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
pytest_plugins = [
    "ml_fixtures",
    "mlflow_server",
    "promotions",
    "dag_files",
    "predicting",
    "watched_night",
    "small_stack",
]
# A shell starts background jobs with Ctrl-C ignored, and every process below inherits that.
signal.signal(signal.SIGINT, signal.default_int_handler)
REPOSITORY = Path(__file__).resolve().parent.parent
PIPELINES = {
    # Its promotions wait for a person.
    "asked": '[promotion]\nmode = "approve"\n',
    # Its versions are promoted and rolled back by hand.
    "handmade": 'description = "promoted by hand"\n',
    # Preprocessing takes seconds, in several messages, so that there is time to break it off; the rest is as
    # short as can be.
    "spread": """
[preprocess]
part_seconds = 0.35
image_size = 32
denoise = "nlmeans"
[train]
width = 0.125
epochs = 1
[evaluate]
robustness = "none"
latency_runs = 10
throughput_batch = 16
[promotion]
min_accuracy = 0
max_accuracy_loss = 1
""",
}
STACKS = "NIGHTSHIFT_TEST_STACKS"  # a folder with the names of the stacks that this run started
# Faults are noticed and tried again within seconds instead of minutes.
QUICK = {
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "30",
    "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT": "60",
    "NIGHTSHIFT_RETRY_SECONDS": "5",
}


def pytest_configure(config: pytest.Config) -> None:
    """Workers that are broken off end at once: who started them takes down what they leave."""
    if not hasattr(config, "workerinput"):
        os.environ[STACKS] = tempfile.mkdtemp(prefix="ns-stacks-")


def pytest_unconfigure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        notes = Path(os.environ.pop(STACKS))
        for note in notes.iterdir():
            take_down(Path(note.read_text()))
        shutil.rmtree(notes)


@cache
def shares_stack(file: str) -> bool:
    """Whether a test of this file asks for the stack."""
    return (
        re.search(r"def \w+\([^)]*\bstack\b", Path(REPOSITORY, file).read_text(encoding="utf-8")) is not None
    )


class Scheduling(LoadScopeScheduling):
    """Gives whole files to the workers, and all that share the stack to one, so that there is one stack."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return "stack" if shares_stack(file) else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> Scheduling:
    return Scheduling(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What shares the stack comes first, since it takes longest."""
    items.sort(key=lambda item: not shares_stack(item.nodeid.partition("::")[0]))


@dataclass(frozen=True)
class Stack:
    """A running stack: its folder and the variables that its clients need (already in `os.environ`)."""

    home: Path
    environment: Mapping[str, str]
    hook: Hook  # where its notices go
    planted: Mapping[str, str]  # secrets of a person who started it, by what they are for
    metrics: Set[str]  # names of those that Airflow sent


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def take_down(home: Path) -> None:
    """Take a stack down and insist that nothing of it lives, then remove its folder."""
    session = processes.load(home)
    if session is not None:
        seen = session.seen | frozenset(processes.living(session))
        session = processes.Session(session.leader, session.boot, session.roles, seen)
    lifecycle.down(home)
    left = processes.living(session) if session else {}
    shutil.rmtree(home, ignore_errors=True)
    assert not left, f"still running after down: {list(left.values())}"


def _dags(home: Path) -> Path:
    """The repository's DAGs, none of them scheduled, and the tests' own pipelines."""
    folder = home / "dags"
    shutil.copytree(REPOSITORY / "dags", folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in (folder / "pipelines" / "digits.toml", folder / "upkeep.toml"):
        file.write_text(re.sub(r"(?m)^schedule = ", "# schedule = ", file.read_text()), encoding="utf-8")
    for name, text in PIPELINES.items():
        (folder / "pipelines" / f"{name}.toml").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture(autouse=True)
def environment_of_its_own() -> Iterator[None]:
    """A command that connects to a stack sets variables, which are not for the tests that follow."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """The whole stack with the repository's pipelines; about a minute, once for all tests."""
    home = Path(tempfile.mkdtemp(prefix="ns-", dir="/tmp"))
    note = Path(os.environ[STACKS], home.name)
    note.write_text(str(home))
    before, told = dict(os.environ), ExitStack()
    hook = told.enter_context(webhook())
    heard = told.enter_context(statsd())
    planted = {name: secrets.token_hex(32) for name in ("cloud account", "webhook", "export key")}
    connections = {
        "AIRFLOW_CONN_HOOK": hook.url.replace("://", f"://notices:{planted['webhook']}@"),
        "AIRFLOW_CONN_CLOUD": f"aws://AKIAPLANTED:{planted['cloud account']}@",
    }
    os.environ.update(QUICK | connections | heard.variables)
    os.environ.update(NIGHTSHIFT_NOTIFY="http:hook", NIGHTSHIFT_DAGS=str(_dags(home)))
    os.environ["NIGHTSHIFT_EXPORT_KEY"] = planted["export key"]
    terminated = signal.signal(signal.SIGTERM, _interrupt)
    try:
        lifecycle.up(home, random_ports=True)
        del os.environ["NIGHTSHIFT_EXPORT_KEY"]
        variables = environment.client_environment(home)
        # Tests register versions themselves, as only workers do otherwise.
        signing_key = environment.keys_folder(home) / signing.PRIVATE_NAME
        os.environ.update(variables | {signing.SIGNING_KEY: str(signing_key)})
        yield Stack(home, variables, hook, planted, heard.names)
    finally:
        signal.signal(signal.SIGTERM, terminated)
        take_down(home)
        note.unlink()
        told.close()
        os.environ.clear()
        os.environ.update(before)
