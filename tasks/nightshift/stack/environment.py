"""Where the embedded stack lives, and the variables that its processes and clients get.

Everything is kept under one folder (`NIGHTSHIFT_HOME`, default `./.nightshift`), so that `down` and `up` find
the same data again. The server-only variables (database addresses, signing keys) never reach a client or a
Celery worker.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import nightshift
from nightshift.errors import InputError
from nightshift.security import signing
from nightshift.stack.private_files import Ports, Secrets, stored_own, stored_ports, stored_secrets

BUCKET = "nightshift"
LOOPBACK = "127.0.0.1"
ADMIN = "admin"
# The variables by which Airflow and MLflow find PostgreSQL and the message broker.
DATABASE_URLS = {"airflow": "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "mlflow": "MLFLOW_BACKEND_STORE_URI"}
BROKER_URL = "AIRFLOW__CELERY__BROKER_URL"
RESULT_BACKEND = "AIRFLOW__CELERY__RESULT_BACKEND"
SIGNING = (signing.SIGNING_KEY, signing.PASSPHRASE_FILE)


@dataclass(frozen=True)
class Site:
    """One stack's place: its folder, ports, secrets, pipelines and the cores it may use."""

    home: Path
    ports: Ports
    secrets: Secrets
    dags: Path
    cores: int
    # Servers that are the caller's own, each with the variables that lead there; see `parts`.
    own: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    @property
    def concurrency(self) -> int:
        """Task slots of the general worker; at least 2, so that a long task does not block short ones."""
        return max(2, self.cores)

    @property
    def signing_key(self) -> Path:
        return keys_folder(self.home) / signing.PRIVATE_NAME

    @property
    def signing(self) -> dict[str, str]:
        """What signs models: the caller's key where MLflow is theirs and they have one, else the stack's."""
        own = self.own.get("mlflow", {})
        if signing.SIGNING_KEY in own:
            return {name: own[name] for name in SIGNING if name in own}
        return {signing.SIGNING_KEY: str(self.signing_key)}

    @property
    def airflow_url(self) -> str:
        return f"http://{LOOPBACK}:{self.ports.airflow}"

    @property
    def mlflow_url(self) -> str:
        return f"http://{LOOPBACK}:{self.ports.mlflow}"

    @property
    def serve_url(self) -> str:
        return f"http://{LOOPBACK}:{self.ports.serve}"

    @property
    def metrics_url(self) -> str:
        return f"http://{LOOPBACK}:{self.ports.metrics}"

    @property
    def s3_url(self) -> str:
        return f"http://{LOOPBACK}:{self.ports.s3}"

    def database_url(self, name: Literal["airflow", "mlflow"]) -> str:
        if "postgres" in self.own:
            return self.own["postgres"].get(DATABASE_URLS[name], "")
        login = f"nightshift:{self.secrets.postgres_password}"
        return f"postgresql+psycopg2://{login}@{LOOPBACK}:{self.ports.postgres}/{name}"

    @property
    def broker_url(self) -> str:
        return self._valkey_url(BROKER_URL, 0)

    @property
    def result_backend(self) -> str:
        return self._valkey_url(RESULT_BACKEND, 1)

    def _valkey_url(self, variable: str, database: int) -> str:
        if "valkey" in self.own:
            return self.own["valkey"].get(variable, "")
        return f"redis://:{self.secrets.valkey_password}@{LOOPBACK}:{self.ports.valkey}/{database}"


def home() -> Path:
    """The folder of the stack: `NIGHTSHIFT_HOME`, by default `.nightshift` in the working folder."""
    return Path(os.environ.get("NIGHTSHIFT_HOME") or ".nightshift").expanduser().resolve()


def run_folder(home: Path) -> Path:
    return home / "run"


def keys_folder(home: Path) -> Path:
    """Where the key pair is whose signatures the stack trusts."""
    return home / "keys"


