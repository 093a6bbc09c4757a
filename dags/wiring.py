"""How a DAG runs a stage: in a fresh interpreter, its output in the task's log, its error in one sentence."""

import os
from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import Asset, get_current_context
from airflow.sdk.exceptions import AirflowException, AirflowFailException
from pydantic import BaseModel

from tasks.errors import InputError, NightshiftError
from tasks.pipelines import load_pipeline, pipeline_files

PIPELINES = Path(__file__).parent / "pipelines"
ERROR = "error"  # XCom key under which a failed task leaves its sentence for the task that closes the night
RETRY: dict[str, Any] = {
    "retries": 3,
    "retry_delay": timedelta(seconds=float(os.environ.get("NIGHTSHIFT_RETRY_SECONDS", "30"))),
    "retry_exponential_backoff": True,
    "max_retry_delay": timedelta(minutes=10),
}


def pipelines() -> tuple[list[Any], list[InputError]]:
    """All pipelines that can be read, and what is wrong with the others."""
    good, bad = [], []
    for path in pipeline_files(PIPELINES):
        try:
            good.append(load_pipeline(path))
        except InputError as error:
            bad.append(error)
    return good, bad


def asset(pipeline: str, alias: str) -> Asset:
    """What tells other DAGs that an alias of the pipeline's model, `challenger` or `champion`, is new."""
    return Asset(name=f"{pipeline}-{alias}", uri=f"x-nightshift://{pipeline}/{alias}")


def run(stage: str, spec: BaseModel) -> dict[str, Any]:
    """Run a stage to its end and return its result for XCom.

    Refused input fails the task at once; an outage or a killed stage is tried again.
    """
    from tasks.runner import run_stage

    try:
        return run_stage(stage, spec)
    except NightshiftError as error:
        get_current_context()["ti"].xcom_push(key=ERROR, value=str(error))
        kind = AirflowFailException if isinstance(error, InputError) else AirflowException
        raise kind(str(error)) from None
