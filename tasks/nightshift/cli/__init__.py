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
    data,
    doctor,
    metrics,
    nights,
    predict,
    promotion,
    refused,
    reproduce,
    serve,
    similar,
    stack,
    sweep,
    trust,
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
    *(stack, data, refused, nights, promotion, sweep),
    *(predict, similar, serve, reproduce, trust, upkeep, backup, metrics, doctor),
)
for verbs in VERBS:
    app.add_typer(verbs.app)
