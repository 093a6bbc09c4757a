"""MLflow's settings in the embedded stack: who may log in, by which names it answers, what it may reach."""

from collections.abc import Mapping
from pathlib import Path

from nightshift.stack.environment import ADMIN, LOOPBACK, Site, run_folder


def login_file(home: Path) -> Path:
    """Where the settings of the login are, with the administrator's first password."""
    return run_folder(home) / "mlflow-login.ini"


def login_settings(site: Site) -> str:
    """Whom the administrator gives a login may look at everything, and change what is their own.

    Rights for each experiment would have to be given after every new pipeline's first night.
    """
    lines = (
        "[mlflow]",
        "default_permission = READ",
        # In this format % begins a reference, and a password in an address may have it.
        f"database_uri = {site.database_url('mlflow').replace('%', '%%')}",  # in tables of its own
        f"admin_username = {ADMIN}",
        f"admin_password = {site.secrets.mlflow_password}",
        # Seconds in which a password that was right is not hashed again. A changed one counts at once,
        # because there is one worker.
        "auth_cache_ttl_seconds = 300",
    )
    return "\n".join(lines) + "\n"


def server_settings(site: Site, client: Mapping[str, str]) -> dict[str, str]:
    """What the server gets: the keys of the store, its own databases, and no other server's password."""
    shared = {name: value for name, value in client.items() if name.startswith(("AWS_", "MLFLOW_"))}
    own = {name: value for name, value in shared.items() if not name.startswith("MLFLOW_TRACKING_")}
    hosts = (LOOPBACK, "localhost")
    return own | {
        "MLFLOW_BACKEND_STORE_URI": site.database_url("mlflow"),
        "MLFLOW_AUTH_CONFIG_PATH": str(login_file(site.home)),
        "MLFLOW_FLASK_SERVER_SECRET_KEY": site.secrets.mlflow_secret_key,
        # A page of a stranger whose name is made to mean this address is refused.
        "MLFLOW_SERVER_ALLOWED_HOSTS": ",".join([*hosts, *(f"{host}:{site.ports.mlflow}" for host in hosts)]),
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "PYTHONWARNINGS": "ignore",
    }
