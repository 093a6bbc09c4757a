"""One DAG `promote_<name>` for each pipeline: check -> [ask -> approve] -> decide -> move -> announce.

Started by the asset event of a registered challenger, or by hand: to promote a version, to roll back, or to
look whether the champion is the one that the ledger knows. Only `move` moves the alias, in a pool of one
slot.
"""

from datetime import timedelta
from typing import Any

from airflow.providers.standard.operators.hitl import HITLOperator
from airflow.sdk import DAG, Param, dag, get_current_context, task
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from nightshift.airflow import notifications
from nightshift.airflow.pipelines import asset, build
from nightshift.airflow.stages import retries, run
from nightshift.config import Pipeline
from nightshift.records.specs import PromoteSpec

APPROVE, REJECT = "Approve", "Reject"
SAID = "said"  # XCom key of what was found out, also where there is nothing to move
KEPT = (
    *("intent", "version", "sha256", "by", "reason", "only_challenger", "bound", "manual_moves", "run"),
    *("asks", "approved"),
)
OFFERED = ("version", "sha256")  # what the event of a challenger says of it
ASK = "ask"  # in what `check` found: whether a person has to approve
DOC = """
### Promotion of {name}
Moves `models:/{name}@champion` to a challenger that passed every gate, after a person approved it where the
pipeline file says so. By hand: *promote* makes a version champion that passed its gates, *roll back* goes to
the champion before the present one, or to an earlier one that you name, and *audit* looks whether somebody
moved the alias in MLflow. `nightshift history {name}` shows everything that was decided.
"""


@task.short_circuit(pool="promotion", multiple_outputs=True, execution_timeout=timedelta(minutes=15))
def check(pipeline: str, policy: dict[str, str], params: dict[str, Any]) -> dict[str, Any]:
    """Look whether the version may be promoted; if there is nothing to move, end here."""
    asked = requested(pipeline, policy, params)
    result = run("promote", asked)
    get_current_context()["ti"].xcom_push(key=SAID, value=result["reason"])
    found = {key: result[key] for key in ("version", "sha256", "replaces", "bound", "body")}
    return {**asked.model_dump(mode="json"), **found, ASK: result["asks"]} if result["proceed"] else {}


@task.short_circuit(ignore_downstream_trigger_rules=False, execution_timeout=timedelta(minutes=5))
def ask() -> bool:
    """Whether a person is asked: to promote, always or for the first champion; to roll back is their act."""
    return bool(_found("check")[ASK])


@task.short_circuit(
    multiple_outputs=True, trigger_rule="none_failed", execution_timeout=timedelta(minutes=15)
)
def decide(pipeline: str) -> dict[str, Any]:
    """Take a person's answer, where one is asked for; a refusal or a time-out is recorded and ends here.

    An answer that is not there, because somebody set the state of the task that asks, is a refusal.
    """
    checked = _found("check")
    if not checked[ASK]:
        return checked
    response = get_current_context()["ti"].xcom_pull(task_ids="approve") or {}
    person = (response.get("responded_by_user") or {}).get("name")
    if APPROVE in response.get("chosen_options", ()):
        return {**checked, "approved": True, "by": person or checked["by"]}
    refused = {**checked, "by": person or ("time-out" if response else "policy")}
    if not response:
        refused["reason"] = "the task that asks a person ended without an answer, which is a refusal"
    outcome = "expired" if response and not person else "rejected"
    result = run("promote", _spec("record", pipeline, refused, outcome))
    notifications.tell(f"{pipeline}: {result['reason']}")
    return {}


@task(pool="promotion", execution_timeout=timedelta(minutes=15))
def move(pipeline: str) -> dict[str, Any]:
    """Move the alias."""
    return run("promote", _spec("move", pipeline, _found("decide")))


@task(execution_timeout=timedelta(minutes=5))
def announce(pipeline: str, moved: dict[str, Any]) -> None:
    """Tell whoever waits for a new champion."""
    notifications.tell(f"{pipeline}: {moved['reason']}")
    if not moved["proceed"]:
        raise AirflowSkipException(moved["reason"])
    get_current_context()["outlet_events"][asset(pipeline, "champion")].extra = {
        key: moved[key] for key in ("version", "sha256", "replaces")
    }


