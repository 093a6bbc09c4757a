"""`nightshift run` and `plan`: start a night, and look at the next one."""

import json
import sys
from typing import Annotated, Any

import typer

from nightshift.cli.connection import connect, connect_signing, pipelines_folder
from nightshift.cli.console import messages
from nightshift.config.pipelines import find_pipeline, override
from nightshift.errors import InputError, NightshiftError

app = typer.Typer()
Name = Annotated[str, typer.Argument(help="Pipeline, one of dags/pipelines/*.toml.")]
Set = Annotated[
    list[str] | None, typer.Option("--set", help="stage.field=value, such as train.epochs=3; repeatable.")
]


@app.command()
def run(
    name: Name,
    set_: Set = None,
    wait: Annotated[bool, typer.Option("--wait", help="Follow the night to its end.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Only the JSON line on stdout.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Run although nothing changed.")] = False,
    local: Annotated[bool, typer.Option("--local", help="Run the stages here, without Airflow.")] = False,
) -> None:
    """Start a night; with --wait follow it and print its result as one JSON line."""
    connect()
    pipeline = find_pipeline(name, pipelines_folder())
    values = parse_settings(set_ or [])
    effective = override(pipeline, values)
    console = messages(quiet=as_json)
    if local:
        from nightshift.cli.local_run import run_night

        connect_signing()
        print(json.dumps(run_night(effective, force=force, echo=console.print)))
        return
    from nightshift.cli.airflow_api import Airflow
    from nightshift.cli.follow import follow, goes_on

    airflow = Airflow()
    run_id = airflow.trigger(f"retrain_{name}", {**values, "force": force})
    url = f"{airflow.url}/dags/retrain_{name}/runs/{run_id}"
    console.print(f"night {run_id} of {name} started: {url}")
    if not wait:
        print(json.dumps({"pipeline": name, "dag_run_id": run_id, "state": "queued", "airflow_url": url}))
        return
    with goes_on(f"night {run_id} of {name}", url):
        result = follow(airflow, name, run_id, console)
    if result["state"] == "failed":
        sys.stdout.write(json.dumps(result) + "\n")
        raise NightshiftError(f"night {run_id} of {name} failed: {result['error']}")
    print(json.dumps(result))


@app.command()
def plan(
    name: Name,
    set_: Set = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of a table.")] = False,
    force: Annotated[bool, typer.Option("--force", help="As a forced night would do.")] = False,
) -> None:
    """Show what the next night would do, and why, without doing it."""
    connect()
    pipeline = override(find_pipeline(name, pipelines_folder()), parse_settings(set_ or []))
    from nightshift.cli.plan_preview import as_dict, show
    from nightshift.records.specs import PlanSpec
    from nightshift.workflows.retrain.plan import outlook

    seen = outlook(PlanSpec(pipeline=pipeline, night="preview", force=force))
    if as_json:
        print(json.dumps(as_dict(name, seen)))
    else:
        show(name, seen)


def parse_settings(items: list[str]) -> dict[str, Any]:
    """`["train.epochs=3"]` -> `{"train.epochs": 3}`; values are JSON where they can be, otherwise text."""
    values: dict[str, Any] = {}
    for item in items:
        key, equals, text = item.partition("=")
        if not equals or "." not in key:
            raise InputError(f"--set {item!r} must look like stage.field=value, such as train.epochs=3")
        try:
            values[key] = json.loads(text)
        except json.JSONDecodeError:
            values[key] = text.split(",") if "," in text else text
    return values
