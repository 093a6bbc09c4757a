"""One DAG `promote_<name>` for each pipeline: check -> [approve] -> decide -> move -> announce.

Started by the asset event of a registered challenger, or by hand with a version. Only `move` moves the alias,
in a pool of one slot.
"""

from datetime import timedelta
from typing import Any

from airflow.providers.standard.operators.hitl import HITLOperator
from airflow.sdk import DAG, Param, dag, get_current_context, task
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from tasks.config import Pipeline
from tasks.specs import PromoteSpec
from wiring import RETRY, asset, pipelines, run

APPROVE, REJECT = "Approve", "Reject"
DOC = """
### Promotion of {name}
Moves `models:/{name}@champion` to a challenger that passed every gate, after a person approved it where
the pipeline file says `mode = "approve"`. Trigger it by hand with a version to promote that version again,
which is also how a promotion is taken back.
"""


@task.short_circuit(multiple_outputs=True, execution_timeout=timedelta(minutes=15))
def check(pipeline: str, params: dict[str, Any]) -> dict[str, Any]:
    """Look whether the version may be promoted; if it is the champion already, end here."""
    asked = requested(pipeline, params)
    result = run("promote", asked)
    return {**result, **asked.model_dump(include={"by", "only_challenger"})} if result["proceed"] else {}


@task.short_circuit(multiple_outputs=True, execution_timeout=timedelta(minutes=15))
def decide(pipeline: str) -> dict[str, Any]:
    """Take a person's answer, where one was asked for; a refusal or a time-out is recorded and ends here."""
    ti = get_current_context()["ti"]
    checked = ti.xcom_pull(task_ids="check")
    response = ti.xcom_pull(task_ids="approve")
    if response is None:
        return dict(checked)
    person = (response["responded_by_user"] or {}).get("name")
    if APPROVE in response["chosen_options"]:
        return {**checked, "by": person or checked["by"]}
    outcome = "rejected" if person else "expired"
    run("promote", _spec("record", pipeline, {**checked, "by": person or "time-out"}, outcome))
    return {}


@task(pool="promotion", execution_timeout=timedelta(minutes=15))
def move(pipeline: str) -> dict[str, Any]:
    """Move the alias."""
    decided = get_current_context()["ti"].xcom_pull(task_ids="decide")
    return run("promote", _spec("move", pipeline, decided))


@task(execution_timeout=timedelta(minutes=5))
def announce(pipeline: str, moved: dict[str, Any]) -> None:
    """Tell whoever waits for a new champion."""
    if not moved["proceed"]:
        raise AirflowSkipException(moved["reason"])
    get_current_context()["outlet_events"][asset(pipeline, "champion")].extra = {
        key: moved[key] for key in ("version", "sha256", "instead_of")
    }


def promote(pipeline: Pipeline) -> DAG:
    """Build the promotion DAG of one pipeline."""

    @dag(
        dag_id=f"promote_{pipeline.name}",
        description=f"Moves models:/{pipeline.name}@champion",
        schedule=[asset(pipeline.name, "challenger")],
        catchup=False,
        max_active_runs=16,  # an open approval must not hold up the next challenger
        is_paused_upon_creation=False,
        params={
            "version": Param(
                None,
                type=["string", "null"],
                title="Version",
                description="Registered version to promote; empty means the newest challenger.",
                pattern="^[0-9]+$",
            )
        },
        default_args=RETRY,
        tags=["nightshift", "promote"],
        doc_md=DOC.format(name=pipeline.name),
    )
    def promotion() -> None:
        checked, decided, moved = check(pipeline.name), decide(pipeline.name), move(pipeline.name)
        if pipeline.promotion.mode == "approve":
            checked >> approval(pipeline) >> decided
        else:
            checked >> decided
        decided >> moved
        announce.override(outlets=[asset(pipeline.name, "champion")])(pipeline.name, moved)

    return promotion()


def approval(pipeline: Pipeline) -> HITLOperator:
    """Ask a person. Silence until the time-out counts as a refusal, recorded as expired."""
    return HITLOperator(
        task_id="approve",
        subject=f"Promote {pipeline.name} version {{{{ ti.xcom_pull(task_ids='check')['version'] }}}}?",
        body="{{ ti.xcom_pull(task_ids='check')['reason'] }}\n\nSHA-256 "
        "`{{ ti.xcom_pull(task_ids='check')['sha256'] }}`",
        options=[APPROVE, REJECT],
        defaults=REJECT,
        response_timeout=pipeline.promotion.approval_timeout,
        retries=0,
    )


def requested(pipeline: str, params: dict[str, Any]) -> PromoteSpec:
    """What to look at: the version a person names in the form, otherwise the newest of the waiting events."""
    context = get_current_context()
    asked: dict[str, Any] = {"action": "check", "pipeline": pipeline}
    if params["version"]:
        by = getattr(context["dag_run"], "triggering_user_name", None) or "a person"
        return PromoteSpec.model_validate({**asked, "version": params["version"], "by": by})
    events = context["triggering_asset_events"].get(asset(pipeline, "challenger")) or []
    if not events:
        raise AirflowFailException("no version was given and no challenger waits: give a version in the form")
    extra = max(events, key=lambda event: event.timestamp).extra
    return PromoteSpec.model_validate({**asked, **extra, "only_challenger": True})


def _spec(action: str, pipeline: str, checked: dict[str, Any], outcome: str | None = None) -> PromoteSpec:
    fields = {key: checked[key] for key in ("version", "sha256", "by", "only_challenger")}
    return PromoteSpec.model_validate({"action": action, "pipeline": pipeline, "outcome": outcome, **fields})


for _pipeline in pipelines()[0]:
    promote(_pipeline)