def dag_of(pipeline: Pipeline) -> DAG:
    """Build the promotion DAG of one pipeline."""
    policy = pipeline.promotion

    @dag(
        dag_id=f"promote_{pipeline.name}",
        description=f"Moves models:/{pipeline.name}@champion",
        schedule=[asset(pipeline.name, "challenger")],
        auto_register=False,
        catchup=False,
        max_active_runs=16,  # an open approval must not hold up the next challenger
        is_paused_upon_creation=False,
        params=promotion_params(),
        default_args=retries(),
        tags=["nightshift", "promote"],
        doc_md=DOC.format(name=pipeline.name),
    )
    def promotion() -> None:
        checked = check(pipeline.name, {"manual_moves": policy.manual_moves, "asks": policy.asks})
        decided, moved = decide(pipeline.name), move(pipeline.name)
        if policy.asks != "never":
            checked >> ask() >> approval(pipeline) >> decided
        checked >> decided >> moved
        announce.override(outlets=[asset(pipeline.name, "champion")])(pipeline.name, moved)

    return promotion()


def promotion_params() -> dict[str, Param]:
    """The form of a promotion by hand."""
    return {
        "action": Param(
            "promote",
            type="string",
            enum=["promote", "roll back", "audit"],
            title="Action",
            description="Make a version champion that passed its gates; go back to an earlier champion; or "
            "look whether somebody moved the alias by hand, and do what the pipeline file says of that.",
        ),
        "version": Param(
            None,
            type=["string", "null"],
            title="Version",
            description="Registered version. To promote, a version is needed; to roll back, empty means the "
            "champion before the present one.",
            pattern="^[0-9]+$",
        ),
        "reason": Param(
            None,  # an empty text would count as missing, and the form could not be sent
            type=["string", "null"],
            title="Reason",
            description="Why, in your words; it is kept in the ledger.",
            maxLength=500,
        ),
    }


def approval(pipeline: Pipeline) -> HITLOperator:
    """Ask a person. Silence until the time-out counts as a refusal, recorded as expired."""
    return HITLOperator(
        task_id="approve",
        subject=f"Promote {pipeline.name} version {{{{ ti.xcom_pull(task_ids='check')['version'] }}}}?",
        body="{{ ti.xcom_pull(task_ids='check')['body'] }}",
        options=[APPROVE, REJECT],
        defaults=REJECT,
        response_timeout=pipeline.promotion.approval_timeout,
        notifiers=notifications.Notice(
            f"{pipeline.name}: version {{{{ ti.xcom_pull(task_ids='check')['version'] }}}} waits for approval"
        ),
        retries=0,
    )


def requested(pipeline: str, policy: dict[str, str], params: dict[str, Any]) -> PromoteSpec:
    """What to look at: what a person asks for in the form, otherwise the newest of the waiting events."""
    context = get_current_context()
    asked = {"action": "check", "pipeline": pipeline, "run": context["run_id"], **policy}
    events = context["triggering_asset_events"].get(asset(pipeline, "challenger")) or []
    if params["version"] or params["action"] != "promote":
        by = getattr(context["dag_run"], "triggering_user_name", None) or "a person"
        given = {
            "version": params["version"] or "",
            "intent": params["action"],
            "reason": params["reason"] or "",
        }
        return PromoteSpec.model_validate({**asked, **given, "by": by})
    if not events:
        raise AirflowFailException("no version was given and no challenger waits: give a version in the form")
    # Whoever may write assets by the REST API can send such an event: it says which version, and no more.
    extra = max(events, key=lambda event: event.timestamp).extra
    offered = {key: extra.get(key) for key in OFFERED}
    if not all(offered.values()):
        raise AirflowFailException(f"the event must name {' and '.join(OFFERED)}, got {', '.join(extra)}")
    return PromoteSpec.model_validate({**offered, **asked, "only_challenger": True})


def _found(task_id: str) -> dict[str, Any]:
    """What an earlier task of this run found; nothing is done where somebody set its state instead."""
    found = get_current_context()["ti"].xcom_pull(task_ids=task_id)
    if not found:
        raise AirflowFailException(f"task {task_id} has no result, so nothing is moved; clear it to run it")
    return dict(found)


def _spec(action: str, pipeline: str, checked: dict[str, Any], outcome: str | None = None) -> PromoteSpec:
    fields = {key: checked[key] for key in KEPT}
    return PromoteSpec.model_validate({"action": action, "pipeline": pipeline, "outcome": outcome, **fields})


def dags(place: str) -> dict[str, DAG]:
    """The DAG `promote_<name>` of every pipeline; `place` is the DAG file or the folder of the files."""
    return build(dag_of, place).dags
