"""Removes what Airflow keeps of its past: old runs in its database, and old logs of tasks.

python -m nightshift.stack.janitor, a role of the stack, because only servers may reach the database.
It begins a
while after the start, which needs all cores, and goes on once a day.
"""

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

from nightshift.errors import InputError

KEEP_DAYS: Final = "NIGHTSHIFT_KEEP_DAYS"
LOGS: Final = "AIRFLOW__LOGGING__BASE_LOG_FOLDER"
DEFAULT, LEAST = 90, 7  # days
DELAY: Final = 900.0  # seconds after the start
DAY: Final = 86400.0
NICE: Final = 10  # it never is in a hurry


class Removed(NamedTuple):
    files: int
    size: int  # bytes


def keep_days(environment: Mapping[str, str]) -> int:
    """How many days of Airflow's past are kept. Raises InputError."""
    given = environment.get(KEEP_DAYS) or str(DEFAULT)
    if not given.isdecimal() or int(given) < LEAST:
        raise InputError(f"{KEEP_DAYS} is {given!r}; it must be a whole number of days from {LEAST}")
    return int(given)


def command(before: float) -> list[str]:
    """What removes rows of Airflow's database from before a time, in seconds since 1970."""
    when = datetime.fromtimestamp(before, UTC).isoformat(timespec="seconds")
    options = ("--clean-before-timestamp", when, "--skip-archive", "--error-on-cleanup-failure", "--yes")
    return [sys.executable, "-m", "airflow", "db", "clean", *options]


def clean_logs(folder: Path, before: float) -> Removed:
    """Remove files that were not written to since, and folders that are empty since; follow no links."""
    files = size = 0
    for place, folders, names in os.walk(folder, topdown=False):
        for path in (Path(place, name) for name in names):
            found = path.lstat()
            if found.st_mtime < before:
                path.unlink()
                files, size = files + 1, size + found.st_size
        for path in (Path(place, name) for name in folders):
            # To lose a file is a change to its folder, so a folder goes the next time, when nobody needs it.
            if not path.is_symlink() and path.stat().st_mtime < before and not any(path.iterdir()):
                path.rmdir()
    return Removed(files, size)


def clean(days: int, now: float) -> None:
    """Clean once; says what was removed."""
    before = now - days * DAY
    done = subprocess.run(command(before), check=False)
    ended = "cleaned" if done.returncode == 0 else f"not cleaned (exit {done.returncode})"
    print(f"janitor: Airflow's database is {ended}; what is older than {days} days goes", flush=True)
    if folder := os.environ.get(LOGS):
        removed = clean_logs(Path(folder), before)
        print(f"janitor: {removed.files:,} old logs of {removed.size / 1e6:,.1f} MB are removed", flush=True)


def main() -> None:
    days = keep_days(os.environ)
    os.nice(NICE)
    time.sleep(DELAY)
    while True:
        clean(days, time.time())
        time.sleep(DAY)


if __name__ == "__main__":
    main()
