"""Verbs about data: `nightshift ingest`."""

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from nightshift.config import Pipeline
    from nightshift.data.sources import Batch, Ingested
    from nightshift.data.sources.preview import Survey
    from nightshift.data.sources.samples import Sample

SHOWN_CLASSES = 12  # in one row of the summary
INTERRUPTED = 130  # exit code of a command that Ctrl-C ended

app = typer.Typer()


@app.command()
def ingest(
    path: Annotated[
        str | None,
        typer.Argument(
            help="A folder of class folders, a CSV or Parquet manifest (path,label[,split,group,…]), a zip "
            "or tar archive of these, idx or npz arrays, s3://bucket/prefix, or torchvision://NAME."
        ),
    ] = None,
    pipeline: Annotated[str | None, typer.Option(help="The pipeline that will train on it.")] = None,
    batch: Annotated[
        str | None, typer.Option(help="Name of the batch; by default the folder's name.")
    ] = None,
    sample: Annotated[str | None, typer.Option(help="Instead of a path: 'digits' or 'tiny'.")] = None,
    unlabelled: Annotated[
        bool, typer.Option("--unlabelled", help="Images to predict instead: any files, no labels.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Upload nothing; show what is there and what looks wrong.")
    ] = False,
) -> None:
    """Upload labelled images as a batch for the next night, or images to predict.

    The same source is the same batch: running again uploads only what is new or changed, so an interrupted
    upload is continued by repeating the command. A batch counts as complete when its _READY marker is there,
    which is written last.
    """
    from nightshift.cli.connection import connect, pipelines_folder
    from nightshift.config.pipelines import find_pipeline
    from nightshift.errors import InputError

    kind = _sample(sample)
    name = pipeline or kind
    if (path is None) == (kind is None):
        raise InputError("give either a PATH or --sample digits|tiny; see nightshift ingest --help")
    if name is None and not dry_run:
        raise InputError("--pipeline is missing; it names the pipeline that will train on these images")
    found = find_pipeline(name, pipelines_folder()) if name is not None else None
    if unlabelled and (path is None or name is None or dry_run):
        raise InputError("--unlabelled needs a PATH and --pipeline, and has no --dry-run")
    if path is not None and path.startswith("s3://"):
        connect()
    try:
        with ExitStack() as opened:
            if unlabelled and found is not None:
                _predict(opened, path or "", batch, found)
                return
            batches = [opened.enter_context(each) for each in _batches(path, kind, batch)]
            if dry_run or found is None:
                for each in batches:
                    _show(each)
                return
            connect()

            from nightshift.config.pipelines import source_of

            _print([(each, _upload(each, source_of(found))) for each in batches])
            _print_spellings(batches, found.name)
    except KeyboardInterrupt:
        rest = (
            "nothing was uploaded"
            if dry_run
            else "what is uploaded stays, the same command goes on from there"
        )
        typer.echo(f"nightshift: interrupted; {rest}", err=True)
        raise typer.Exit(INTERRUPTED) from None


def _predict(opened: "ExitStack", path: str, name: str | None, pipeline: "Pipeline") -> None:
    """Upload a batch without labels, and wake the DAG that predicts it where Airflow can be reached."""
    from nightshift.cli.connection import connect
    from nightshift.config.pipelines import unlabelled_source
    from nightshift.data.sources.unlabelled import unlabelled
    from nightshift.errors import NightshiftError

    connect()
    batch = opened.enter_context(unlabelled(path, name))
    result = _upload(batch, unlabelled_source(pipeline))
    _print([(batch, result)])
    try:
        from nightshift.cli.airflow_api import Airflow

        Airflow().happened(f"{pipeline.name}-unlabelled", {"batch": result.batch})
        print(f"predict_{pipeline.name} is told of it")
    except (ImportError, NightshiftError) as error:
        print(f"predict_{pipeline.name} is not told of it and finds it at its next look: {error}")


def _sample(value: str | None) -> "Sample | None":
    from nightshift.data.sources.samples import SAMPLES
    from nightshift.errors import InputError

    if value is None:
        return None
    for known in SAMPLES:
        if value == known:
            return known
    raise InputError(f"--sample must be one of {', '.join(SAMPLES)}, got {value!r}")


def _batches(path: str | None, kind: "Sample | None", batch: str | None) -> "Iterator[Batch]":
    from nightshift.data import sources
    from nightshift.data.sources import samples

    if kind is not None:
        yield from samples.sample(kind, batch)
    else:
        yield sources.find(path or ".", batch)


def _upload(batch: "Batch", source: str) -> "Ingested":
    from nightshift.data.sources import ingest as upload

    with _progress(batch) as advance:
        return upload(batch, source, advance=advance)


