"""One DAG `predict_<name>` for each pipeline: look -> predict (one task per message) -> summarise.

Started by the asset event of a promotion, by one that `nightshift ingest --unlabelled` sends, at the times
of the pipeline file, or by hand. A run that finds nothing to predict ends with everything after `look`
skipped.
"""

from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, AssetOrTimeSchedule, CronTriggerTimetable, Param, dag, get_current_context, task

from nightshift.airflow.pipelines import asset, build
from nightshift.airflow.stages import MESSAGE, retries, run
from nightshift.config import Pipeline
from nightshift.records import Message, PredictionPlan
from nightshift.records.specs import LookSpec, PredictSpec, SummariseSpec

FORECAST = "forecast"  # XCom key of what the look task found
TOLD = ("version", "sha256", "uri", "batches", "images", "unsure")  # of a summary, in the asset event
DOC = """
### Predictions of {name}
Put images without labels under `{source}`, one folder per batch, or use `nightshift ingest --unlabelled
FOLDER --pipeline {name}`. `models:/{name}@champion` predicts them; a new champion predicts again what the
pipeline file names. Each batch ends as Parquet files with a `_SUCCESS` that names them and `_to_label.csv`,
the images of which the model is not sure. The class mix, the confidence and the drift from the training data
are in the MLflow experiment `{name}-predictions`.
"""


@task(queue="preprocess", pool="preprocess", execution_timeout=MESSAGE, max_active_tis_per_dag=64)
def predict(message: dict[str, Any]) -> dict[str, Any]:
    """Decode and predict the images of one message."""
    return run("predict", PredictSpec(forecast=forecast_now(), message=Message.model_validate(message)))


def dag_of(pipeline: Pipeline) -> DAG:
    """Build the DAG of one pipeline."""
    policy, done = pipeline.predict, asset(pipeline.name, "predictions")
    events = asset(pipeline.name, "champion") | asset(pipeline.name, "unlabelled")

    @dag(
        dag_id=f"predict_{pipeline.name}",
        description=f"Predicts images without labels by models:/{pipeline.name}@champion",
        schedule=AssetOrTimeSchedule(
            timetable=CronTriggerTimetable(policy.schedule, timezone=pipeline.timezone), assets=events
        ),
        auto_register=False,
        catchup=False,
        max_active_runs=1,
        is_paused_upon_creation=False,
        params=prediction_params(),
        default_args=retries(),
        tags=["nightshift", "predict"],
        doc_md=DOC.format(name=pipeline.name, source=policy.source or f"<store>/unlabelled/{pipeline.name}"),
    )
    def predictions() -> None:
        @task.short_circuit(execution_timeout=timedelta(minutes=30))
        def look(params: dict[str, Any], run_id: str, ti: Any) -> list[dict[str, Any]]:
            """Find what is to be predicted; nothing ends the run here."""
            asked = {"version": params["version"] or "", "batches": tuple(params["batches"] or ())}
            found = run("look", LookSpec.model_validate({"pipeline": pipeline, "run": run_id, **asked}))
            ti.xcom_push(key=FORECAST, value=found)
            return list(found["messages"])

        @task(outlets=[done], execution_timeout=timedelta(hours=1))
        def summarise() -> dict[str, Any]:
            """Finish the batches, and tell whoever waits for predictions."""
            summary = run("summarise", SummariseSpec(forecast=forecast_now()))
            get_current_context()["outlet_events"][done].extra = {key: summary[key] for key in TOLD}
            return summary

        predict.expand(message=look()) >> summarise()

    return predictions()


def prediction_params() -> dict[str, Param]:
    """The form of a prediction run by hand."""
    return {
        "version": Param(
            None,
            type=["string", "null"],
            title="Version",
            description="Registered version that predicts; empty means the champion.",
            pattern="^[0-9]+$",
        ),
        "batches": Param(
            None,
            type=["array", "null"],
            items={"type": "string"},
            title="Batches",
            description="Names of batches without labels, one a line; empty means those that the pipeline "
            "file names and that are not predicted yet.",
        ),
    }


def forecast_now() -> PredictionPlan:
    """What this run's look task found."""
    return PredictionPlan.model_validate(get_current_context()["ti"].xcom_pull(task_ids="look", key=FORECAST))


def dags(place: str) -> dict[str, DAG]:
    """The DAG `predict_<name>` of every pipeline; `place` is the DAG file or the folder of the files."""
    return build(dag_of, place).dags
