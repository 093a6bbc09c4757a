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
from functools import cached_property
from pathlib import Path
from types import FrameType

import pytest
from guardian import STACKS, dismiss, guard, noted, take_down
from metrics_server import statsd
from waiting import SLOWNESS, patience, slowness
from webhook import Hook, webhook
from xdist.scheduler import LoadScopeScheduling

from nightshift.security import signing
from nightshift.stack import environment, lifecycle

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
SHARING = "sharing.txt"  # names of the tests that share the stack
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


def quick() -> dict[str, str]:
    """Settings with which faults are noticed and tried again within seconds instead of minutes."""
    return {
        # A slow machine sends its heartbeats later, and takes longer for what is in the queue before a task.
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": f"{30 * slowness():.0f}",
        "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT": f"{60 * slowness():.0f}",
        "NIGHTSHIFT_RETRY_SECONDS": "5",
    }


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Measure the machine once for all workers; pytest-timeout reads its option after this."""
    os.environ[SLOWNESS] = str(slowness())
    guard(config)
    options = config.option
    if getattr(options, "timeout", 0) is None and "PYTEST_TIMEOUT" not in os.environ:
        options.timeout = patience(float(config.getini("timeout")))


def pytest_unconfigure(config: pytest.Config) -> None:
    dismiss(config)


def shares_stack(item: pytest.Item) -> bool:
    """Whether a test, or a fixture of it, asks for the stack."""
    return "stack" in getattr(item, "fixturenames", ())


class Scheduling(LoadScopeScheduling):
    """Gives files to the workers, and all tests that share the stack to one, so that there is one stack."""

    @cached_property
    def _sharing(self) -> set[str]:
        """What the workers wrote once they had collected."""
        return set(Path(os.environ[STACKS], SHARING).read_text(encoding="utf-8").splitlines())

    def _split_scope(self, nodeid: str) -> str:
        return "stack" if nodeid in self._sharing else nodeid.partition("::")[0]


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> Scheduling:
    return Scheduling(config, log)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What shares the stack comes first, since it takes longest."""
    items.sort(key=lambda item: not shares_stack(item))
    if hasattr(config, "workerinput"):
        told = "\n".join(item.nodeid for item in items if shares_stack(item))
        file = Path(os.environ[STACKS]).parent / SHARING
        part = file.with_suffix(f".{os.getpid()}")
        part.write_text(told, encoding="utf-8")
        part.replace(file)  # all workers collect the same


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
    before, told = dict(os.environ), ExitStack()
    told.enter_context(noted(home))
    hook = told.enter_context(webhook())
    heard = told.enter_context(statsd())
    planted = {name: secrets.token_hex(32) for name in ("cloud account", "webhook", "export key")}
    connections = {
        "AIRFLOW_CONN_HOOK": hook.url.replace("://", f"://notices:{planted['webhook']}@"),
        "AIRFLOW_CONN_CLOUD": f"aws://AKIAPLANTED:{planted['cloud account']}@",
    }
    os.environ.update(quick() | connections | heard.variables)
    os.environ.update(NIGHTSHIFT_NOTIFY="http:hook", NIGHTSHIFT_DAGS=str(_dags(home)))
    os.environ["NIGHTSHIFT_EXPORT_KEY"] = planted["export key"]
    if "PYTEST_XDIST_WORKER" in os.environ:
        os.environ["NIGHTSHIFT_THREADS"] = "1"  # the other core has the other worker's tests
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
        told.close()
        os.environ.clear()
        os.environ.update(before)
