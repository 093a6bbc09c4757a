"""What all DAGs have in common: one for each pipeline that can be read, and how a task runs a stage.

A stage runs in a fresh interpreter, its output in the task's log, its error in one sentence.
"""

import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import DAG, Asset, get_current_context
from airflow.sdk.definitions.param import ParamsDict
from airflow.sdk.exceptions import AirflowException, AirflowFailException
from pydantic import BaseModel

from nightshift.config import Pipeline
from nightshift.config.pipelines import load_pipeline, pipeline_files
from nightshift.errors import InputError, NightshiftError

PIPELINES = Path(__file__).parent / "pipelines"
RETRY_SECONDS = "NIGHTSHIFT_RETRY_SECONDS"
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
    """A typing mistake in the variable, which `pipeline_errors.py` shows, must not cost all DAGs."""
    try:
        return timedelta(seconds=retry_seconds())
    except InputError:
        return timedelta(seconds=30)


RETRY: dict[str, Any] = {
    "retries": 3,
    "retry_delay": _retry_delay(),
    "retry_exponential_backoff": True,
    "max_retry_delay": timedelta(minutes=10),
}


def pipelines() -> tuple[list[Pipeline], list[InputError]]:
    """All pipelines that can be read, and what is wrong with the others."""
    good: list[Pipeline] = []
    bad: list[InputError] = []
    for path in pipeline_files(PIPELINES):
        try:
            good.append(load_pipeline(path))
        except InputError as error:
            bad.append(error)
    return good, bad


def dags(build: Callable[[Pipeline], DAG]) -> tuple[dict[str, DAG], list[InputError]]:
    """The DAG of every pipeline, by its id, and which pipelines Airflow refused for what.

    What `build` makes must not register itself, or half a DAG would count when it breaks off.
    """
    made: dict[str, DAG] = {}
    refused: list[InputError] = []
    for pipeline in pipelines()[0]:
        try:
            dag = build(pipeline)
        except Exception as error:  # whatever Airflow says of this one, the others are built
            what = f"{type(error).__name__}: {error}"
            refused.append(InputError(f"{pipeline.name}.toml: Airflow takes no {build.__name__} DAG: {what}"))
        else:
            made[dag.dag_id] = _lean(dag)
    return made, refused


def _lean(dag: DAG) -> DAG:
    """The DAG without the copy of its params in every task.

    A task's context has the DAG's own. Airflow checks each copy twice, which was nine tenths of the time
    in which `retrain.py` is read.
    """
    for task in dag.tasks:
        task.params = ParamsDict()
        if task.is_mapped:
            task.partial_kwargs["params"] = ParamsDict()
    return dag


def asset(pipeline: str, alias: str) -> Asset:
    """What tells other DAGs that an alias of the pipeline's model, `challenger` or `champion`, is new."""
    return Asset(name=f"{pipeline}-{alias}", uri=f"x-nightshift://{pipeline}/{alias}")


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
