"""The containers' health checks, against things that answer and things that do not."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from nightshift.errors import InputError
from nightshift.stack.healthcheck import probe

HEALTH = b"""{"scheduler": {"status": "healthy", "latest_scheduler_heartbeat": "2026-11-25T03:00:00+00:00"},
"triggerer": {"status": "unhealthy", "latest_triggerer_heartbeat": "2026-11-24T03:00:00+00:00"},
"dag_processor": {"status": null, "latest_dag_processor_heartbeat": null}}"""


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(503 if self.path == "/sick" else 200)
        self.send_header("Content-Length", str(len(HEALTH)))
        self.end_headers()
        self.wfile.write(HEALTH)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_server_is_well_when_it_answers(url):
    assert probe("server", f"{url}/health") is None
    assert probe("server", f"{url}/sick") == "it answered 503"
    assert "refused" in str(probe("server", "http://127.0.0.1:1/"))


def test_a_component_is_well_when_airflow_hears_of_it(url):
    assert probe("heartbeat", "scheduler", f"{url}/") is None
    assert "the last heartbeat was at 2026-11-24" in str(probe("heartbeat", "triggerer", url))
    assert probe("heartbeat", "dag_processor", url) == "no heartbeat yet"


def test_a_worker_is_asked_over_the_broker_that_a_secret_names(tmp_path):
    (tmp_path / "broker_url").write_text("redis://:hidden@127.0.0.1:1/0\n")
    reason = str(probe("worker", str(tmp_path / "broker_url")))
    assert "the broker cannot be asked" in reason
    assert "hidden" not in reason


def test_a_process_is_found_by_a_word_of_its_command():
    assert probe("process", "tests.no_such_module") == "no process runs tests.no_such_module"
    command = [sys.executable, "-c", "input()", "tests.a_janitor"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        assert probe("process", "tests.a_janitor") is None
        process.communicate(b"\n")


def test_an_unknown_question_is_refused():
    with pytest.raises(InputError, match="there is no probe 'server'"):
        probe("server")


def test_the_exit_status_says_it(url):
    command = [sys.executable, "-m", "nightshift.stack.healthcheck", "server"]
    assert subprocess.run([*command, url], capture_output=True).returncode == 0
    done = subprocess.run([*command, f"{url}/sick"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "it answered 503\n")
