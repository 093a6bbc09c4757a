"""Secrets stay where they are kept: a night is run, and all that it left is searched for each of them."""

import base64
import contextlib
import json
import stat
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx
import mlflow
from watched_night import Watched

from nightshift.stack import airflow_api, prepare

# Where secrets are kept, below the stack's folder; all these are for their owner only.
KEPT = (
    "secrets.json",
    "airflow/passwords.json",
    "keys/signing.key",
    "run/valkey.conf",
    "run/mlflow-login.ini",
)
# What a process that runs pipeline code has to know: the store, MLflow, and a worker its queue and Airflow.
STAGES = {"s3_key", "s3_secret", "mlflow_password"}
WORKERS = STAGES | {"valkey_password", "airflow_password", "cloud account", "webhook"}


def secrets_of(stack: Any) -> dict[str, str]:
    """All secrets by name: the stack's own, its private key by lines, a person's, and logins as sent."""
    site = prepare.find_site(stack.home)
    assert site is not None
    key = site.signing_key.read_text().splitlines()[1:-1]
    found = asdict(site.secrets) | stack.planted | {f"line {i} of the key": one for i, one in enumerate(key)}
    logins = {f"login by {name}": f"admin:{found[name]}" for name in ("airflow_password", "mlflow_password")}
    logins["login of the webhook"] = f"notices:{found['webhook']}"
    return found | {name: base64.b64encode(login.encode()).decode() for name, login in logins.items()}


def told(text: str | bytes, secrets: dict[str, str]) -> list[str]:
    """The names of the secrets that are in a text."""
    data = text if isinstance(text, bytes) else text.encode()
    return [name for name, value in secrets.items() if value.encode() in data]


def files_that_tell(folder: Path, secrets: dict[str, str]) -> dict[str, list[str]]:
    """Each file below the folder that holds a secret, with the names of those."""
    found = {}
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # the stack is at work
            if path.is_file() and not path.is_symlink() and (names := told(path.read_bytes(), secrets)):
                found[str(path.relative_to(folder))] = names
    return found


def test_a_secret_that_is_printed_is_found(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "train.log").write_bytes(b"\xff key=hidden-value\n")
    assert files_that_tell(tmp_path, {"a": "hidden-value", "b": "elsewhere"}) == {"logs/train.log": ["a"]}


def test_no_file_but_the_private_ones_holds_a_secret(stack: Any, watched: Watched) -> None:
    """Logs, the bucket with MLflow's artifacts, the queue, the databases, the supervisor's configuration."""
    found = files_that_tell(stack.home, secrets_of(stack))
    kept = {name for name in found if name in KEPT or (name.startswith("run/") and name.endswith(".env"))}
    assert {name: found[name] for name in found.keys() - kept} == {}
    assert kept >= {*KEPT, "run/worker.env", "run/mlflow.env"}
    assert {name: oct(stat.S_IMODE((stack.home / name).stat().st_mode)) for name in kept} == dict.fromkeys(
        kept, "0o600"
    )
    logs = {path.name for path in (stack.home / "airflow" / "logs").rglob("*") if watched.run_id in str(path)}
    assert logs  # the night's own logs were among them


def test_no_command_line_shows_a_secret_while_a_night_runs(stack: Any, watched: Watched) -> None:
    secrets = secrets_of(stack)
    assert {line: told(line, secrets) for line in watched.lines.values() if told(line, secrets)} == {}
    stages = {line.split()[3] for line in watched.lines.values() if " -m nightshift " in line}
    assert stages >= {"preprocess", "train", "evaluate", "register"}


def test_each_process_knows_no_more_than_it_needs(stack: Any, watched: Watched) -> None:
    secrets = secrets_of(stack)
    seen = dict.fromkeys(("stage", "worker", "server"), 0)
    for process, variables in watched.variables.items():
        line, names = watched.lines.get(process, ""), set(told(variables, secrets))
        kind = "stage" if " -m nightshift " in line else "worker" if "celery worker" in line else "server"
        seen[kind] += 1
        assert "export key" not in names, line
        assert kind != "stage" or names <= STAGES, line
        assert kind != "worker" or names <= WORKERS, line
    assert all(seen.values()), seen


def pages(client: httpx.Client, run_id: str) -> Iterator[tuple[str, str]]:
    """What Airflow shows of a night to whoever may look: address and text."""
    run = f"/api/v2/dags/retrain_tiny/dagRuns/{run_id}"
    paths = [run, "/api/v2/dags/retrain_tiny/details", "/api/v2/dagSources/retrain_tiny"]
    paths += ["/api/v2/eventLogs?limit=500", "/api/v2/importErrors", "/api/v2/jobs", "/api/v2/plugins"]
    tasks = client.get(f"{run}/taskInstances?limit=100").raise_for_status().json()["task_instances"]
    entries = f"{run}/taskInstances/~/xcomEntries?limit=500"
    xcoms = client.get(entries).raise_for_status().json()["xcom_entries"]
    assert len(tasks) > 7
    assert len(xcoms) > 7
    for task in tasks:
        paths.append(f"{run}/taskInstances/{task['task_id']}/{task['map_index']}")
        paths.append(f"{run}/taskInstances/{task['task_id']}/logs/1?map_index={task['map_index']}")
    for xcom in xcoms:
        at = f"{run}/taskInstances/{xcom['task_id']}/xcomEntries/{xcom['key']}"
        paths.append(f"{at}?map_index={xcom['map_index']}")
    for path in paths:
        yield path, client.get(path, headers={"Accept": "application/json"}).raise_for_status().text


def test_airflow_shows_no_secret(stack: Any, watched: Watched) -> None:
    """Results, rendered templates, settings of the run, sources, logs; and nobody its configuration."""
    site = prepare.find_site(stack.home)
    assert site is not None
    secrets = secrets_of(stack)
    with contextlib.closing(airflow_api.login(site)) as client:
        shown = dict(pages(client, watched.run_id))
        assert client.get("/api/v2/config").status_code == 403
    assert {path: told(text, secrets) for path, text in shown.items() if told(text, secrets)} == {}


def of_the_night(run_id: str) -> Iterable[Any]:
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name("tiny")
    assert experiment is not None
    (parent,) = client.search_runs([experiment.experiment_id], f"tags.`nightshift.night` = '{run_id}'")
    below = f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'"
    return [parent, *client.search_runs([experiment.experiment_id], below)]


def test_mlflow_shows_no_secret(stack: Any, watched: Watched) -> None:
    """Parameters, tags, metrics and data sets of the runs, and the registered versions."""
    secrets, client = secrets_of(stack), mlflow.MlflowClient()
    runs = of_the_night(watched.run_id)
    versions = [dict(version) for version in client.search_model_versions("name = 'tiny'")]
    text = json.dumps([[run.to_dictionary() for run in runs], versions], default=str)
    assert len(runs) > 1
    assert versions
    assert "train.epochs" in text
    assert told(text, secrets) == []
