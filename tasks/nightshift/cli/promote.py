"""`nightshift promote`, `rollback`, `audit` and `history`: who is champion, since when, and why.

Only the DAG `promote_<name>` moves an alias; the commands start it.
"""

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nightshift.cli.connection import connect, pipelines_folder
from nightshift.config.pipelines import find_pipeline
from nightshift.errors import NightshiftError

if TYPE_CHECKING:
    from nightshift.cli.airflow_api import Airflow

app = typer.Typer()
Name = Annotated[str, typer.Argument(help="Pipeline, one of dags/pipelines/*.toml.")]
Wait = Annotated[bool, typer.Option("--wait", help="Follow it to its end and say what came of it.")]
Reason = Annotated[str, typer.Option(help="Why, for the ledger.")]
POLL_SECONDS = 0.5
FINISHED = ("success", "failed")


@app.command()
def promote(
    name: Name,
    version: Annotated[str, typer.Option(help="Registered version that becomes the champion.")],
    reason: Reason = "",
    wait: Wait = False,
) -> None:
    """Make a version champion that passed its gates; a person is asked where the pipeline file says so."""
    _start(name, {"action": "promote", "version": version, "reason": reason}, wait)


@app.command()
def rollback(
    name: Name,
    to: Annotated[str | None, typer.Option(help="An earlier champion; without it the one before.")] = None,
    reason: Reason = "",
    wait: Wait = False,
) -> None:
    """Take a promotion back: an earlier champion becomes champion again."""
    _start(name, {"action": "roll back", "version": to, "reason": reason}, wait)


@app.command()
def audit(name: Name, wait: Wait = False) -> None:
    """Look whether somebody moved the champion by hand, and do what the pipeline file says of that."""
    _start(name, {"action": "audit"}, wait)


@app.command()
def history(
    name: Name,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON line per decision.")] = False,
) -> None:
    """Show every decision about the versions of a pipeline, the oldest first."""
    connect()
    find_pipeline(name, pipelines_folder())
    from nightshift.tracking import ledger

    decisions = ledger.history(name)
    if as_json:
        for decision in decisions:
            print(decision.model_dump_json())
        return
    from rich.table import Table

    from nightshift.cli.console import console

    if not decisions:
        print(f"nothing was decided about {name} yet")
        return
    table = Table("when", "what", "version", "instead of", "by", "SHA-256", "why")
    for each in decisions:
        when = each.at[:19].replace("T", " ")
        why = "; ".join(each.reasons)
        before = each.replaces or ""
        table.add_row(when, each.kind, each.version, before, each.by, each.sha256[:12], why)
    console().print(table)


def _start(name: str, conf: dict[str, Any], wait: bool) -> None:
    connect()
    find_pipeline(name, pipelines_folder())
    from nightshift.cli.airflow_api import Airflow

    airflow, dag = Airflow(), f"promote_{name}"
    run_id = airflow.trigger(dag, conf)
    url = f"{airflow.url}/dags/{dag}/runs/{run_id}"
    print(url)
    if wait:
        from nightshift.cli.follow import goes_on

        with goes_on(f"{dag}, {run_id}", url):
            print(_outcome(airflow, dag, run_id))


def _outcome(airflow: "Airflow", dag: str, run_id: str) -> str:
    """What came of a promotion, in a sentence; raises NightshiftError when it failed."""
    while (state := airflow.run_state(dag, run_id)) not in FINISHED:
        if any(task["state"] == "awaiting_input" for task in airflow.tasks(dag, run_id)):
            return "waits for approval"
        time.sleep(POLL_SECONDS)
    if state == "failed":
        from nightshift.cli.follow import error

        raise NightshiftError(error(airflow, dag, run_id))
    found = airflow.xcom(dag, run_id, "move") or {}
    return str(found.get("reason") or airflow.xcom(dag, run_id, "check", "said") or "nothing was moved")
