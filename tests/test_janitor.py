"""What the janitor removes of Airflow's past, in a database and a folder of logs of the test's own."""

import os
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nightshift.errors import InputError
from nightshift.stack import janitor

NOW = time.time()


def aged(path: Path, days: float, size: int = 5) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(size))
    os.utime(path, (NOW - days * janitor.DAY,) * 2)
    return path


@pytest.mark.parametrize(("given", "days"), [(None, 90), ("", 90), ("7", 7), ("365", 365)])
def test_days_to_keep(given, days):
    assert janitor.keep_days({} if given is None else {janitor.KEEP_DAYS: given}) == days


@pytest.mark.parametrize("given", ["6", "0", "-1", "many", "7.5"])
def test_days_that_are_none_are_a_sentence(given):
    with pytest.raises(
        InputError, match=f"NIGHTSHIFT_KEEP_DAYS is '{given}'; it must be a whole number of days"
    ):
        janitor.keep_days({janitor.KEEP_DAYS: given})


def test_old_logs_go_and_then_their_empty_folders(tmp_path):
    before = NOW - 90 * janitor.DAY
    old = aged(tmp_path / "dag_id=a" / "run_id=1" / "attempt=1.log", 91, size=100)
    young = aged(tmp_path / "dag_id=b" / "attempt=1.log", 89)
    target = aged(tmp_path.parent / f"{tmp_path.name}-other" / "kept.log", 500)
    (tmp_path / "latest").symlink_to(target.parent)
    assert janitor.clean_logs(tmp_path, before) == (1, 100)
    assert young.exists()
    assert target.exists()
    assert old.parent.is_dir()
    for folder in (old.parent, old.parent.parent, tmp_path / "dag_id=b"):
        os.utime(folder, (before - 1, before - 1))
    for _ in range(2):
        assert janitor.clean_logs(tmp_path, before) == (0, 0)
        os.utime(old.parent.parent, (before - 1, before - 1)) if old.parent.parent.exists() else None
    assert {path.name for path in tmp_path.iterdir()} == {"dag_id=b", "latest"}


def test_a_folder_of_logs_that_is_not_there_is_no_error(tmp_path):
    assert janitor.clean_logs(tmp_path / "none", NOW) == (0, 0)


def test_a_pass_cleans_a_real_database_and_the_logs(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path))
    monkeypatch.setenv("AIRFLOW__CORE__LOAD_EXAMPLES", "False")
    monkeypatch.setenv(janitor.LOGS, str(tmp_path / "logs"))
    subprocess.run([sys.executable, "-m", "airflow", "db", "migrate"], check=True, capture_output=True)
    log = aged(tmp_path / "logs" / "old.log", 91)
    with sqlite3.connect(tmp_path / "airflow.db") as database:
        for event, days in (("old", 91), ("young", 89)):
            when = time.strftime("%Y-%m-%d %H:%M:%S.000000", time.gmtime(NOW - days * janitor.DAY))
            database.execute("INSERT INTO log (dttm, event) VALUES (?, ?)", (when, event))
    capfd.readouterr()
    janitor.clean(90, NOW)
    said = capfd.readouterr().out
    assert "janitor: Airflow's database is cleaned; what is older than 90 days goes" in said
    assert "janitor: 1 old logs of 0.0 MB are removed" in said
    assert not log.exists()
    with sqlite3.connect(tmp_path / "airflow.db") as database:
        events = [event for (event,) in database.execute("SELECT event FROM log")]
        tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master")]
    assert "young" in events
    assert "old" not in events
    assert not [name for name in tables if "deleted" in name]  # nothing is kept in an archive
    monkeypatch.setattr(janitor, "command", lambda before: [sys.executable, "-c", "raise SystemExit(3)"])
    janitor.clean(90, NOW)
    assert "janitor: Airflow's database is not cleaned (exit 3)" in capfd.readouterr().out
