"""`nightshift quarantine`: the files that did not become images, why, and what can be seen of them."""

import sys
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

SHOWN = 200  # files in the table; --json has all of them
app = typer.Typer()


@app.command()
def quarantine(
    name: Annotated[str, typer.Argument(help="Pipeline, one of dags/pipelines/*.toml.")],
    sheet: Annotated[
        Path | None, typer.Option(help="Write a contact sheet (PNG) of what can be seen of the files.")
    ] = None,
    unlabelled: Annotated[
        bool, typer.Option("--unlabelled", help="Those of the batches that were predicted instead.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per file, all of them.")] = False,
) -> None:
    """Show the refused files of the last data set, batch by batch, each with its reason."""
    from rich.table import Table

    from nightshift.cli.connection import connect, pipelines_folder
    from nightshift.cli.console import console
    from nightshift.config.pipelines import find_pipeline
    from nightshift.data import quarantine as refused

    found = find_pipeline(name, pipelines_folder())
    connect()
    folder = refused.unlabelled(name) if unlabelled else name
    refusals = [refusal for batch in refused.read(folder).values() for refusal in batch]
    if as_json:
        for refusal in refusals:
            print(refusal.model_dump_json())
    elif refusals:
        table = Table("file", "reason", "detail")
        for refusal in refusals[:SHOWN]:
            table.add_row(repr(refusal.key)[1:-1], refusal.reason, refusal.detail)
        console().print(table)
        counts = Counter(refusal.reason for refusal in refusals).most_common()
        print(f"{len(refusals):,} refused: {', '.join(f'{count:,} {reason}' for reason, count in counts)}")
    else:
        print(f"nothing of {name} is in quarantine")
    if sheet is not None and refusals:
        from nightshift.config.pipelines import source_of, unlabelled_source
        from nightshift.data.contact_sheet import Picture, contact_sheet

        source = unlabelled_source(found) if unlabelled else source_of(found)
        pictures = [Picture(f"{source}/{refusal.key}", refusal.reason) for refusal in refusals]
        picture, seen = contact_sheet(pictures)
        sheet.write_bytes(picture)
        print(f"{seen:,} of {len(refusals):,} files can be seen in {sheet}", file=sys.stderr)
