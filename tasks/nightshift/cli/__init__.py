"""The `nightshift` command: what the stack, the nights, the data and the models offer as verbs.

Every verb imports what it needs when it runs, so that `nightshift --help` answers at once.
"""

import os
import sys
from typing import Any

import typer
from typer.core import TyperGroup

from nightshift.cli import (
    backup,
    doctor,
    ingest,
    metrics,
    predict,
    promote,
    quarantine,
    reproduce,
    run,
    security,
    serve,
    similar,
    stack,
    sweep,
    upkeep,
)
from nightshift.errors import NightshiftError


class Verbs(TyperGroup):
    """Says what went wrong in one sentence; NIGHTSHIFT_DEBUG=1 shows where."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except NightshiftError as error:
            if os.environ.get("NIGHTSHIFT_DEBUG") == "1":
                raise
            print(f"nightshift: {error}", file=sys.stderr)
            raise typer.Exit(2) from error


app = typer.Typer(
    cls=Verbs,
    help="Retrains image classifiers every night, and promotes the better, smaller, faster model.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
VERBS = (
    *(stack, ingest, quarantine, run, promote, sweep),
    *(predict, similar, serve, reproduce, security, upkeep, backup, metrics, doctor),
)
for verbs in VERBS:
    app.add_typer(verbs.app)
