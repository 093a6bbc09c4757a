"""`nightshift upkeep`: what nothing needs any more, and its deletion."""

from typing import TYPE_CHECKING, Annotated, Final

import typer

from nightshift.cli.connection import connect, decided, pipelines_folder
from nightshift.errors import InputError

if TYPE_CHECKING:
    from nightshift.workflows.upkeep.upkeep import UpkeepResult

app = typer.Typer()
WORK: Final = ("retrain_", "sweep_", "predict_")  # DAGs that must not run meanwhile


@app.command()
def upkeep(
    delete: Annotated[bool, typer.Option("--delete", help="Delete it; otherwise it is only listed.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object, with where the list is.")] = False,
) -> None:
    """Show what of the store and of old versions nothing needs any more, as dags/upkeep.toml says.

    What registered versions lack is told too. The DAG `upkeep` does the same every week.
    """
    connect()
    connect("tracking")
    import contextlib
    import sys

    from nightshift.config.toml import load
    from nightshift.config.upkeep import Retention, Upkeep
    from nightshift.records.specs import UpkeepSpec
    from nightshift.workflows.upkeep.upkeep import upkeep as run

    asked = load(pipelines_folder().parent / "upkeep.toml", Upkeep)
    settings = Retention.model_validate(asked.model_dump(include=set(Retention.model_fields)))
    with contextlib.redirect_stdout(sys.stderr):  # a line for each thing
        found = run(UpkeepSpec(action="look", settings=settings, named=_pipelines()))
        if delete:
            _check_idle()
            found = run(UpkeepSpec(action="delete", list_uri=found.list_uri))
    if as_json:
        print(found.model_dump_json())
    else:
        _show(found, delete)


def _pipelines() -> tuple[str, ...]:
    """All pipelines as JSON, since they may name weights. Raises InputError for one that cannot be read."""
    from nightshift.config.pipelines import load_pipeline, pipeline_files

    return tuple(load_pipeline(path).model_dump_json() for path in pipeline_files(pipelines_folder()))


def _check_idle() -> None:
    """Refuse while Airflow runs something that could need what is deleted."""
    if not decided("airflow"):
        return
    from nightshift.cli.airflow_api import Airflow

    if busy := sorted(dag for dag in Airflow().running() if dag.startswith(WORK)):
        raise InputError(f"nothing is deleted while {', '.join(busy)} runs; wait until it has ended")


def _show(found: "UpkeepResult", deleted: bool) -> None:
    from rich.table import Table

    from nightshift.cli.console import console

    table = Table("kind")
    for heading in ("may go", "MB", "stays", "MB"):
        table.add_column(heading, justify="right")
    for kind, tally in sorted(found.tallies.items()):
        sizes = (f"{tally.doomed_size / 1e6:,.1f}", f"{tally.kept_size / 1e6:,.1f}")
        table.add_row(kind, f"{tally.doomed:,}", sizes[0], f"{tally.kept:,}", sizes[1])
    console().print(table)
    for sentence in (*found.findings, *found.remarks):
        print(sentence)
    if deleted:
        print(f"{found.deleted:,} of {found.objects:,} things are deleted, {found.spared:,} stay")
    else:
        print(f"the list with reasons is {found.list_uri}; nothing was deleted, which --delete does")
