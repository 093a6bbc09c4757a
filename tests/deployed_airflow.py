"""Run in the variables of the deployment's servers, this asks Airflow and prints the answers as JSON.

What each person may do, through the web API that people and the command line use; and a task's log on its
way to S3 and back.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

from fastapi.testclient import TestClient

SECRETS = Path(sys.argv[1])
NIGHT = "/api/v2/dags/retrain_digits/dagRuns"
ANSWER = "/api/v2/dags/promote_digits/dagRuns/r/taskInstances/approve/-1/hitlDetails"
RELATIVE = "dag_id=retrain_digits/run_id=r/task_id=plan/attempt=1.log"


def people(client: TestClient) -> dict[str, dict[str, int]]:
    """The status of what each person tries; 404 is what is allowed and not there."""
    found = {}
    for name in ("admin", "operator", "approver", "viewer"):
        login = {"username": name, "password": (SECRETS / f"airflow_{name}_password").read_text()}
        answer = client.post("/auth/token", json=login)
        headers = {"Authorization": f"Bearer {answer.json().get('access_token')}"}
        found[name] = {
            "log in": answer.status_code,
            "look": client.get("/api/v2/dags", headers=headers).status_code,
            "start": client.post(NIGHT, headers=headers, json={"logical_date": None}).status_code,
            "answer": client.patch(ANSWER, headers=headers, json={"chosen_options": ["Approve"]}).status_code,
            "connections": client.get("/api/v2/connections", headers=headers).status_code,
        }
    return found


def strangers(client: TestClient) -> list[int]:
    wrong = client.post("/auth/token", json={"username": "admin", "password": "wrong"})
    return [wrong.status_code, client.get("/api/v2/dags").status_code]


def log() -> dict[str, Any]:
    """Written as a worker's supervisor does it, read as the API server does it."""
    from airflow.logging_config import get_remote_task_log
    from airflow.sdk.log import load_remote_log_handler

    path = Path(os.environ["AIRFLOW__LOGGING__BASE_LOG_FOLDER"], RELATIVE)
    path.parent.mkdir(parents=True)
    path.write_text("a line of the task\n")
    writer, reader = load_remote_log_handler(), get_remote_task_log()
    assert writer is not None
    assert reader is not None
    writer.upload(path, None)
    sources, lines = reader.read(RELATIVE, None)
    return {"sources": sources, "lines": lines}


def main() -> None:
    from airflow.api_fastapi.app import create_app
    from airflow.models.pool import Pool
    from airflow.utils.session import create_session

    client = TestClient(create_app(apps="core"))
    with create_session() as session:
        pools = {pool.pool: pool.slots for pool in session.query(Pool)}
    found = {"people": people(client), "strangers": strangers(client), "pools": pools, "log": log()}
    print(f"\n{json.dumps(found)}")


if __name__ == "__main__":
    main()
