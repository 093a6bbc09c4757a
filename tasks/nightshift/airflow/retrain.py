"""One DAG `retrain_<name>` for each `pipelines/<name>.toml`: a night from new batches to a registered model.

plan -> preprocess (one task per message) -> assemble -> train (one per member) -> quantize (one per
candidate) -> evaluate -> register, and `close`, a teardown, ends the MLflow run however the night went.
`members` and `recipes` only list what train and quantize are mapped over.
"""

from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, AssetAlias, CronTriggerTimetable, dag, get_current_context, task

from nightshift.airflow import notifications
from nightshift.airflow.operator_links import REPORT, ReportLink
from nightshift.airflow.params import FORCE, chosen, night_params
from nightshift.airflow.pipelines import asset, build
from nightshift.airflow.stages import ERROR, MESSAGE, retries, run
from nightshift.config import Pipeline
from nightshift.config.pipelines import override
from nightshift.records import Checkpoint, Drift, Evaluation, Message, Plan, Variant, outcome, variants
from nightshift.records.specs import (
    AssembleSpec,
    CloseSpec,
    EvaluateSpec,
    PlanSpec,
    PreprocessSpec,
    QuantizeSpec,
    RegisterSpec,
    TrainSpec,
)

PLAN = "plan"  # XCom key of what the plan task found
REASON = "reason"  # XCom key of why the night goes on after assembling, or why not

DOC = """
### {name}
{description}

Put labelled images under `{source}`, one folder per batch with one folder per class, or use
`nightshift ingest FOLDER --pipeline {name}`. Each night the new batches are preprocessed, a network is
trained and quantized, and the chosen candidate is compared with `models:/{name}@champion` on the same test
images. A challenger that passes every gate starts `promote_{name}`.

A night with nothing new ends at once with everything after `plan` skipped. When a night fails, the last line
of the failed task's log says what and why; clear that task to go on from there.
"""


@task(
    queue="preprocess",
    pool="preprocess",
    execution_timeout=MESSAGE,
    max_active_tis_per_dag=64,
)
def preprocess(message: dict[str, Any]) -> dict[str, Any]:
    """Decode, resize and shard the images of one message."""
    night = planned_now()
    return run(
        "preprocess",
        PreprocessSpec(
            message=Message.model_validate(message),
            source=night.source,
            settings=night.pipeline.preprocess,
        ),
    )


@task.short_circuit(execution_timeout=timedelta(hours=1))
def assemble() -> dict[str, Any]:
    """Commit the data set version; a night that only drift can make worth training may end here."""
    assembled = run("assemble", AssembleSpec(plan=planned_now()))
    get_current_context()["ti"].xcom_push(key=REASON, value=assembled["reason"])
    return assembled if assembled["proceed"] else {}


@task(execution_timeout=timedelta(minutes=5))
def members() -> list[int]:
    """The networks to train, by number."""
    return list(range(planned_now().pipeline.train.members))


@task(execution_timeout=timedelta(minutes=5))
def recipes() -> list[dict[str, Any]]:
    """The candidates to make: each recipe for the best network, and for the votes of all."""
    return [variant.model_dump() for variant in variants(planned_now().pipeline)]


@task(queue="train", pool="train", execution_timeout=timedelta(hours=24))
def train(member: int, dataset: dict[str, Any]) -> dict[str, Any]:
    """Train one network."""
    night = planned_now()
    return run(
        "train",
        TrainSpec(
            dataset_uri=dataset["dataset_uri"],
            settings=night.pipeline.train,
            member=member,
            cache_salt=night.cache_salt,
            start=night.start,
            mlflow_run_id=night.mlflow_run_id,
        ),
    )


@task(queue="train", pool="train", execution_timeout=timedelta(hours=6))
def quantize(recipe: dict[str, Any], checkpoints: list[dict[str, Any]]) -> dict[str, Any]:
    """Make one candidate, an ONNX file, or say why the recipe cannot."""
    night, variant = planned_now(), Variant.model_validate(recipe)
    return run(
        "quantize",
        QuantizeSpec(
            **recipe,
            checkpoints=variant.of([Checkpoint.model_validate(item) for item in checkpoints]),
            settings=night.pipeline.quantize,
            cache_salt=night.cache_salt,
        ),
    )


@task(queue="train", pool="train", execution_timeout=timedelta(hours=3))
def evaluate(
    checkpoints: list[dict[str, Any]], candidates: list[dict[str, Any]], dataset: dict[str, Any]
) -> dict[str, Any]:
    """Choose a candidate and judge it beside the champion."""
    night = planned_now()
    evaluation = run(
        "evaluate",
        EvaluateSpec(
            plan=night,
            dataset_uri=dataset["dataset_uri"],
            members=tuple(Checkpoint.model_validate(item) for item in checkpoints),
            candidates=tuple(outcome(item) for item in candidates),
            drifts=tuple(Drift.model_validate(item) for item in dataset["drifts"]),
            settings=night.pipeline.evaluate,
            policy=night.pipeline.promotion,
        ),
    )
    get_current_context()["ti"].xcom_push(key=REPORT, value=evaluation["page"])
    return evaluation


