"""How a task runs a stage: in a fresh interpreter, output in the task's log, the error in one sentence."""

import os
from datetime import timedelta
from typing import Any

from airflow.sdk import get_current_context
from airflow.sdk.exceptions import AirflowException, AirflowFailException
from pydantic import BaseModel

from nightshift.errors import InputError, NightshiftError

RETRY_SECONDS = "NIGHTSHIFT_RETRY_SECONDS"
# A message may hold much of a huge batch, and each image has limits of its own: this ends what hangs.
MESSAGE = timedelta(hours=24)
ERROR = "error"  # XCom key under which a failed task leaves its sentence for the task that closes the night


def retry_seconds() -> float:
    """Pause before the first retry, from NIGHTSHIFT_RETRY_SECONDS. Raises InputError."""
    given = os.environ.get(RETRY_SECONDS) or "30"
    try:
        seconds = float(given)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= 86_400:
        raise InputError(f"{RETRY_SECONDS} must be seconds from 0 to 86400, got {given!r}; 30 are taken")
    return seconds


def _retry_delay() -> timedelta:
    """A typing mistake in the variable, which `import_errors` shows, must not cost all DAGs."""
    try:
        return timedelta(seconds=retry_seconds())
    except InputError:
        return timedelta(seconds=30)


def retries() -> dict[str, Any]:
    """Default arguments of all tasks."""
    return {
        "retries": 3,
        "retry_delay": _retry_delay(),
        "retry_exponential_backoff": True,
        "max_retry_delay": timedelta(minutes=10),
    }


def run(stage: str, spec: BaseModel) -> dict[str, Any]:
    """Run a stage to its end and return its result for XCom.

    Refused input fails the task at once; an outage or a killed stage is tried again.
    """
    from nightshift.runner import run_stage

    try:
        return run_stage(stage, spec)
    except NightshiftError as error:
        get_current_context()["ti"].xcom_push(key=ERROR, value=str(error))
        kind = AirflowFailException if isinstance(error, InputError) else AirflowException
        raise kind(str(error)) from None
