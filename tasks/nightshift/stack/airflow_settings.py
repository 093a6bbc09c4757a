"""Airflow's settings, as the environment variables it reads them from.

`EVERY_PROCESS` and `SERVERS` hold wherever Nightshift runs, in the embedded stack and in the containers of
`docker/compose.yaml`; what else the embedded stack sets is about its own folder and ports. There are two sets
because Celery workers run pipeline code and talk to the API server alone: what only servers need (the
database, the signing keys) is kept from them. An `AIRFLOW__*` variable of whoever starts the stack wins.
"""

from collections.abc import Mapping
from typing import Final

from nightshift.stack.environment import ADMIN, LOOPBACK, Site

HOUR: Final = 3600

EVERY_PROCESS: Final = {
    "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
    # The default asks DNS for the full name, which takes seconds on a laptop without one.
    "AIRFLOW__CORE__HOSTNAME_CALLABLE": "socket.gethostname",
    # All processes share a folder of logs, where the API server reads those of running tasks. So no log
    # server listens, and none is asked: port 1 refuses at once, the default one could be somebody else's.
    "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": "1",
    "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": "1",
    # Seconds without a heartbeat, which comes once a second, until a task counts as dead and is tried again
    # (default 300). It has to outlast a restart of the API server, which takes heartbeats: up to 90 s.
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "150",
    # A restart of the API server (up to 90 s) kills no task and fails none that begins meanwhile.
    "AIRFLOW__WORKERS__MAX_FAILED_HEARTBEATS": "300",
    "AIRFLOW__WORKERS__EXECUTION_API_RETRIES": "15",
    "AIRFLOW__WORKERS__EXECUTION_API_RETRY_WAIT_MAX": "15",
    # Seconds for the Python of a DAG file (default 30). It builds the DAGs of all pipelines, 0.05 s of CPU
    # each; where a machine is so busy that it takes longer, the DAGs of all would count as gone.
    "AIRFLOW__CORE__DAGBAG_IMPORT_TIMEOUT": "150",
    # Seconds. A worker that misses the very moment a task's process ends looks again after so long
    # (default 5) and takes no other task until then.
    "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
    # Longer than the longest training: a message not acknowledged by then is delivered a second time.
    "AIRFLOW__CELERY_BROKER_TRANSPORT_OPTIONS__VISIBILITY_TIMEOUT": str(72 * HOUR),
    # No versioned bundles here, so no process that cleans them up.
    "AIRFLOW__DAG_PROCESSOR__STALE_BUNDLE_CLEANUP_INTERVAL": "0",
}

SERVERS: Final = {
    "AIRFLOW__API__INSTANCE_NAME": "Nightshift",
    # A worker that is killed takes the messages along that it had fetched and not begun. Their tasks
    # stand as queued until this many seconds are over, then they are sent again, as often as it takes.
    "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT": "600",
    "AIRFLOW__SCHEDULER__NUM_STUCK_IN_QUEUED_RETRIES": "50",
    # A night is a dozen short tasks one after the other; a second's sleep before each adds up.
    "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.4",
    # A new pipeline file is seen within half a minute.
    "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "15",
    "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "25",
    # Seconds for all of a file, Airflow's own imports and checks among it (default 50); and how much older
    # than its file's last reading a DAG may be (default 50): more, so that one broken reading costs none.
    "AIRFLOW__DAG_PROCESSOR__DAG_FILE_PROCESSOR_TIMEOUT": "180",
    "AIRFLOW__DAG_PROCESSOR__STALE_DAG_THRESHOLD": "240",
    "AIRFLOW__DAG_PROCESSOR__PRINT_STATS_INTERVAL": "0",
}


def shared_settings(site: Site) -> dict[str, str]:
    """What schedulers, servers and workers of the embedded stack have to agree on."""
    home = site.home / "airflow"
    logs = home / "logs"
    return EVERY_PROCESS | {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(site.dags),
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{site.airflow_url}/execution/",
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(logs),
        "AIRFLOW__LOGGING__DAG_PROCESSOR_CHILD_PROCESS_LOG_DIRECTORY": str(logs / "dag_processor"),
        "AIRFLOW__CELERY__BROKER_URL": site.broker_url,
        "AIRFLOW__CELERY__RESULT_BACKEND": site.result_backend,
        "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_STORAGE_PATH": str(home / "bundles"),
    }


def server_settings(site: Site) -> dict[str, str]:
    """What the API server, scheduler, DAG processor and triggerer get beyond the shared settings."""
    return SERVERS | {
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": site.database_url("airflow"),
        "AIRFLOW__CORE__FERNET_KEY": site.secrets.fernet_key,
        "AIRFLOW__API_AUTH__JWT_SECRET": site.secrets.jwt_secret,
        "AIRFLOW__API__SECRET_KEY": site.secrets.api_secret_key,
        "AIRFLOW__API__BASE_URL": site.airflow_url,
        "AIRFLOW__API__HOST": LOOPBACK,
        "AIRFLOW__API__PORT": str(site.ports.airflow),
        "AIRFLOW__API__WORKERS": "1",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": f"{ADMIN}:admin",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(site.home / "airflow" / "passwords.json"),
        # As many as the worker runs: what waits, waits as scheduled, where no queue time-out counts.
        "AIRFLOW__CORE__DEFAULT_POOL_TASK_SLOT_COUNT": str(site.concurrency),
    }


def overrides(parent: Mapping[str, str]) -> dict[str, str]:
    """The caller's own Airflow settings, connections and variables, which win."""
    own = ("AIRFLOW__", "AIRFLOW_CONN_", "AIRFLOW_VAR_")
    return {name: value for name, value in parent.items() if name.startswith(own)}
