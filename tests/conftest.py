"""One embedded stack for the session, on random ports in a temporary folder, taken down whatever happens."""

import os
import re
import shutil
import signal
import tempfile
from collections.abc import Iterator, Mapping, Set
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import pytest
from metrics_server import statsd
from webhook import Hook, webhook

from tasks import signing
from tasks.stack import environment, lifecycle, processes

pytest_plugins = ["ml_fixtures", "mlflow_server", "promotions", "dag_files", "predicting"]
# A shell starts background jobs with Ctrl-C ignored, and every process below inherits that.
signal.signal(signal.SIGINT, signal.default_int_handler)
REPOSITORY = Path(__file__).resolve().parent.parent
PIPELINES = {
    # Its promotions wait for a person.
    "asked": '[promotion]\nmode = "approve"\n',
    # Its versions are promoted and rolled back by hand.
    "handmade": 'description = "promoted by hand"\n',
    # Preprocessing takes seconds, so that there is time to break it off; the rest is as short as can be.
    "many": """
[preprocess]
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
# Faults are noticed and tried again within seconds instead of minutes.
QUICK = {
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "30",
    "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT": "60",
    "NIGHTSHIFT_RETRY_SECONDS": "5",
}


@dataclass(frozen=True)
class Stack:
    """A running stack: its folder and the variables that its clients need (already in `os.environ`)."""

    home: Path
    environment: Mapping[str, str]
    hook: Hook  # where its notices go
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


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """The whole stack with the repository's pipelines; about a minute, once for all tests."""
    home = Path(tempfile.mkdtemp(prefix="ns-", dir="/tmp"))
    before, told = dict(os.environ), ExitStack()
    hook = told.enter_context(webhook())
    heard = told.enter_context(statsd())
    notices = {"NIGHTSHIFT_NOTIFY": "http:hook", "AIRFLOW_CONN_HOOK": hook.url}
    os.environ.update(QUICK | notices | heard.variables, NIGHTSHIFT_DAGS=str(_dags(home)))
    terminated = signal.signal(signal.SIGTERM, _interrupt)
    try:
        lifecycle.up(home, random_ports=True)
        variables = environment.client_environment(home)
        # Tests register versions themselves, as only workers do otherwise.
        signing_key = environment.keys_folder(home) / signing.PRIVATE_NAME
        os.environ.update(variables | {signing.SIGNING_KEY: str(signing_key)})
        yield Stack(home, variables, hook, heard.names)
    finally:
        signal.signal(signal.SIGTERM, terminated)
        take_down(home)
        told.close()
        os.environ.clear()
        os.environ.update(before)
