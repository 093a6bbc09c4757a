"""`nightshift doctor`: what is missing or misconfigured on this machine, and what to do about it."""

import functools
import os
import re
import shutil
import socket
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import typer

from nightshift.cli.checks import Finding

app = typer.Typer()

LOOPBACK = "127.0.0.1"
NEEDED_GB = 2.0
COMFORTABLE_GB = 10.0


@app.command()
def doctor() -> None:
    """Say what is missing or misconfigured, and what to do; exit with 1 when that matters."""
    marks = {True: "✓", False: "✗", None: "·"}
    healthy = True
    for finding in findings():
        print(f"{marks[finding.good]} {finding.sentence}", flush=True)
        healthy = healthy and finding.good is not False
    if not healthy:
        raise typer.Exit(1)


def findings() -> Iterator[Finding]:
    """Every check in turn: first the machine, then the installation, the files and the services."""
    checks: tuple[Callable[[], Iterator[Finding]], ...] = (
        *(_python, _processor, _disk, _compiler, _roles, _versions, _pipelines),
        *(_home, _stack, _services),
    )
    for check in checks:
        yield from check()


def _python() -> Iterator[Finding]:
    here = f"{sys.version_info[0]}.{sys.version_info[1]}"
    good = (3, 11) <= sys.version_info < (3, 14)
    yield Finding(good, f"Python {here}" + ("" if good else " is not supported; use 3.11, 3.12 or 3.13"))


def _processor() -> Iterator[Finding]:
    """Its instruction sets that matter, and what follows for training and for int8 files."""
    from importlib.util import find_spec

    from nightshift.hardware import processor

    found = " ".join(processor.features()) or "instruction sets unknown"
    missing = processor.missing_dot_products()
    integers = (
        f"{missing}: int8 files that are not portable use exact arithmetic, 2 to 4 times slower"
        if missing
        else "every int8 file by the fastest runtime that gives its exact labels"
    )
    training = ""
    if find_spec("torch"):
        from nightshift.errors import InputError
        from nightshift.models.device import Precision, find_device

        device = find_device()
        try:
            precision = Precision(device)
        except InputError as error:
            yield Finding(False, str(error))
            return
        training = f"; trains in {precision.name} on {device.type} ({precision.reason})"
    yield Finding(None if missing else True, f"{processor.name()}, {found}{training}; {integers}")


def _disk() -> Iterator[Finding]:
    folder = _home_folder()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free / 1e9
    if free < NEEDED_GB:
        yield Finding(False, f"{free:.1f} GB are free in {folder}; a night needs at least {NEEDED_GB:.0f} GB")
    elif free < COMFORTABLE_GB:
        yield Finding(None, f"{free:.1f} GB are free in {folder}; enough for small data sets only")
    else:
        yield Finding(True, f"{free:.0f} GB are free in {folder}")


def _compiler() -> Iterator[Finding]:
    found = shutil.which(os.environ.get("CXX") or "c++") or shutil.which("g++") or shutil.which("clang++")
    yield Finding(
        True if found else None,
        f"C++ compiler {found}"
        if found
        else "no C++ compiler: training runs without torch.compile, which is slower",
    )


def _roles() -> Iterator[Finding]:
    """Which of the package's extras are installed; a machine needs only those of the roles that it plays."""
    from importlib import metadata

    needs: dict[str, set[str]] = defaultdict(set)
    for requirement in metadata.requires("nightshift-ml") or ():
        name, extra = re.match(r"[\w.-]+", requirement), re.search(r"extra == ['\"]([\w-]+)", requirement)
        if name and extra and name[0] != "nightshift-ml":
            needs[extra[1]].add(name[0])
    for role, packages in sorted(needs.items()):
        missing = sorted(package for package in packages if _version(package) is None)
        if not missing:
            yield Finding(True, f"role {role} is installed")
        else:
            advice = f"pip install '.[{role}]' in the clone where this machine is to play it"
            yield Finding(None, f"role {role} lacks {', '.join(missing)}; {advice}")


def _versions() -> Iterator[Finding]:
    from nightshift.stack.environment import code_folder

    lock = code_folder().parent / "requirements.lock"
    if not lock.is_file():
        return
    locked: dict[str, set[str]] = defaultdict(set)  # several when they differ between systems
    for name, version in re.findall(
        r"^([\w.-]+)==([^\s;\\]+)", lock.read_text(encoding="utf-8"), re.MULTILINE
    ):
        locked[name].add(version)
    installed = {name: _version(name) for name in locked}
    wrong = [
        f"{name} is {version}, locked {' or '.join(sorted(locked[name]))}"
        for name, version in installed.items()
        if version is not None
        and version.partition("+")[0] not in {v.partition("+")[0] for v in locked[name]}
    ]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        yield Finding(False, f"{'; '.join(wrong[:3])}{more}: run uv pip sync {lock.name}")
    else:
        yield Finding(
            True, f"{sum(map(bool, installed.values()))} installed packages are as {lock.name} says"
        )


