"""The first night of `tiny` on the stack, and what its processes got: most tests need just one night."""

import contextlib
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest
from rich.console import Console

from nightshift.cli.airflow_api import Airflow
from nightshift.cli.follow import follow
from nightshift.stack import processes

ROOT = Path(__file__).parent.parent
COMMAND = str(Path(sys.executable).with_name("nightshift"))


class Watched(NamedTuple):
    """What was seen of it: its run, its version, and the command lines and variables of processes."""

    run_id: str
    version: str
    lines: dict[psutil.Process, str]
    variables: dict[psutil.Process, str]


def watch(home: Path, seen: Watched, ended: threading.Event) -> None:
    """Look at the stack's processes again and again, since a stage's lives for seconds only."""
    session = processes.load(home)
    assert session is not None
    while not ended.wait(0.2):
        for process in processes.living(session).values():
            if process not in seen.variables:
                with contextlib.suppress(psutil.Error, OSError):
                    seen.variables[process] = "\n".join(process.environ().values())
            with contextlib.suppress(psutil.Error, OSError):
                seen.lines[process] = " ".join(process.cmdline())


@pytest.fixture(scope="session")
def watched(stack: Any) -> Watched:
    """The night, which makes a champion, as a person with an export key starts it."""
    mine = {**os.environ, "NIGHTSHIFT_EXPORT_KEY": stack.planted["export key"]}
    ingest = [COMMAND, "ingest", "--sample", "tiny", "--batch", "watched"]
    subprocess.run(ingest, cwd=ROOT, env=mine, check=True, capture_output=True)
    airflow, ended = Airflow(), threading.Event()
    seen = Watched(airflow.trigger("retrain_tiny", {}), "", {}, {})
    watcher = threading.Thread(target=watch, args=(stack.home, seen, ended))
    watcher.start()
    try:
        result = follow(airflow, "tiny", seen.run_id, Console(quiet=True))
    finally:
        ended.set()
        watcher.join()
    assert result["state"] == "promoted", result
    return seen._replace(version=result["version"])
