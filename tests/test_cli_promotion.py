"""`nightshift promote`, `rollback`, `audit` and `history`, through the DAG that moves the alias."""

import json
from pathlib import Path

import pytest
from promotions import challenger, champion
from test_ledger import decision
from typer.testing import CliRunner
from waiting import wait_for

from nightshift.cli import app
from nightshift.cli.airflow_api import Airflow
from nightshift.tracking import ledger, registry


def command(*arguments: str):
    return CliRunner().invoke(app, arguments, env={"COLUMNS": "200"})


def test_versions_are_promoted_rolled_back_and_audited_from_the_command_line(stack):
    first, second = challenger("handmade", 1), challenger("handmade", 2)
    for version in (first, second):
        done = command("promote", "handmade", "--version", version, "--wait")
        assert done.exit_code == 0, done.output
        assert f"version {version} is the champion" in done.output
    again = command("promote", "handmade", "--version", second, "--wait")
    assert f"version {second} is the champion already" in again.output
    done = command("rollback", "handmade", "--reason", "too slow", "--wait")
    assert f"version {first} is the champion instead of version {second}" in done.output
    assert champion("handmade") == first
    registry.set_alias("handmade", "champion", second)
    assert "is accepted" in command("audit", "handmade", "--wait").output
    rows = [json.loads(line) for line in command("history", "handmade", "--json").stdout.splitlines()]
    assert [(row["kind"], row["version"]) for row in rows] == [
        ("promoted", first),
        ("promoted", second),
        ("rolled-back", first),
        ("adopted", second),
    ]
    assert (rows[2]["by"], rows[2]["reasons"]) == ("admin", ["too slow"])
    missing = command("rollback", "handmade", "--to", "77", "--wait")
    assert missing.exit_code == 2
    assert "77" in missing.output


def test_two_promotions_started_together_move_the_alias_once(stack):
    version, airflow = challenger("handmade", 3), Airflow()
    runs = [airflow.trigger("promote_handmade", {"version": version}) for _ in range(2)]
    wait_for(
        lambda: {airflow.run_state("promote_handmade", run) for run in runs} == {"success"},
        "both promotions to succeed",
        120,
    )
    assert champion("handmade") == version
    assert [entry.kind for entry in ledger.history("handmade") if entry.version == version] == ["promoted"]
    moved = f"handmade: version {version} is the champion instead"
    assert sum(text.startswith(moved) for text in stack.hook.texts) == 1


@pytest.fixture
def pets(tmp_path: Path, ml_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipeline with a store of its own."""
    (tmp_path / "dags" / "pipelines").mkdir(parents=True)
    (tmp_path / "dags" / "pipelines" / "pets.toml").write_text("")
    monkeypatch.setenv("NIGHTSHIFT_DAGS", str(tmp_path / "dags"))


@pytest.mark.usefixtures("pets")
def test_history_is_a_table_of_all_decisions():
    assert "nothing was decided about pets yet" in command("history", "pets").output
    made = decision("refused", at="2026-01-02T03:04:05.000Z").model_copy(
        update={"reasons": ("[red]too slow[/red]",), "by": "ada"}
    )
    ledger.append(made)
    shown = command("history", "pets").output
    for part in ("2026-01-02 03:04:05", "refused", "ada", made.sha256[:12], "[red]too slow[/red]"):
        assert part in shown


@pytest.mark.usefixtures("pets")
def test_an_unknown_pipeline_is_said():
    done = command("history", "cats")
    assert done.exit_code == 2
    assert "pipeline 'cats' is unknown" in done.output