def _pipelines() -> Iterator[Finding]:
    from nightshift.cli.connection import pipelines_folder
    from nightshift.config.pipelines import load_pipeline, pipeline_files
    from nightshift.errors import InputError

    folder = pipelines_folder()
    paths = pipeline_files(folder)
    valid = []
    for path in paths:
        try:
            valid.append(load_pipeline(path).name)
        except InputError as error:
            yield Finding(False, str(error))
    if valid:
        yield Finding(True, f"pipelines in {folder}: {', '.join(valid)}")
    elif not paths:
        yield Finding(
            False, f"no pipeline files in {folder}; set NIGHTSHIFT_DAGS to the folder above `pipelines`"
        )


def _home() -> Iterator[Finding]:
    home = _home_folder()
    if not home.exists():
        return
    secrets = home / "secrets.json"
    if not os.access(home, os.W_OK | os.X_OK):
        yield Finding(
            False, f"{home} cannot be written by this user; change its owner or set NIGHTSHIFT_HOME"
        )
    elif secrets.exists() and secrets.stat().st_mode & 0o077:
        yield Finding(False, f"{secrets} can be read by other users; run chmod 600 {secrets}")
    else:
        yield Finding(True, f"{home} can be written and its secrets are private")


def _stack() -> Iterator[Finding]:
    """The servers of the stack; where it runs, its variables say where the services are."""
    from nightshift.cli.connection import connect
    from nightshift.stack.private_files import stored_own, stored_ports

    home = _home_folder()
    if stored_ports(home) is None:
        yield Finding(None, f"there is no stack in {home}; nightshift up starts one")
        return
    answers = {(name, port): _answers(port) for name, port in _listeners(home).items()}
    if not any(answers.values()):
        yield Finding(None, f"the stack in {home} is stopped; nightshift up starts it")
        return
    for (name, port), good in answers.items():
        yield Finding(good, f"{name} {'answers' if good else 'does not answer'} on {LOOPBACK}:{port}")
    for name in stored_own(home):
        yield Finding(None, f"{name} is your own: the stack was started without it")
    connect()


def _listeners(home: Path) -> dict[str, int]:
    """Ports of the stack's servers: not of what is the caller's own, nor of what was not asked for."""
    from dataclasses import asdict

    from nightshift.stack import processes
    from nightshift.stack.private_files import stored_own, stored_ports

    ports, own, session = stored_ports(home), stored_own(home), processes.load(home)
    if ports is None:
        return {}
    roles = {name: "api-server" if name == "airflow" else name for name in asdict(ports)}
    return {
        name: port
        for name, port in asdict(ports).items()
        if name not in own and (roles[name] in session.roles if session else name != "serve")
    }


def _services() -> Iterator[Finding]:
    """Every service whose address is known."""
    from nightshift.cli.checks import airflow, broker, database, signatures, store, tracking
    from nightshift.cli.connection import Service, decided
    from nightshift.stack.environment import BROKER_URL, DATABASE_URLS

    for name, known, ask in (
        ("PostgreSQL", _server_address(DATABASE_URLS["airflow"], "postgres"), database.database),
        ("message broker", _server_address(BROKER_URL, "valkey"), broker.broker),
    ):
        if known:
            yield from _guarded(name, functools.partial(ask, known))
    checks: dict[Service, tuple[str, Callable[[], Iterator[Finding]]]] = {
        "store": ("the store", store.store),
        "tracking": ("MLflow", tracking.tracking),
        "airflow": ("Airflow", airflow.airflow),
    }
    for service, (name, check) in checks.items():
        if decided(service):
            yield from _guarded(name, check)
    yield from _guarded("signing", signatures.signatures)


def _server_address(variable: str, part: str) -> str:
    """What only servers know: what the environment says, else the stack where it runs."""
    from nightshift.stack.environment import BROKER_URL
    from nightshift.stack.private_files import stored_ports

    home = _home_folder()
    if (given := os.environ.get(variable)) or stored_ports(home) is None:
        return given or ""
    from nightshift.stack import prepare

    site, listeners = prepare.find_site(home), _listeners(home)
    if site is None or (part not in site.own and part not in listeners):
        return ""
    if not any(map(_answers, listeners.values())):
        return ""
    return site.broker_url if variable == BROKER_URL else site.database_url("airflow")


def _guarded(name: str, check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """A check that fails, whatever the reason, is a line and not the end of the examination."""
    from nightshift.errors import NightshiftError

    try:
        yield from check()
    except NightshiftError as error:
        yield Finding(False, str(error))
    except ImportError as error:
        yield Finding(None, f"{name} was not checked to the end: {error.name} is not installed")
    except (OSError, ValueError, KeyError) as error:
        yield Finding(False, f"{name} does not answer as it should: {error}")


def _answers(port: int) -> bool:
    try:
        with socket.create_connection((LOOPBACK, port), timeout=1):
            return True
    except OSError:
        return False


def _version(package: str) -> str | None:
    from importlib import metadata

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _home_folder() -> Path:
    from nightshift.stack.environment import home

    return home()
