"""`nightshift upkeep`: what nothing needs any more, shown and deleted."""

import json
import os
import shutil
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from typer.testing import CliRunner

from nightshift import storage
from nightshift.cli import app

OLD = time.time() - 100 * 86400
DAGS = Path(__file__).resolve().parent.parent / "dags"


@pytest.fixture
def root(registering, ml_store: Path, tmp_path_factory, monkeypatch) -> str:
    """A store with one thing that nothing names, and pipelines of the test's own."""
    monkeypatch.delenv("NIGHTSHIFT_AIRFLOW_URL", raising=False)
    monkeypatch.setenv("NIGHTSHIFT_HOME", str(ml_store / "no-stack"))
    folder = tmp_path_factory.mktemp("dags")
    (folder / "pipelines").mkdir()
    shutil.copy(DAGS / "upkeep.toml", folder)
    monkeypatch.setenv("NIGHTSHIFT_DAGS", str(folder))
    storage.write(f"file://{ml_store}/shards/p/part.json", b"12345")
    os.utime(ml_store / "shards" / "p" / "part.json", (OLD, OLD))
    return f"file://{ml_store}"


def said(*arguments: str, code: int = 0) -> str:
    done = CliRunner().invoke(app, ["upkeep", *arguments])
    assert done.exit_code == code, done.output
    return done.stdout if code == 0 else done.output


def test_it_shows_what_may_go_and_deletes_nothing(root):
    text = said()
    assert "shards" in text
    assert "nothing was deleted, which --delete does" in text
    assert storage.exists(f"{root}/shards/p/part.json")


def test_it_deletes_when_told_so(root):
    found = json.loads(said("--delete", "--json"))
    assert (found["objects"], found["size"], found["deleted"]) == (1, 5, 1)
    assert not storage.exists(f"{root}/shards/p/part.json")
    assert storage.exists(found["list_uri"])


def test_weights_that_a_pipeline_begins_with_stay(root):
    key = "checkpoints/c/checkpoint.json"
    storage.write(f"{root}/{key}", b"{}")
    os.utime(Path(root.removeprefix("file://"), key), (OLD, OLD))
    file = Path(os.environ["NIGHTSHIFT_DAGS"], "pipelines", "pets.toml")
    file.write_text(f'[train]\nweights = "{root}/{key}"\n')
    assert json.loads(said("--json"))["objects"] == 1
    file.write_text("")
    assert json.loads(said("--json"))["objects"] == 2


def test_a_pipeline_that_cannot_be_read_may_name_anything(root):
    Path(os.environ["NIGHTSHIFT_DAGS"], "pipelines", "pets.toml").write_text("epochs = 3\n")
    assert "pets.toml, line 1: epochs is not a setting" in said("--delete", code=2)
    assert storage.exists(f"{root}/shards/p/part.json")


class _Busy(BaseHTTPRequestHandler):
    """Airflow, as far as it is asked here."""

    def _answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        runs = [{"dag_id": "promote_pets"}, {"dag_id": "retrain_pets"}]
        body = json.dumps({"access_token": "t", "dag_runs": runs}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = _answer  # noqa: N815

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def busy(monkeypatch) -> Iterator[None]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Busy) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}).start()
        monkeypatch.setenv("NIGHTSHIFT_AIRFLOW_URL", f"http://127.0.0.1:{server.server_port}")
        yield
        server.shutdown()


def test_it_deletes_nothing_while_a_night_runs(root, busy):
    text = said("--delete", code=2)
    assert "nothing is deleted while retrain_pets runs; wait until it has ended" in text
    assert storage.exists(f"{root}/shards/p/part.json")
