"""`nightshift reproduce`: make a registered version again, and say whether the same bytes come out."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nightshift.cli.connection import connect
from nightshift.errors import InputError

if TYPE_CHECKING:
    from nightshift.provenance.reproduce import Reproduction

app = typer.Typer()
SHOWN = 64  # characters of a value in the table


@app.command()
def reproduce(
    name: Annotated[str, typer.Argument(help="Registered model, called like its pipeline.")],
    version: Annotated[str, typer.Option(help="Version that is made again.")],
    data_only: Annotated[
        bool, typer.Option("--data-only", help="Make only its data set again, and train nothing.")
    ] = False,
    keep: Annotated[
        Path | None, typer.Option(help="Empty folder where everything that is made again stays.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Only the comparison as one JSON line.")] = False,
) -> None:
    """Make a registered version again from its recorded inputs and settings, and compare.

    On a CPU with the same code, packages and threads the same bytes come out. Exit code 0: they did; 1: they
    did not; 2: it could not be tried. Nothing is registered.
    """
    connect("tracking")
    connect()
    from nightshift.cli.console import messages
    from nightshift.provenance.reproduce import reproduce as again

    progress = messages(quiet=as_json)
    with _folder(keep) as folder:
        found = again(name, version, f"file://{folder}", data_only=data_only, echo=progress.print)
    if as_json:
        print(found.model_dump_json())
    else:
        _show(found)
    if not found.reproduced:
        raise typer.Exit(1)


@contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    """An empty folder, temporary unless it is named: what lies in it would be found and not made again."""
    if keep is None:
        with tempfile.TemporaryDirectory(prefix="nightshift-reproduce-") as folder:
            yield Path(folder)
        return
    place = keep.expanduser().resolve()
    try:
        place.mkdir(parents=True, exist_ok=True)
        full = any(place.iterdir())
    except OSError as error:
        raise InputError(f"--keep {keep} cannot be used ({error.strerror}); name an empty folder") from error
    if full:
        raise InputError(
            f"--keep {keep} is not empty; name an empty folder, so that everything is made again"
        )
    yield place


def _show(found: "Reproduction") -> None:
    from rich.table import Table

    from nightshift.cli.console import console

    table = Table("", "recorded", "now", "")
    for row in (*found.comparison.results, *found.comparison.conditions):
        table.add_row(row.what, row.recorded[:SHOWN], row.now[:SHOWN], "same" if row.same else "differs")
    console().print(table)
    print(found.sentence)
