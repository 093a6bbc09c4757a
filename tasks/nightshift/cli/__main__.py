"""`python -m nightshift.cli` is `nightshift` where the package is importable and not installed."""

from nightshift.cli import app

app()
