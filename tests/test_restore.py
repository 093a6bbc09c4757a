"""What is refused before a restore touches anything, and what a failed one leaves."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_backup import KEY, folder, keep, put, run, small
from test_storage import s3, s3_server

from nightshift.security import encryption
from nightshift.stack import backup, folder_version, lifecycle, supervisor
from nightshift.stack.backup import Manifest

# Fixtures: a place for stacks, a stack that was never started, and a real S3 server.
__all__ = ["folder", "s3", "s3_server", "small"]


def contents(home: Path) -> dict[str, bytes]:
    """What a restore brings, by its place in the stack's folder."""
    places = ("s3", "keys", "secrets.json", "ports.json", "version")
    found = [path for place in places for path in (home / place, *(home / place).rglob("*"))]
    return {path.relative_to(home).as_posix(): path.read_bytes() for path in found if path.is_file()}


@pytest.fixture
def kept(small, folder) -> Path:
    """A backup of the small stack, with all that it has."""
    return keep(folder / "kept", "--all")


def changed(place: Path, change: Callable[[dict[str, Any]], object], key: str = KEY) -> None:
    """A manifest that says something else, with a seal that is right."""
    content = json.loads((place / backup.MANIFEST).read_text())
    change(content)
    made = Manifest.model_validate(content).sealed(bytes.fromhex(key))
    (place / backup.MANIFEST).write_text(made.model_dump_json())


def test_everything_comes_back_as_it_was(kept, small):
    before = contents(small)
    shutil.rmtree(small)
    run("restore", str(kept))
    assert contents(small) == before
    assert len(before) == 9
    assert (small / "secrets.json").stat().st_mode & 0o077 == 0
    assert (small / "keys").stat().st_mode & 0o077 == 0


def test_another_s3_server_keeps_it_whatever_the_keys_are(small, s3):
    put(small, "incoming/p/b/cat/ü % ?#\t.png", b"odd")
    before = contents(small)
    uri = json.loads(run("backup", f"{s3}/nights/", "--all", "--json"))["uri"]
    assert uri.startswith(f"{s3}/nights/20")
    shutil.rmtree(small)
    run("restore", uri)
    assert contents(small) == before


def test_a_backup_of_older_versions_is_taken_over(kept, small):
    changed(kept, lambda made: made["state"].update(format=0, postgresql="17", airflow="3.2.0"))
    shutil.rmtree(small)
    run("restore", str(kept))
    assert folder_version.read(small) == folder_version.installed()


def test_a_stack_that_is_there_is_put_aside_only_when_that_is_asked_for(kept, small, folder):
    put(small, "ledger/p/2.json", b"later")
    now = contents(small)
    assert "is not empty: set NIGHTSHIFT_HOME to another folder" in run("restore", str(kept), code=2)
    assert contents(small) == now
    assert "it is not needed" in run("restore", str(kept), "--force")
    assert contents(small).keys() == now.keys() - {"s3/nightshift/ledger/p/2.json"}
    (aside,) = folder.glob("stack.before-*")
    assert contents(aside) == now


@pytest.mark.parametrize(
    ("break_it", "sentence"),
    [
        (lambda place: (place / "manifest.json").unlink(), "is not a backup that was made to its end"),
        (lambda place: (place / "manifest.json").write_text("{"), "is no manifest of a backup"),
        (lambda place: next((place / "objects").iterdir()).write_bytes(b"x"), "is not what was kept"),
        (lambda place: next((place / "objects").iterdir()).unlink(), "does not exist"),
        (lambda place: (place / "private.sealed").write_bytes(b"x"), "is not what was kept"),
        (lambda place: changed(place, lambda made: made.update(at="then"), "00" * 32), "with another key"),
        (lambda place: changed(place, lambda made: made.update(format=2)), "reads formats up to 1: update"),
        (lambda place: changed(place, lambda made: made["state"].update(format=9)), "has format 9, this"),
        (
            lambda place: changed(place, lambda made: made["state"].update(mlflow="9.0")),
            "is of MLflow 9.0, and",
        ),
        (
            lambda place: changed(place, lambda made: made["objects"][0].update(name="../../x")),
            "names an object '../../x' that no bucket can have",
        ),
    ],
)
def test_what_is_not_whole_or_not_for_here_is_refused_and_nothing_is_touched(
    kept, small, folder, break_it, sentence
):
    before = contents(small)
    break_it(kept)
    assert sentence in run("restore", str(kept), "--force", code=2)
    assert contents(small) == before
    assert {path.name for path in folder.iterdir()} == {"dags", "kept", "stack"}


def test_another_key_opens_nothing(kept, small, monkeypatch):
    monkeypatch.setenv(encryption.EXPORT_KEY, "11" * 32)
    assert "was made with another key" in run("restore", str(kept), "--force", code=2)


def test_the_folder_above_says_which_backups_are_whole(kept, folder):
    (folder / "kept" / "2020-01-01T000000Z" / "objects").mkdir(parents=True)
    said = run("restore", str(folder / "kept"), code=2)
    assert f"whole ones are {kept.name} below it: name one" in said


def test_a_running_stack_is_not_replaced(kept, small):
    lifecycle.up(small, only=["valkey"])
    assert "runs: run `nightshift down` first" in run("restore", str(kept), "--force", code=2)


def test_what_was_there_comes_back_when_the_databases_cannot_be_filled(folder):
    home = folder / "stack"
    lifecycle.up(home, only=["postgres"], random_ports=True)
    lifecycle.down(home)
    place = keep(folder / "kept")
    assert supervisor.connect(home) is None  # it was started for the backup alone
    put(home, "ledger/p/later.json", b"later")
    before = contents(home)
    (place / "airflow.dump").write_bytes(b"no dump")
    changed(place, lambda made: made["files"][0].update(sha256=hashlib.sha256(b"no dump").hexdigest()))
    said = run("restore", str(place), "--force", code=2)
    assert "pg_restore of the database airflow failed with exit status 1" in said
    assert "does not appear to be a valid archive" in said
    assert contents(home) == before
    assert {path.name for path in folder.iterdir()} == {"dags", "kept", "stack"}
    lifecycle.up(home, only=["postgres"])
    assert lifecycle.status(home)[0].healthy
