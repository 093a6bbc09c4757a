"""Verbs about data: `nightshift ingest`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from tasks.samples import Sample
    from tasks.sources import Batch, Ingested

SHOWN_CLASSES = 12  # in one row of the summary

app = typer.Typer()


@app.command()
def ingest(
    path: Annotated[
        Path | None,
        typer.Argument(help="A folder of class folders, or a CSV manifest: path,label[,split,group]."),
    ] = None,
    pipeline: Annotated[str | None, typer.Option(help="The pipeline that will train on it.")] = None,
    batch: Annotated[
        str | None, typer.Option(help="Name of the batch; by default the folder's name.")
    ] = None,
    sample: Annotated[str | None, typer.Option(help="Instead of a path: 'digits' or 'tiny'.")] = None,
) -> None:
    """Upload labelled images as a batch for the next night.

    The same folder is the same batch: running again uploads only what is new or changed, so an interrupted
    upload is continued by repeating the command. A batch counts as complete when its _READY marker is there,
    which is written last.
    """
    from tasks.cli.connection import connect, pipelines_folder
    from tasks.errors import InputError
    from tasks.pipelines import find_pipeline

    kind = _sample(sample)
    name = pipeline or kind
    if (path is None) == (kind is None):
        raise InputError("give either a PATH or --sample digits|tiny; see nightshift ingest --help")
    if name is None:
        raise InputError("--pipeline is missing; it names the pipeline that will train on these images")
    found = find_pipeline(name, pipelines_folder())
    batches = _batches(path, kind, batch)
    connect()

    from tasks.plan import source_of

    _print([_upload(each, source_of(found)) for each in batches])


def _sample(value: str | None) -> "Sample | None":
    from tasks.errors import InputError
    from tasks.samples import SAMPLES

    if value is None:
        return None
    for known in SAMPLES:
        if value == known:
            return known
    raise InputError(f"--sample must be one of {', '.join(SAMPLES)}, got {value!r}")


def _batches(path: Path | None, kind: "Sample | None", batch: str | None) -> "list[Batch]":
    from tasks import samples, sources

    if kind is not None:
        return samples.sample(kind, batch)
    return [sources.find(path or Path(), batch)]


def _upload(batch: "Batch", source: str) -> "Ingested":
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from tasks.sources import ingest as upload

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        bar = progress.add_task(f"batch {batch.name}", total=len(batch.items))
        return upload(batch, source, advance=lambda files: progress.advance(bar, files))


def _print(results: "list[Ingested]") -> None:
    from rich.filesize import decimal
    from rich.table import Table

    from tasks.cli.tables import console

    table = Table("batch", "classes")
    for heading in ("images", "size", "uploaded", "already there"):
        table.add_column(heading, justify="right")
    for result in results:
        shown = [f"{name} {count}" for name, count in result.classes.items()][:SHOWN_CLASSES]
        rest = len(result.classes) - len(shown)
        classes = ", ".join([*shown, f"… {rest} more"] if rest else shown)
        counts = (str(sum(result.classes.values())), decimal(result.bytes))
        table.add_row(result.batch, classes, *counts, str(result.uploaded), str(result.skipped))
    console().print(table)
    for result in results:
        for reason, count in result.ignored.items():
            print(f"batch {result.batch}: {count} left out: {reason}")
        if result.others:
            print(
                f"batch {result.batch}: {result.others} more images are there that this source does not have"
            )
        print(f"batch {result.batch} is ready in {result.uri}")