def code_folder() -> Path:
    """The folder that holds the package: `tasks` in a checkout, or site-packages."""
    return Path(nightshift.__file__).resolve().parent.parent


def dags_folder() -> Path:
    """The pipelines' folder: `NIGHTSHIFT_DAGS`, by default `dags` in the checkout.

    Raises InputError when there is no such folder.
    """
    given = os.environ.get("NIGHTSHIFT_DAGS")
    folder = Path(given).expanduser().resolve() if given else code_folder().parent / "dags"
    if not folder.is_dir():
        origin = "NIGHTSHIFT_DAGS" if given else "the dags folder of the checkout"
        raise InputError(
            f"{origin} is {folder}, which is not a folder: "
            "set NIGHTSHIFT_DAGS to the folder that holds the pipelines"
        )
    return folder


def client_variables(site: Site) -> dict[str, str]:
    """What a person's shell, a CLI verb or a task needs to talk to the stack; no server secrets."""
    store = {
        "NIGHTSHIFT_STORE": f"s3://{BUCKET}",
        "AWS_ENDPOINT_URL_S3": site.s3_url,
        "AWS_ACCESS_KEY_ID": site.secrets.s3_key,
        "AWS_SECRET_ACCESS_KEY": site.secrets.s3_secret,
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    tracking = {
        "MLFLOW_TRACKING_URI": site.mlflow_url,
        "MLFLOW_TRACKING_USERNAME": ADMIN,
        "MLFLOW_TRACKING_PASSWORD": site.secrets.mlflow_password,
    }
    return {
        "NIGHTSHIFT_HOME": str(site.home),
        **site.own.get("s3", store),
        signing.PUBLIC_KEYS: str(keys_folder(site.home) / signing.PUBLIC_NAME),
        **{name: value for name, value in site.own.get("mlflow", tracking).items() if name not in SIGNING},
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "NIGHTSHIFT_AIRFLOW_URL": site.airflow_url,
        "NIGHTSHIFT_AIRFLOW_USER": ADMIN,
        "NIGHTSHIFT_AIRFLOW_PASSWORD": site.secrets.airflow_password,
    }


def client_environment(home: Path) -> dict[str, str]:
    """The variables of the stack in this folder, whether it runs or not.

    Raises InputError when no stack was ever started there.
    """
    ports, secrets = stored_ports(home), stored_secrets(home)
    if ports is None or secrets is None:
        raise InputError(
            f"there is no stack in {home}: start one with `nightshift up`, "
            "or set NIGHTSHIFT_HOME to the folder of one"
        )
    return client_variables(Site(home, ports, secrets, dags=home, cores=1, own=stored_own(home)))


def inherited(parent: Mapping[str, str]) -> dict[str, str]:
    """The caller's environment without what would lead the servers elsewhere: cloud accounts, other trackers.

    They do not get the caller's own keys either. Airflow's connections stay, since notices go through them.
    Loopback is exempt from any proxy; the code's folder is importable where it is not installed.
    """
    foreign = (
        "AWS_",
        "MLFLOW_",
        "AIRFLOW",
        "PYTHONWARNINGS",
        "VIRTUAL_ENV",
        "NIGHTSHIFT_SIGNING_",
        "NIGHTSHIFT_EXPORT_",
    )
    kept = {name: value for name, value in parent.items() if not name.startswith(foreign)}
    kept |= {
        name: value
        for name, value in parent.items()
        if name == "AWS_CA_BUNDLE" or name.startswith("AIRFLOW_CONN_")
    }
    for name in ("NO_PROXY", "no_proxy"):
        kept[name] = ",".join(filter(None, [kept.get(name), LOOPBACK, "localhost"]))
    if code_folder().name not in ("site-packages", "dist-packages"):
        kept["PYTHONPATH"] = os.pathsep.join(filter(None, [str(code_folder()), kept.get("PYTHONPATH")]))
    return kept | {"DO_NOT_TRACK": "true", "SCARF_ANALYTICS": "false", "PYTHONUNBUFFERED": "1"}