def dag_of(pipeline: Pipeline) -> DAG:
    """Build the DAG of one pipeline."""
    offer = AssetAlias(f"{pipeline.name}-challenger-offer")
    challenger = asset(pipeline.name, "challenger")

    @dag(
        dag_id=f"retrain_{pipeline.name}",
        description=pipeline.description or f"Nightly retraining of {pipeline.name}",
        schedule=CronTriggerTimetable(pipeline.schedule, timezone=pipeline.timezone)
        if pipeline.schedule
        else None,
        auto_register=False,
        catchup=False,
        max_active_runs=1,
        is_paused_upon_creation=False,
        params=night_params(pipeline),
        default_args=retries(),
        deadline=notifications.late(pipeline.name, pipeline.deadline_hours) or None,
        tags=["nightshift", "retrain"],
        doc_md=DOC.format(
            name=pipeline.name,
            description=pipeline.description,
            source=pipeline.source or f"<store>/incoming/{pipeline.name}",
        ),
    )
    def night() -> None:
        # A mapped task expands over a whole return value only, so plan returns the messages and
        # leaves the rest under a key of its own. An empty list ends the night.
        @task.short_circuit(execution_timeout=timedelta(minutes=30))
        def plan(params: dict[str, Any], run_id: str, ti: Any) -> list[dict[str, Any]]:
            """Find what is new; nothing new ends the night here."""
            effective = override(pipeline, chosen(params))
            planned = run("plan", PlanSpec(pipeline=effective, night=run_id, force=params[FORCE]))
            ti.xcom_push(key=PLAN, value=planned)
            return list(planned["messages"])

        @task(outlets=[offer], execution_timeout=timedelta(hours=1))
        def register(
            evaluation: dict[str, Any], checkpoints: list[dict[str, Any]], dataset: dict[str, Any]
        ) -> dict[str, Any]:
            """Record the version; a challenger is offered for promotion, a refused one is not."""
            night = planned_now()
            judged = Evaluation.model_validate(evaluation)
            spec = RegisterSpec(
                plan=night,
                dataset_uri=dataset["dataset_uri"],
                members=tuple(Checkpoint.model_validate(item) for item in checkpoints),
                evaluation=judged,
            )
            version = run("register", spec)
            if version["state"] == "refused":
                notifications.tell(
                    f"{pipeline.name}: version {version['version']} is refused: "
                    + "; ".join(version["reasons"])
                )
            if version["offered"] and night.pipeline.promotion.mode != "never":
                extra = {"version": version["version"], "sha256": version["sha256"]}
                get_current_context()["outlet_events"][offer].add(challenger, extra=extra)
            return version

        messages = plan()
        assembled, wanted, seeds = assemble(), recipes(), members()
        messages >> [wanted, seeds]
        preprocess.expand(message=messages) >> assembled
        trained = train.partial(dataset=assembled).expand(member=seeds)
        candidates = quantize.partial(checkpoints=trained).expand(recipe=wanted)
        evaluation = evaluate(trained, candidates, assembled)
        evaluation.operator.operator_extra_links = (ReportLink(),)
        register(evaluation, trained, assembled) >> close().as_teardown()

    return night()


def planned_now() -> Plan:
    """What this run's plan task found."""
    return Plan.model_validate(get_current_context()["ti"].xcom_pull(task_ids="plan", key=PLAN))


@task(execution_timeout=timedelta(minutes=15))
def close() -> dict[str, Any]:
    """End the night's MLflow run; its reason is the sentence of the task that failed."""
    ti = get_current_context()["ti"]
    planned = ti.xcom_pull(task_ids="plan", key=PLAN)
    states = ti.get_task_states(dag_id=ti.dag_id, run_ids=[ti.run_id])[ti.run_id]
    broken = sorted(name for name, state in states.items() if state in ("failed", "upstream_failed"))
    failed = [name for name in broken if states[name] == "failed"]
    reason = "; ".join(_sentence(ti, name) for name in failed) or "the night ran to its end"
    if broken:
        notifications.tell(f"{ti.dag_id}, {ti.run_id} failed: {reason}")
    if not planned or not planned["mlflow_run_id"]:
        print("the night opened no MLflow run, so there is none to close")
        return {}
    spec = CloseSpec(mlflow_run_id=planned["mlflow_run_id"], failed=bool(broken), reason=reason)
    return run("close", spec)


def _sentence(ti: Any, name: str) -> str:
    """What a failed task said of itself; `name` may end in the index of a mapped task."""
    task_id = name.rpartition("_")[0] if name.rpartition("_")[2].isdigit() else name
    said = ti.xcom_pull(task_ids=task_id, key=ERROR)
    said = said if isinstance(said, str) else "; ".join(filter(None, said or ()))
    return said or f"task {name} was ended from outside, see its log"


def dags(place: str) -> dict[str, DAG]:
    """The DAG `retrain_<name>` of every pipeline; `place` is the DAG file or the folder of the files."""
    return build(dag_of, place).dags
