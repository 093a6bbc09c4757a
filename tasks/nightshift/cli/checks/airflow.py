"""Airflow: its heartbeats, its version, the pools that Nightshift needs, and files that make no DAG."""

import json
import os
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from nightshift.cli.checks import Finding, timed
from nightshift.config.pipelines import load_pipeline, pipeline_files
from nightshift.errors import InputError

KINDS: Final = ("retrain", "promote", "predict", "sweep")  # a DAG of each for every pipeline
OVERDUE: Final = 600.0  # seconds; Airflow reads each file twice a minute, and may break it off after three
ADVICE: Final = "see nightshift logs dag-processor"
POOLS = ("preprocess", "train", "promotion")


def airflow() -> Iterator[Finding]:
    from nightshift.stack import http_client

    address = os.environ["NIGHTSHIFT_AIRFLOW_URL"].rstrip("/")
    context = http_client.trust(os.environ, ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"))
    asked, took = timed(lambda: http_client.get(f"{address}/api/v2/monitor/health", context))
    health = json.loads(asked.body) if asked.status == 200 else None
    if not isinstance(health, dict) or not all(isinstance(part, dict) for part in health.values()):
        raise ValueError(f"{address} is no Airflow API server of version 3")
    sick = [name for name, part in health.items() if part.get("status") not in ("healthy", None)]
    if sick:
        yield Finding(False, f"Airflow at {address}: {', '.join(sick)} not healthy; see nightshift logs")
    else:
        answer = http_client.get(f"{address}/api/v2/version", context)
        version = f"{json.loads(answer.body)['version']} " if answer.status == 200 else ""
        yield Finding(True, f"Airflow {version}at {address} is healthy, it answers in {took}")
    if os.environ.get("NIGHTSHIFT_AIRFLOW_PASSWORD"):
        yield from _inside()
    else:
        yield Finding(None, "Airflow's pools are not looked at: NIGHTSHIFT_AIRFLOW_PASSWORD is not set")


def _inside() -> Iterator[Finding]:
    from nightshift.cli.airflow_api import Airflow
    from nightshift.stack import http_client

    airflow = Airflow(timeout=http_client.TIMEOUT)
    slots = airflow.pools()
    missing = [name for name in POOLS if not slots.get(name)]
    for name in missing:
        yield Finding(False, f"Airflow has no pool {name} with slots; make it in the UI under Admin, Pools")
    if slots.get("promotion", 1) > 1:
        yield Finding(
            False,
            f"Airflow's pool promotion has {slots['promotion']} slots; it must have one, so that aliases "
            "move one after the other",
        )
    if not missing:
        yield Finding(True, f"Airflow's pools: {', '.join(f'{name} {slots[name]}' for name in POOLS)}")
    for file, errors in airflow.import_errors().items():
        for error in errors.splitlines():
            yield Finding(False, f"Airflow cannot read {file}: {error}")
    yield from _dags(airflow.dags())


def _dags(known: dict[str, dict[str, Any]]) -> Iterator[Finding]:
    """Whether Airflow has read the DAGs of the pipelines that are here, and reads them again and again."""
    from nightshift.cli.connection import pipelines_folder

    names = sorted(path.stem for path in pipeline_files(pipelines_folder()) if _valid(path))
    wanted = [f"{kind}_{name}" for name in names for kind in KINDS]
    new = [dag for dag in wanted if dag not in known]
    stale = [dag for dag in wanted if dag in known and known[dag]["is_stale"]]
    late = [dag for dag in wanted if dag in known and dag not in stale and _age(known[dag]) > OVERDUE]
    paused = [dag for dag in wanted if dag in known and known[dag]["is_paused"]]
    if new:
        yield Finding(
            False, f"Airflow has not read {_few(new)}: a new file takes half a minute, then {ADVICE}"
        )
    if stale:
        yield Finding(
            False, f"Airflow does not find {_few(stale)} any more where it read them once; {ADVICE}"
        )
    if late:
        age = max(_age(known[dag]) for dag in late) / 60
        yield Finding(False, f"Airflow has not read {_few(late)} again for {age:.0f} minutes; {ADVICE}")
    if paused:
        yield Finding(None, f"nothing starts {_few(paused)}, which somebody paused in Airflow")
    if wanted and not (new or stale or late):
        yield Finding(True, f"Airflow reads all {len(wanted)} DAGs of {len(names)} pipelines")


def _valid(path: Path) -> bool:
    """Whether the file is a pipeline; what is wrong with others is said where files are looked at."""
    try:
        return bool(load_pipeline(path))
    except InputError:
        return False


def _age(dag: dict[str, Any]) -> float:
    """Seconds since Airflow read it."""
    read = dag["last_parsed_time"]
    return time.time() - datetime.fromisoformat(read).timestamp() if read else OVERDUE + 1


def _few(dags: list[str]) -> str:
    return ", ".join(dags[:3]) + (f" and {len(dags) - 3:,} more DAGs" if len(dags) > 3 else "")