def _show(batch: "Batch") -> None:
    """What `ingest` would upload, and what of it looks wrong."""
    from nightshift.data.sources.preview import survey

    with _progress(batch) as advance:
        found = survey(batch, advance=advance)
    _print_classes(batch, found)
    _print_files(found)
    _print_suspects(found)
    _print_asides(batch)
    print(f"batch {batch.name}: dry run, nothing was uploaded")


@contextmanager
def _progress(batch: "Batch") -> "Iterator[Callable[[int], None]]":
    """A bar for the files of a batch on a terminal; yields what moves it on."""
    from nightshift.cli.console import bar

    with bar() as progress:
        task = progress.add_task(f"batch {batch.name}", total=len(batch.items))
        yield lambda files: progress.advance(task, files)


def _print(results: "list[tuple[Batch, Ingested]]") -> None:
    from rich.filesize import decimal
    from rich.table import Table

    from nightshift.cli.console import console

    table = Table("batch", "classes")
    for heading in ("images", "size", "uploaded", "already there"):
        table.add_column(heading, justify="right")
    for _, result in results:
        shown = [f"{name or 'no label'} {count}" for name, count in result.classes.items()][:SHOWN_CLASSES]
        rest = len(result.classes) - len(shown)
        classes = ", ".join([*shown, f"… {rest} more"] if rest else shown)
        counts = (str(sum(result.classes.values())), decimal(result.bytes))
        table.add_row(result.batch, classes, *counts, str(result.uploaded), str(result.skipped))
    console().print(table)
    for batch, result in results:
        _print_asides(batch)
        if result.others:
            print(
                f"batch {result.batch}: {result.others} more images are there that this source does not have"
            )
        print(f"batch {result.batch} is ready in {result.uri}")


def _print_spellings(batches: "list[Batch]", pipeline: str) -> None:
    """Say which class a night will refuse beside one that the pipeline has learnt already."""
    from nightshift.data import labels
    from nightshift.tracking import ledger

    last = ledger.latest(pipeline, waiting=True)
    learnt = ledger.dataset(last.dataset) if last else None
    for batch in batches:
        if found := labels.look_alike({*(learnt.classes if learnt else ()), *batch.classes}):
            print(
                f"batch {batch.name}: classes {found[0]!r} and {found[1]!r} are two for a night, which "
                "refuses what differs only in case or in zeros before a number; one of them is in the data "
                f"of {pipeline}"
            )


def _print_classes(batch: "Batch", found: "Survey") -> None:
    """One row a class, the largest first; columns for the splits only where the source has its own."""
    from rich.filesize import decimal
    from rich.table import Table

    from nightshift.cli.console import console
    from nightshift.records import SPLITS

    splits = [split for split in SPLITS if any(split in each.splits for each in found.classes.values())]
    table = Table("class", title=f"batch {batch.name}", title_justify="left")
    for heading in ("images", "share", *splits, "size"):
        table.add_column(heading, justify="right")
    rows = sorted(found.classes.items(), key=lambda row: -row[1].files)
    for name, each in rows:
        parts = [str(each.splits.get(split, 0)) for split in splits]
        share = f"{each.files / found.files:.1%}"
        table.add_row(name, str(each.files), share, *parts, decimal(each.bytes))
    if len(rows) > 1:
        totals = [str(sum(each.splits.get(split, 0) for _, each in rows)) for split in splits]
        table.add_section()
        table.add_row(f"all {len(rows)}", str(found.files), "", *totals, decimal(found.bytes))
    console().print(table)


def _print_files(found: "Survey") -> None:
    from rich.table import Table

    from nightshift.cli.console import console

    table = Table("format by content", title="files", title_justify="left")
    table.add_column("files", justify="right")
    for name, count in found.formats.items():
        table.add_row(name, str(count))
    console().print(table)
    sizes = Table("percentile", title="sizes", title_justify="left")
    for percent in found.bytes_at:
        sizes.add_column(
            {0: "smallest", 50: "median", 100: "largest"}.get(percent, f"{percent} %"), justify="right"
        )
    sizes.add_row("bytes", *(f"{value:,}" for value in found.bytes_at.values()))
    if found.pixels_at:
        sizes.add_row("pixels", *(f"{value:,}" for value in found.pixels_at.values()))
    console().print(sizes)


def _print_suspects(found: "Survey") -> None:
    from rich.table import Table

    from nightshift.cli.console import console

    if not found.suspects:
        print("no suspicious files")
        return
    table = Table("suspicious", "files", "the first of them", title="suspicious files", title_justify="left")
    for trouble, each in found.suspects.items():
        table.add_row(trouble, str(each.count), "\n".join(each.examples))
    console().print(table)


def _print_asides(batch: "Batch") -> None:
    for note in batch.notes:
        print(f"batch {batch.name}: {note}")
    for reason, count in batch.ignored.items():
        print(f"batch {batch.name}: {count} left out: {reason}")
