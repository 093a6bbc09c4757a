"""The DAG `upkeep`, one for all pipelines: wait -> look -> [go_on] -> delete, and beside it an audit of each.

`wait` lets nights, sweeps and predictions end first. `look` lists what nothing needs any more, `delete`
deletes what is on the list; with `dry_run` it is only listed.
"""

from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import DAG, CronTriggerTimetable, Param, dag, get_current_context, task
from airflow.sdk.exceptions import AirflowFailException

from nightshift.airflow import notifications
from nightshift.airflow.params import flat, schemas
from nightshift.airflow.pipelines import pipelines
from nightshift.airflow.stages import retries, run
from nightshift.config.toml import load
from nightshift.config.upkeep import Retention, Upkeep
from nightshift.records.specs import UpkeepSpec

FILE = "upkeep.toml"  # beside the DAG file
DRY_RUN = "dry_run"
WORK = ("retrain", "sweep", "predict")  # what the DAGs begin with that read and write what is cleaned
DOC = """
### Upkeep
Deletes what no registered version, decision or young record names any more, old versions that never were
champion, and artifacts that MLflow does not know; reports what registered versions lack; and looks whether
somebody moved a champion by hand. Nothing that people bring or decide is touched: `incoming`, `unlabelled`,
`quarantine`, `ledger`. The log of `look` names everything with its reason, `upkeep.toml` says how long things
are kept. By hand: `nightshift upkeep`.
"""


@task.sensor(poke_interval=60, timeout=timedelta(hours=12).total_seconds(), mode="reschedule", soft_fail=True)
def wait(place: str) -> bool:
    """Whether nothing runs that could need what is looked at; after 12 hours, the next time will do."""
    ti = get_current_context()["ti"]
    names = [f"{kind}_{pipeline.name}" for pipeline in pipelines(place)[0] for kind in WORK]
    running = [name for name in names if ti.get_dr_count(dag_id=name, states=["running"])]
    if running:
        print(f"waiting for {', '.join(running)}")
    return not running


@task(execution_timeout=timedelta(hours=6))
def look(place: str, params: dict[str, Any]) -> dict[str, Any]:
    """List what nothing needs any more."""
    settings = Retention.model_validate({name: params[name] for name in Retention.model_fields})
    known, malformed = pipelines(place)
    if malformed:
        raise AirflowFailException(f"{malformed[0]}; nobody can tell what it needs, so mend it first")
    named = tuple(pipeline.model_dump_json() for pipeline in known)  # such as weights to begin with
    found = run("upkeep", UpkeepSpec(action="look", settings=settings, named=named))
    if found["findings"]:
        first = "; ".join(found["findings"][:5])
        notifications.tell(f"upkeep: {first}; {len(found['findings'])} findings in all")
    return found


@task.short_circuit(execution_timeout=timedelta(minutes=5))
def go_on(params: dict[str, Any]) -> bool:
    """Whether what is listed is deleted."""
    return not params[DRY_RUN]


@task(execution_timeout=timedelta(hours=12))
def delete(found: dict[str, Any]) -> dict[str, Any]:
    """Delete what is on the list."""
    return run("upkeep", UpkeepSpec(action="delete", list_uri=found["list_uri"]))


def upkeep_params(settings: Upkeep) -> dict[str, Param]:
    """The form: how long things are kept, with the file's values, and whether anything is deleted."""
    described = {name: schemas(Upkeep)[name] for name in (*Retention.model_fields, DRY_RUN)}
    return {name: Param(getattr(settings, name), **flat(name, schema)) for name, schema in described.items()}


def dag_of(settings: Upkeep, place: str) -> DAG:
    """Build the DAG."""
    timetable = (
        CronTriggerTimetable(settings.schedule, timezone=settings.timezone) if settings.schedule else None
    )

    @dag(
        dag_id="upkeep",
        description="Cleans up what nothing needs any more",
        schedule=timetable,
        auto_register=False,
        catchup=False,
        max_active_runs=1,
        is_paused_upon_creation=False,
        params=upkeep_params(settings),
        default_args=retries(),
        tags=["nightshift", "upkeep"],
        doc_md=DOC,
    )
    def cleaning() -> None:
        found = look(place)
        wait(place) >> found >> go_on() >> delete(found)
        for pipeline in pipelines(place)[0]:
            TriggerDagRunOperator(
                task_id=f"audit_{pipeline.name}",
                trigger_dag_id=f"promote_{pipeline.name}",
                conf={"action": "audit"},
                execution_timeout=timedelta(minutes=5),
            )

    return cleaning()


def dags(place: str) -> dict[str, DAG]:
    """The DAG `upkeep`, as `upkeep.toml` beside the DAG file `place` says."""
    return {"upkeep": dag_of(load(Path(place).with_name(FILE), Upkeep), place)}
