"""A real MLflow server on its own, behind a door that a test can close."""

import http.client
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Literal

import pytest
from waiting import listens, patience, wait_for


class Door(ThreadingHTTPServer):
    """Passes requests on when `open`; else answers 503, when `deaf` after the server did what was asked."""

    daemon_threads = True

    def __init__(self, port: int, files: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.behind, self.files = port, files  # `files` is where the server keeps artifacts
        self.requests: list[str] = []
        self.logins: list[str | None] = []
        self.state: Literal["open", "closed", "deaf"] = "open"


class _Handler(BaseHTTPRequestHandler):
    server: Door

    def _pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.requests.append(self.path)
        self.server.logins.append(self.headers.get("Authorization"))
        status, kind, answer = 503, "text/plain", b"closed"
        if self.server.state != "closed":
            connection = http.client.HTTPConnection("127.0.0.1", self.server.behind)
            headers = {name: value for name, value in self.headers.items() if name != "Host"}
            connection.request(self.command, self.path, body, headers)
            found = connection.getresponse()
            passed = found.status, found.headers.get("Content-Type", kind), found.read()
            connection.close()
            if self.server.state == "open":
                status, kind, answer = passed
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _pass_on  # noqa: N815

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture(scope="session")
def _mlflow_behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, Path]]:
    folder = tmp_path_factory.mktemp("mlflow")
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = int(found.getsockname()[1])
    command = (
        *(sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1"),
        *("--backend-store-uri", f"sqlite:///{folder}/runs.db", "--artifacts-destination", f"{folder}/files"),
    )
    mine = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            command, env=mine | quiet, cwd=folder, stdout=log, stderr=log, start_new_session=True
        )
    try:
        wait_for(lambda: listens(port) or server.poll() is not None, "the MLflow server to start", 120)
        assert server.poll() is None, (folder / "log").read_text()
        yield port, folder / "files"
    finally:
        os.killpg(server.pid, 15)
        server.wait(patience(30))


@pytest.fixture
def mlflow_server(_mlflow_behind: tuple[int, Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[Door]:
    """The server of the session behind an open door of this test's own; its client does not try again."""
    with Door(*_mlflow_behind) as door:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{door.server_port}")
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        threading.Thread(target=door.serve_forever, daemon=True).start()
        yield door
        door.shutdown()
