"""What the command line says of DAGs that Airflow has not read, or not any more."""

import json
import threading
import traceback
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from nightshift.cli import airflow_api as api
from nightshift.cli.airflow_api import Airflow
from nightshift.cli.checks.airflow import KINDS, _dags
from nightshift.errors import InputError


class Server(BaseHTTPRequestHandler):
    """As much of Airflow's API as a start needs; it reads a file at the third question for its DAG."""

    asked: list[str]
    errors: list[dict[str, str]]
    stale = False

    def log_message(self, *arguments: Any) -> None:
        pass

    def answer(self, status: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(201, {"access_token": "t", "dag_run_id": "run-1"})

    def do_GET(self) -> None:
        if "importErrors" in self.path:
            self.answer(200, {"import_errors": self.errors})
            return
        self.asked.append(self.path)
        if len(self.asked) < 3 and not self.stale:
            self.answer(404, {"detail": "The Dag with ID: `retrain_fresh` was not found"})
        else:
            self.answer(200, {"is_stale": len(self.asked) < 3})


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Server]]:
    kind = type("Asked", (Server,), {"asked": [], "errors": []})
    listener = ThreadingHTTPServer(("127.0.0.1", 0), kind)
    thread = threading.Thread(target=listener.serve_forever)
    thread.start()
    monkeypatch.setenv("NIGHTSHIFT_AIRFLOW_URL", f"http://127.0.0.1:{listener.server_port}")
    monkeypatch.setattr(api, "ASK_SECONDS", 0.01)
    yield kind
    listener.shutdown()
    listener.server_close()
    thread.join()


@pytest.mark.parametrize("stale", [False, True])
def test_a_dag_that_airflow_has_not_read_is_waited_for_and_that_is_said_once(server, stale, capsys):
    server.stale = stale
    assert Airflow().trigger("retrain_fresh", {}) == "run-1"
    assert len(server.asked) == 3
    said = capsys.readouterr().err
    assert said.count("Airflow has not read fresh.toml yet, which takes up to half a minute") == 1


def test_a_file_that_airflow_cannot_read_ends_the_wait_with_its_sentence(server):
    try:
        raise InputError("afresh.toml, line 1: x\nfresh.toml, line 3: train.epochs: got 0")
    except InputError:
        trace = traceback.format_exc()
    server.errors = [{"filename": "pipeline_errors.py", "stack_trace": trace}]
    with pytest.raises(
        InputError, match=r"made no retrain_fresh: fresh\.toml, line 3: train\.epochs: got 0$"
    ):
        Airflow().trigger("retrain_fresh", {})
    assert Airflow().import_errors() == {
        "pipeline_errors.py": "afresh.toml, line 1: x\nfresh.toml, line 3: train.epochs: got 0"
    }


def test_a_wait_ends_with_what_to_look_at(server, monkeypatch):
    monkeypatch.setattr(api, "READ_SECONDS", 0)
    with pytest.raises(InputError, match=r"knows no retrain_fresh after 0 s; .*nightshift doctor"):
        Airflow().trigger("retrain_fresh", {})


@pytest.mark.parametrize(
    ("change", "good", "words"),
    [
        (None, True, "Airflow reads all 4 DAGs of 1 pipelines"),
        ({}, False, "Airflow has not read retrain_mine: a new file takes half a minute"),
        ({"is_stale": True}, False, "does not find retrain_mine any more where it read them once"),
        ({"last_parsed_time": 3600}, False, "has not read retrain_mine again for 60 minutes"),
        ({"is_paused": True}, None, "nothing starts retrain_mine, which somebody paused"),
    ],
)
def test_doctor_tells_dags_that_are_unread_stale_old_or_paused(tmp_path, monkeypatch, change, good, words):
    folder = tmp_path / "pipelines"
    folder.mkdir()
    (folder / "mine.toml").write_text("")
    (folder / "broken.toml").write_text("=")
    monkeypatch.setenv("NIGHTSHIFT_DAGS", str(tmp_path))

    def row(age: float = 0, **fields: Any) -> dict[str, Any]:
        read = (datetime.now(UTC) - timedelta(seconds=age)).isoformat()
        return {"is_stale": False, "is_paused": False, "last_parsed_time": read} | fields

    known = {f"{kind}_mine": row() for kind in KINDS}
    if change == {}:
        del known["retrain_mine"]
    elif change:
        age = change.pop("last_parsed_time", 0)
        known["retrain_mine"] = row(age, **change)
    found = [finding for finding in _dags(known) if words in finding.sentence]
    assert [finding.good for finding in found] == [good]
