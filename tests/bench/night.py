"""Measure set-up, start, nights and memory as a new user meets them, and write JSON lines to bench.json.

python tests/bench/night.py      (that is what `make bench` runs; about 15 minutes, nothing else may run)

Everything happens in a fresh clone in an empty folder, with a stack of its own on free ports.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
OUTPUT = ROOT / "bench.json"
REPEATS = int(os.environ.get("NIGHTSHIFT_BENCH_REPEATS", "3"))


def record(
    name: str, value: float, unit: str, peer: str | None = None, peer_value: float | None = None
) -> None:
    """Append one line; `ratio` is value / peer_value."""
    ratio = round(value / peer_value, 3) if peer_value else None
    row = {"name": name, "value": round(value, 3), "unit": unit, "peer": peer}
    row |= {"peer_value": None if peer_value is None else round(peer_value, 3), "ratio": ratio}
    with OUTPUT.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
    print(json.dumps(row), flush=True)


def timed(command: list[str], folder: Path) -> tuple[float, str]:
    """Wall seconds and stdout of a command that must succeed."""
    started = time.monotonic()
    done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
    return time.monotonic() - started, done.stdout


def environment() -> dict[str, str]:
    """This environment without a stack or a virtual environment of the caller's."""
    foreign = ("NIGHTSHIFT_", "AIRFLOW_", "MLFLOW_", "AWS_", "VIRTUAL_ENV")
    return {key: value for key, value in os.environ.items() if not key.startswith(foreign)}


@contextmanager
def fresh_clone() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="nightshift-bench-", dir="/var/tmp") as folder:
        clone = Path(folder, "nightshift")
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        try:
            yield clone
        finally:
            subprocess.run(["make", "down"], cwd=clone, env=environment(), check=False, capture_output=True)


def night(clone: Path, *arguments: str) -> tuple[float, dict[str, Any]]:
    seconds, out = timed([".venv/bin/nightshift", "run", "digits", *arguments], clone)
    return seconds, json.loads(out.splitlines()[-1])


def first_use(clone: Path) -> None:
    """The steps of `make demo`, each timed."""
    install, _ = timed(["make", "setup"], clone)
    up, _ = timed([".venv/bin/nightshift", "up", "--detach"], clone)
    ingest, _ = timed([".venv/bin/nightshift", "ingest", "--sample", "digits"], clone)
    seconds, result = night(clone, "--wait")
    record("demo: install", install, "s")
    record("demo: first stack start", up, "s")
    record("demo: ingest of 1,797 digits", ingest, "s")
    record("demo: digits night", seconds, "s")
    record("demo: fresh clone to JSON line", install + up + ingest + seconds, "s")
    for stage, value in result["seconds"].items():
        record(f"digits night: {stage}", value, "s")
    for metric in ("accuracy", "latency_ms_p50", "images_per_second", "memory_mb", "size"):
        record(f"digits champion ({result['recipe']}): {metric}", result["metrics"][metric], metric)


def nights(clone: Path) -> None:
    """No-op nights, and what Airflow adds to the same stages run one after the other."""
    idle = [night(clone, "--wait")[0] for _ in range(REPEATS)]
    record("no-op night", statistics.median(idle), "s")
    settings = ("--force", "--set", "train.epochs=2")
    through, bare = [], []
    for _ in range(REPEATS):  # in turn, so that a noisy machine is fair to both
        through.append(night(clone, "--wait", *settings)[0])
        bare.append(night(clone, "--local", *settings)[0])
    airflow, local = statistics.median(through), statistics.median(bare)
    record("digits night of 2 epochs through Airflow", airflow, "s", "the same stages in one script", local)
    record("overhead of Airflow on a night", airflow - local, "s")


def parsing(clone: Path) -> None:
    """Seconds to import Airflow's SDK and, after it in the same process, all DAG files."""
    code = (
        "import time; t = time.perf_counter(); import airflow.sdk; u = time.perf_counter(); "
        "import retrain, promote, sweep; print(u - t, time.perf_counter() - u)"
    )
    rows = []
    for _ in range(5):
        with tempfile.TemporaryDirectory() as home:
            variables = {**environment(), "AIRFLOW_HOME": home, "PYTHONPATH": "dags"}
            command = [".venv/bin/python", "-c", code]
            done = subprocess.run(
                command, cwd=clone, env=variables, capture_output=True, text=True, check=True
            )
            rows.append([float(value) for value in done.stdout.split()[-2:]])
    sdk, dags = (statistics.median(values) for values in zip(*rows, strict=True))
    record("parsing all DAG files, beyond airflow.sdk", dags, "s", "import airflow.sdk", sdk)


def restart(clone: Path) -> None:
    _, text = timed([".venv/bin/nightshift", "status", "--json"], clone)
    memory = sum(role["memory"] or 0 for role in json.loads(text))
    record("memory of the idle stack", memory / 2**20, "MiB")
    down, up = [], []
    for _ in range(REPEATS):
        down.append(timed(["make", "down"], clone)[0])
        up.append(timed([".venv/bin/nightshift", "up", "--detach"], clone)[0])
    record("later stack start", statistics.median(up), "s")
    record("stack stop", statistics.median(down), "s")


def main() -> int:
    OUTPUT.unlink(missing_ok=True)
    with fresh_clone() as clone:
        first_use(clone)
        nights(clone)
        restart(clone)
        timed(["make", "down"], clone)  # an idle stack is not idle enough
        parsing(clone)
    return 0


if __name__ == "__main__":
    sys.exit(main())
