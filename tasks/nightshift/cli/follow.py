"""Follow a night through Airflow to its end and put together what came of it."""

import contextlib
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from rich.console import Console

from nightshift.cli.airflow_api import Airflow
from nightshift.records import Evaluation

STAGES = ("plan", "preprocess", "assemble", "train", "quantize", "evaluate", "register")
POLL_SECONDS = 0.7
PROMOTION_SECONDS = 90  # how long the scheduler may take to start the promotion of a challenger
FINISHED = ("success", "failed")
METRICS = (  # of the result
    *("accuracy", "precision", "recall", "f1"),
    *("latency_ms_p50", "latency_ms_p99", "images_per_second", "memory_mb", "size"),
)


@contextlib.contextmanager
def goes_on(what: str, url: str) -> Iterator[None]:
    """Say at Ctrl-C that only the waiting ends; exit with 130, as a shell expects."""
    try:
        yield
    except KeyboardInterrupt:
        how = "to stop it, mark it as failed there"
        print(f"\n{what} goes on in Airflow, only the waiting ended: {url} ({how})", file=sys.stderr)
        raise SystemExit(130) from None


def follow(airflow: Airflow, name: str, run_id: str, console: Console) -> dict[str, Any]:
    """Wait for the night, and for the promotion that it started unless a person must approve it."""
    dag = f"retrain_{name}"
    state = follow_tasks(airflow, dag, run_id, console)
    result: dict[str, Any] = {
        "pipeline": name,
        "dag_run_id": run_id,
        "mlflow_run_id": None,
        "state": state,
        "model": None,
        "version": None,
        "recipe": None,
        "metrics": {},
        "rejected": {},
        "front": [],
        "seconds": seconds(airflow.tasks(dag, run_id)),
        "airflow_url": f"{airflow.url}/dags/{dag}/runs/{run_id}",
        "mlflow_url": None,
    }
    if state == "failed":
        return {**result, "error": error(airflow, dag, run_id)}
    registered = airflow.xcom(dag, run_id, "register")
    if registered is None:
        planned = airflow.xcom(dag, run_id, "plan", "plan") or {}
        reason = airflow.xcom(dag, run_id, "assemble", "reason") or planned.get("reason")
        console.print(f"nothing was trained: {reason}")
        return {**result, "state": "nothing-new", "reason": reason}
    evaluation = airflow.xcom(dag, run_id, "evaluate")
    result |= summary(registered, evaluation)
    for sentence in result["rejected"].values():
        console.print(f"rejected: {sentence}")
    if registered["state"] == "challenger":
        result["state"] = _promotion(airflow, name, run_id, console)
        result["seconds"] = seconds(airflow.tasks(dag, run_id))
    return result


def summary(registered: dict[str, Any], evaluation: dict[str, Any]) -> dict[str, Any]:
    """The parts of the JSON line that come from the registered version and its evaluation."""
    from nightshift.tracking import runs

    judged = Evaluation.model_validate(evaluation)
    scores = judged.test[judged.chosen]
    numbers = {**scores.quality, **scores.speed.numbers}
    return {
        "mlflow_run_id": registered["mlflow_run_id"],
        "state": registered["state"],
        "model": f"models:/{registered['name']}/{registered['version']}",
        "version": registered["version"],
        "recipe": judged.chosen,
        "metrics": {name: numbers[name] for name in METRICS},
        "rejected": judged.rejected,
        "front": list(judged.front),
        "mlflow_url": runs.run_url(registered["mlflow_run_id"]),
        "reasons": registered["reasons"],
    }


def seconds(tasks: list[dict[str, Any]]) -> dict[str, float]:
    """Wall seconds of each stage, from its first mapped task's start to its last one's end."""
    spans: dict[str, list[tuple[datetime, datetime]]] = {}
    for task in tasks:
        if task["start_date"] and task["end_date"] and task["state"] == "success":
            start, end = (datetime.fromisoformat(task[key]) for key in ("start_date", "end_date"))
            spans.setdefault(task["task_id"], []).append((start, end))
    return {
        stage: round((max(e for _, e in spans[stage]) - min(s for s, _ in spans[stage])).total_seconds(), 2)
        for stage in STAGES
        if stage in spans
    }


def follow_tasks(airflow: Airflow, dag: str, run_id: str, console: Console) -> str:
    """Poll until the run ends, saying each change of a task once."""
    said: dict[tuple[str, int], str] = {}
    while True:
        state = airflow.run_state(dag, run_id)
        for task in airflow.tasks(dag, run_id):
            key, now = (task["task_id"], task["map_index"]), task["state"]
            if now in ("running", "success", "failed", "up_for_retry") and said.get(key) != now:
                said[key] = now
                console.print(_line(task))
        if state in FINISHED:
            return state
        time.sleep(POLL_SECONDS)


def _line(task: dict[str, Any]) -> str:
    index = f"[{task['map_index']}]" if task["map_index"] >= 0 else ""
    took = f" {task['duration']:.1f} s" if task["duration"] and task["state"] == "success" else ""
    return f"{datetime.now():%H:%M:%S}  {task['task_id'] + index:<16}{task['state']}{took}"


def _promotion(airflow: Airflow, name: str, run_id: str, console: Console) -> str:
    """promoted, not-promoted, awaiting-approval, or challenger when no promotion was started."""
    dag, deadline = f"promote_{name}", time.monotonic() + PROMOTION_SECONDS
    promotion = airflow.started_by(f"retrain_{name}", run_id, dag)
    while promotion is None and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
        promotion = airflow.started_by(f"retrain_{name}", run_id, dag)
    if promotion is None:
        return "challenger"
    while airflow.run_state(dag, promotion) not in FINISHED:
        if any(
            t["task_id"] == "approve" and t["state"] == "awaiting_input"
            for t in airflow.tasks(dag, promotion)
        ):
            console.print(f"waits for approval: {airflow.url}/dags/{dag}/runs/{promotion}")
            return "awaiting-approval"
        time.sleep(POLL_SECONDS)
    moved = airflow.xcom(dag, promotion, "move")
    if moved:
        console.print(moved["reason"])
        return "promoted" if moved["proceed"] else "not-promoted"
    said = airflow.xcom(dag, promotion, "check", "said")
    if said:
        console.print(said)
    return "not-promoted"


def error(airflow: Airflow, dag: str, run_id: str) -> str:
    """The sentence of the first task that failed."""
    for task in airflow.tasks(dag, run_id):
        if task["state"] == "failed":
            said = airflow.xcom(dag, run_id, task["task_id"], "error", task["map_index"])
            return str(said or f"task {task['task_id']} was ended from outside, see its log")
    return "no task failed, see the run in Airflow"
