"""`nightshift sweep`: search for better training settings and print the best ones for the pipeline file."""

import contextlib
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from nightshift.cli.connection import connect, pipelines_folder
from nightshift.cli.console import messages
from nightshift.cli.run import Name, Set, parse_settings
from nightshift.config.pipelines import find_pipeline, override
from nightshift.errors import InputError, NightshiftError
from nightshift.records.specs import MOST_TRIALS, ConcludeSpec, SweepSpec, TrialSpec
from nightshift.workflows.sweep.records import Swept, Trial
from nightshift.workflows.sweep.search_space import parse

app = typer.Typer()


@app.command()
def sweep(
    name: Name,
    over: Annotated[
        list[str],
        typer.Option(
            help="Values to try, such as train.learning_rate=log:0.01..1, train.dropout=0..0.5, "
            "train.stem_kernel=3..7:2 or train.batch_size=64,128; repeatable."
        ),
    ],
    trials: Annotated[int, typer.Option(min=1, max=MOST_TRIALS, help="Trainings.")] = 20,
    set_: Set = None,
    wait: Annotated[bool, typer.Option("--wait", help="Follow the sweep to its end.")] = False,
    local: Annotated[bool, typer.Option("--local", help="Run the trials here, without Airflow.")] = False,
) -> None:
    """Search for better training settings; the best ones are printed as a piece of the pipeline file."""
    connect()
    values = parse_settings(set_ or [])
    if fixed := [key for key in values if not key.startswith("train.")]:
        raise InputError(f"--set {fixed[0]} does nothing in a sweep, which only trains; set train settings")
    pipeline = override(find_pipeline(name, pipelines_folder()), values)
    parse(over, pipeline)  # a mistake is said here, not in a task's log
    console = messages()
    if local:
        now = f"local__{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%f}"
        spec = SweepSpec(pipeline=pipeline, name=now, over=tuple(over), trials=trials)
        swept = run_trials(spec, console.print)
    else:
        found = _through_airflow(name, {**values, "over": over, "trials": trials}, console, wait=wait)
        if found is None:
            return
        swept = found
    console.print(table(swept))
    for trial in swept.trials:
        if trial.error:
            console.print(f"trial {trial.number}: {trial.error}")
    print(swept.toml)


def run_trials(spec: SweepSpec, echo: Callable[[str], None]) -> Swept:
    """The stages of a sweep, each in its fresh interpreter, one after the other."""
    from nightshift.cli.local_run import signals_as_ctrl_c
    from nightshift.runner import run_stage

    trials = run_stage("sweep", spec, echo=echo)["trials"]
    concluding = ConcludeSpec(sweep_uri=trials[0]["sweep_uri"])
    try:
        with signals_as_ctrl_c():
            for asked in trials:
                try:
                    run_stage("trial", TrialSpec.model_validate(asked), echo=echo)
                except NightshiftError as error:  # as in Airflow, the others go on
                    echo(f"trial {asked['number']}: {error}")
    except KeyboardInterrupt:
        echo("the sweep ends here: the best of what was tried is told, and its MLflow run is closed")
        with contextlib.suppress(NightshiftError):  # no trial was completed, which it said
            run_stage("conclude", concluding, echo=echo)
        raise
    return Swept.model_validate(run_stage("conclude", concluding, echo=echo))


def table(swept: Swept) -> Table:
    """All trials with their settings, the best one marked."""
    names = list(swept.trials[0].parameters)
    shown = Table("trial", *(name.partition(".")[2] for name in names), "epochs", "accuracy", "state")
    for trial in swept.trials:
        best = trial.number == swept.best
        values = [f"{trial.parameters[name]}" for name in names]
        row = [str(trial.number), *values, str(len(trial.accuracies) or ""), _accuracy(trial)]
        shown.add_row(*row, "best" if best else trial.state, style="bold" if best else None)
    return shown


def _accuracy(trial: Trial) -> str:
    """Of the network that came out, or how far a trial came."""
    reached = trial.accuracies[-1] if trial.accuracies else None
    accuracy = reached if trial.value is None else trial.value
    return "" if accuracy is None else f"{100 * accuracy:.2f} %"


def _through_airflow(name: str, conf: dict[str, Any], console: Console, *, wait: bool) -> Swept | None:
    """Start the sweep, and with `wait` follow it to its end."""
    from nightshift.cli.airflow_api import Airflow
    from nightshift.cli.follow import error, follow_tasks, goes_on

    airflow, dag = Airflow(), f"sweep_{name}"
    run_id = airflow.trigger(dag, conf)
    url = f"{airflow.url}/dags/{dag}/runs/{run_id}"
    console.print(f"sweep {run_id} of {name} started: {url}")
    if not wait:
        print(json.dumps({"pipeline": name, "dag_run_id": run_id, "state": "queued", "airflow_url": url}))
        return None
    with goes_on(f"sweep {run_id} of {name}", url):
        state = follow_tasks(airflow, dag, run_id, console)
    if state == "failed":
        raise NightshiftError(f"sweep {run_id} of {name} failed: {error(airflow, dag, run_id)}")
    return Swept.model_validate(airflow.xcom(dag, run_id, "conclude"))
