"""Airflow's REST API, as much of it as the command line needs."""

import json
import os
import re
import sys
import time
from collections.abc import Callable
from typing import Any

import httpx

from nightshift.errors import InputError, OutageError

READ_SECONDS = 300  # for a new pipeline file to be read: half a minute, and minutes on a busy machine
ASK_SECONDS = 1.0


class UnknownError(InputError):
    """What Airflow does not know, or does not know yet."""


class Airflow:
    """A session with the API server at NIGHTSHIFT_AIRFLOW_URL."""

    def __init__(self, timeout: float = 60) -> None:
        self.url = os.environ.get("NIGHTSHIFT_AIRFLOW_URL", "http://127.0.0.1:8080").rstrip("/")
        self._client = httpx.Client(base_url=self.url, timeout=timeout)
        user = os.environ.get("NIGHTSHIFT_AIRFLOW_USER", "admin")
        password = os.environ.get("NIGHTSHIFT_AIRFLOW_PASSWORD", "")
        token = self._call("POST", "/auth/token", json={"username": user, "password": password})
        self._client.headers["Authorization"] = f"Bearer {token['access_token']}"

    def trigger(self, dag: str, conf: dict[str, Any], note: str | None = None) -> str:
        """Start a run and return its id. Of a DAG that Airflow has not read yet it waits for that."""
        self._read(lambda: self.knows(dag), dag)
        body = {"logical_date": None, "conf": conf, "note": note}
        return str(self._call("POST", f"/api/v2/dags/{dag}/dagRuns", json=body)["dag_run_id"])

    def knows(self, dag: str) -> bool:
        """Whether Airflow has read this DAG, and read it again when it last read its file."""
        try:
            return not self._call("GET", f"/api/v2/dags/{dag}")["is_stale"]
        except UnknownError:
            return False

    def dags(self) -> dict[str, dict[str, Any]]:
        """All DAGs by their id, also stale ones, which their file made once and does not make any more."""
        rows: list[dict[str, Any]] = []
        while True:
            params = {"limit": 100, "offset": len(rows), "exclude_stale": False}
            page = self._call("GET", "/api/v2/dags", params=params)
            rows += page["dags"]
            if not page["dags"] or len(rows) >= page["total_entries"]:
                return {str(row["dag_id"]): row for row in rows}

    def _read(self, known: Callable[[], bool], dag: str) -> None:
        """Wait until Airflow has read what makes this DAG.

        Raises InputError when it says that it cannot, or when it takes too long.
        """
        file, deadline = f"{dag.partition('_')[2]}.toml", time.monotonic() + READ_SECONDS
        about = re.compile(rf"(?:^|/){re.escape(file)}\b")  # such a sentence begins with its file
        waits = f"Airflow has not read {file} yet, which takes up to half a minute: waiting for {dag}"
        while not known():
            for error in "\n".join(self.import_errors().values()).splitlines():
                if about.search(error):
                    raise InputError(f"Airflow at {self.url} made no {dag}: {error}")
            if time.monotonic() > deadline:
                raise InputError(
                    f"Airflow at {self.url} knows no {dag} after {READ_SECONDS} s; does it read this folder "
                    "of pipelines, and does nightshift doctor say more?"
                )
            if waits:
                print(waits, file=sys.stderr, flush=True)
                waits = ""
            time.sleep(ASK_SECONDS)

    def run_state(self, dag: str, run_id: str) -> str:
        """queued, running, success or failed."""
        return str(self._call("GET", f"/api/v2/dags/{dag}/dagRuns/{run_id}")["state"])

    def running(self) -> set[str]:
        """Ids of the DAGs of which a run is going on."""
        page = self._call("GET", "/api/v2/dags/~/dagRuns", params={"state": "running", "limit": 100})
        return {str(run["dag_id"]) for run in page["dag_runs"]}

    def pools(self) -> dict[str, int]:
        """The slots of each pool."""
        page = self._call("GET", "/api/v2/pools", params={"limit": 100})
        return {str(pool["name"]): int(pool["slots"]) for pool in page["pools"]}

    def import_errors(self) -> dict[str, str]:
        """What went wrong in each file whose DAGs, or some of them, are missing: one sentence a line."""
        page = self._call("GET", "/api/v2/importErrors", params={"limit": 100})
        return {str(each["filename"]): _said(str(each["stack_trace"])) for each in page["import_errors"]}

    def tasks(self, dag: str, run_id: str) -> list[dict[str, Any]]:
        """All task instances of a run, mapped ones one by one."""
        path = f"/api/v2/dags/{dag}/dagRuns/{run_id}/taskInstances"
        rows: list[dict[str, Any]] = []
        while True:
            page = self._call("GET", path, params={"limit": 100, "offset": len(rows)})
            rows += page["task_instances"]
            if not page["task_instances"] or len(rows) >= page["total_entries"]:
                return rows

    def xcom(self, dag: str, run_id: str, task: str, key: str = "return_value", map_index: int = -1) -> Any:
        """What a task left under `key`, or None."""
        path = f"/api/v2/dags/{dag}/dagRuns/{run_id}/taskInstances/{task}/xcomEntries/{key}"
        try:
            value = self._call("GET", path, params={"map_index": map_index, "stringify": False})["value"]
        except InputError:
            return None
        return json.loads(value) if isinstance(value, str) and value[:1] in "{[" else value

    def set_state(self, dag: str, run_id: str, task: str, map_index: int, state: str) -> None:
        """Mark a task instance, as the web interface does."""
        path = f"/api/v2/dags/{dag}/dagRuns/{run_id}/taskInstances/{task}/{map_index}"
        self._call("PATCH", path, json={"new_state": state})

    def clear(self, dag: str, run_id: str, tasks: list[str]) -> None:
        """Let these tasks of a run run again."""
        body = {"dry_run": False, "dag_run_id": run_id, "task_ids": tasks, "only_failed": False}
        self._call("POST", f"/api/v2/dags/{dag}/clearTaskInstances", json=body)

    def respond(self, dag: str, run_id: str, task: str, option: str) -> None:
        """Answer a task that waits for a person."""
        path = f"/api/v2/dags/{dag}/dagRuns/{run_id}/taskInstances/{task}/-1/hitlDetails"
        self._call("PATCH", path, json={"chosen_options": [option], "params_input": {}})

    def started_by(self, dag: str, run_id: str, other: str) -> str | None:
        """The run of DAG `other` that an asset event of this run started, once the scheduler made it."""
        page = self._call(
            "GET", "/api/v2/assets/events", params={"source_dag_id": dag, "source_run_id": run_id}
        )
        for event in page["asset_events"]:
            for run in event["created_dagruns"]:
                if run["dag_id"] == other:
                    return str(run["run_id"])
        return None

    def happened(self, asset: str, extra: dict[str, Any]) -> None:
        """Send an event of an asset of a pipeline, which starts what waits for it.

        An asset that Airflow has not read yet is waited for, as a DAG is.
        """
        ids: list[int] = []

        def known() -> bool:
            page = self._call("GET", "/api/v2/assets", params={"name_pattern": asset})
            ids.extend(row["id"] for row in page["assets"] if row["name"] == asset)
            return bool(ids)

        self._read(known, f"predict_{asset.rpartition('-')[0]}")
        self._call("POST", "/api/v2/assets/events", json={"asset_id": ids[0], "extra": extra})

    def _call(self, method: str, path: str, **arguments: Any) -> dict[str, Any]:
        try:
            response = self._client.request(method, path, **arguments)
        except httpx.HTTPError as error:
            raise OutageError(
                f"Airflow at {self.url} cannot be reached ({type(error).__name__}): nightshift up starts it"
            ) from error
        if response.status_code >= 500:
            raise OutageError(
                f"Airflow at {self.url} failed with {response.status_code}; see: nightshift logs"
            )
        if response.status_code >= 400:
            kind = UnknownError if response.status_code == 404 else InputError
            raise kind(f"Airflow refused {method} {path} with {response.status_code}: {_detail(response)}")
        body: dict[str, Any] = response.json()
        return body


def _said(trace: str) -> str:
    """What an error says, without where it was raised: the lines after the last one of a stack."""
    lines = trace.strip().splitlines()
    last = max((number for number, line in enumerate(lines) if line.startswith("  ")), default=-1)
    return "\n".join(lines[last + 1 :]).removeprefix("nightshift.errors.InputError: ")


def _detail(response: httpx.Response) -> str:
    try:
        return str(response.json()["detail"])[:500]
    except (ValueError, KeyError):
        return response.text[:500]
