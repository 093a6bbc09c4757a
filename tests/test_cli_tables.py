"""Names of strangers are printed as they are, wherever Rich prints them."""

import ast
from pathlib import Path

import pytest
from rich.progress import TextColumn
from rich.table import Table
from typer.testing import CliRunner

from nightshift.cli import app, console, local_run, run

CLI = Path(console.__file__).parent
LINES = ("refused n/img [copy].png: empty", "refused x [/b].png: empty", "kept :cat:.png", "[bold]no[/bold]")


def test_lines_are_printed_as_they_are(capsys):
    for line in LINES:
        console.messages().print(line)
    assert capsys.readouterr().err.splitlines() == list(LINES)


def test_cells_and_titles_are_printed_as_they_are(capsys):
    table = Table(LINES[0], title=LINES[1])
    for line in LINES[2:]:
        table.add_row(line)
    console.console().print(table)
    printed = capsys.readouterr().out
    assert all(line in printed for line in LINES)


def test_the_name_of_a_batch_beside_a_bar_is_no_markup():
    bar = console.bar()
    bar.add_task(LINES[1], total=1)
    column, (task,) = bar.columns[0], bar.tasks
    assert isinstance(column, TextColumn)
    assert str(column.render(task)) == LINES[1]


def test_a_local_night_prints_what_its_stages_say(monkeypatch):
    def night(pipeline, *, force, echo):
        for line in LINES:
            echo(line)
        return {}

    monkeypatch.setattr(local_run, "run_night", night)
    for name in ("connect", "connect_signing"):
        monkeypatch.setattr(run, name, lambda: None)
    done = CliRunner().invoke(app, ["run", "tiny", "--local"])
    assert done.exit_code == 0, done.output
    assert done.stderr.splitlines() == list(LINES)


@pytest.mark.parametrize("path", sorted(CLI.rglob("*.py")), ids=lambda path: path.name)
def test_only_one_module_makes_what_prints(path):
    """Rich takes brackets for markup and `:cat:` for an emoji unless it is told not to, in one place."""
    made = {
        node.func.id
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert path == Path(console.__file__) or not made & {"Console", "Progress", "TextColumn"}
