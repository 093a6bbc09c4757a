"""What the stack needs of Airflow's REST API once its server answers: pools, and what was parsed."""

import re
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx

from nightshift.errors import NightshiftError
from nightshift.stack.environment import ADMIN, Site

# Slots of each pool; `None` stands for as many as the general worker runs at once.
POOLS: dict[str, tuple[int | None, str]] = {
    "preprocess": (None, "Parts of batches: as many as the worker runs, the rest waits as scheduled"),
    "train": (1, "One training at a time"),
    "promotion": (1, "One move of an alias at a time"),
}


def login(site: Site) -> httpx.Client:
    """A client of the API in the administrator's name."""
    client = httpx.Client(base_url=site.airflow_url, timeout=20, trust_env=False)
    answer = client.post("/auth/token", json={"username": ADMIN, "password": site.secrets.airflow_password})
    if answer.status_code != 201:
        client.close()
        raise NightshiftError(
            f"Airflow at {site.airflow_url} refused the stack's own password ({answer.status_code}): "
            f"another server may listen there, run `nightshift down`, then `nightshift up`"
        )
    client.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"
    return client


def ensure_pools(client: httpx.Client, site: Site) -> None:
    """Make the missing pools. One that exists keeps its slots: somebody may have chosen them."""
    for name, (slots, description) in POOLS.items():
        body = {
            "name": name,
            "slots": slots or site.concurrency,
            "description": description,
            "include_deferred": False,
        }
        answer = client.post("/api/v2/pools", json=body)
        if answer.status_code not in (201, 409):
            raise NightshiftError(
                f"Airflow refused the pool {name} ({answer.status_code}: {answer.text[:200]}): "
                "make it in the UI under Admin, Pools"
            )


def pipeline_files(dags: Path) -> set[str]:
    """The files that make DAGs, as far as their text tells."""
    makes = re.compile(r"\bdags\(|@dag\b|\bDAG\(")
    files = ((path, path.read_text(encoding="utf-8")) for path in dags.rglob("*.py"))
    return {str(path.relative_to(dags)) for path, text in files if makes.search(text)}


def _listed(client: httpx.Client, path: str, key: str) -> list[dict[str, Any]]:
    answer = client.get(path, params={"limit": 1000})
    return list(answer.json().get(key, [])) if answer.status_code == 200 else []


def parsed_files(client: httpx.Client, since: float) -> set[str]:
    """The pipeline files parsed since that time, with success or with an error that the UI shows."""

    def fresh(moment: str | None) -> bool:
        return moment is not None and datetime.fromisoformat(moment).timestamp() >= since

    dags = _listed(client, "/api/v2/dags", "dags")
    errors = _listed(client, "/api/v2/importErrors", "import_errors")
    good = {str(dag["relative_fileloc"]) for dag in dags if fresh(dag["last_parsed_time"])}
    return good | {str(error["filename"]) for error in errors if fresh(error["timestamp"])}
