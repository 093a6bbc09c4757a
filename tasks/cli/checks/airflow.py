"""Airflow: its heartbeats, its version, the pools that Nightshift needs, and files that make no DAG."""

import json
import os
from collections.abc import Iterator

from tasks.cli.checks import Finding, timed

POOLS = ("preprocess", "train", "promotion")


def airflow() -> Iterator[Finding]:
    from tasks.stack import web

    address = os.environ["NIGHTSHIFT_AIRFLOW_URL"].rstrip("/")
    context = web.trust(os.environ, ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"))
    asked, took = timed(lambda: web.get(f"{address}/api/v2/monitor/health", context))
    health = json.loads(asked.body) if asked.status == 200 else None
    if not isinstance(health, dict) or not all(isinstance(part, dict) for part in health.values()):
        raise ValueError(f"{address} is no Airflow API server of version 3")
    sick = [name for name, part in health.items() if part.get("status") not in ("healthy", None)]
    if sick:
        yield Finding(False, f"Airflow at {address}: {', '.join(sick)} not healthy; see nightshift logs")
    else:
        answer = web.get(f"{address}/api/v2/version", context)
        version = f"{json.loads(answer.body)['version']} " if answer.status == 200 else ""
        yield Finding(True, f"Airflow {version}at {address} is healthy, it answers in {took}")
    if os.environ.get("NIGHTSHIFT_AIRFLOW_PASSWORD"):
        yield from _inside()
    else:
        yield Finding(None, "Airflow's pools are not looked at: NIGHTSHIFT_AIRFLOW_PASSWORD is not set")


def _inside() -> Iterator[Finding]:
    from tasks.cli.airflow import Airflow
    from tasks.stack import web

    airflow = Airflow(timeout=web.TIMEOUT)
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
    for file, error in airflow.import_errors().items():
        yield Finding(False, f"Airflow cannot read {file}: {error}")
