"""`python -m tasks.cli` is `nightshift` where the package is importable and not installed."""

from tasks.cli import app

app()
