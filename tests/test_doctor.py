"""`nightshift doctor` on machines that are well and that are not; the services are small real servers."""

import itertools
import json
import os
import re
import socket
import ssl
import subprocess
import sys
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import redis
from conftest import Stack
from mlflow_server import Door
from test_s3 import LISTING, Answer, Server, server
from test_s3_connection import write_certificates
from test_storage import s3, s3_server
from typer.testing import CliRunner, Result
from waiting import wait_for_port

from nightshift import storage
from nightshift.cli import app, checks
from nightshift.cli.doctor import _processor
from nightshift.hardware import processor
from nightshift.security import signing
from nightshift.stack.binaries import valkey_binary
from nightshift.stack.private_files import Ports, ensure_secrets, store_ports
from nightshift.tracking import runs

__all__ = ["s3", "s3_server", "server"]  # fixtures

Serve = Callable[..., str]
ROOT = Path(__file__).resolve().parent.parent
HEALTHY = json.dumps({part: {"status": "healthy"} for part in ("metadatabase", "scheduler")}).encode()


@pytest.fixture(autouse=True)
def machine(tmp_path: Path) -> Iterator[Path]:
    """A machine with one pipeline, a local store and no stack; the environment is put back afterwards."""
    before = dict(os.environ)
    for name in before:
        if name.startswith(("NIGHTSHIFT_", "AWS_", "MLFLOW_")):
            del os.environ[name]
    (tmp_path / "dags" / "pipelines").mkdir(parents=True)
    (tmp_path / "dags" / "pipelines" / "digits.toml").touch()
    os.environ |= {
        "NIGHTSHIFT_DAGS": str(tmp_path / "dags"),
        "NIGHTSHIFT_STORE": f"file://{tmp_path}/store",
        "NIGHTSHIFT_HOME": str(tmp_path / "home"),
        "NO_PROXY": "127.0.0.1",
    }
    yield tmp_path
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[str]:
    """Host and port of a broker of this test's own, whose password is `secret-word`."""
    port = unused_port()
    options = {"--port": str(port), "--bind": "127.0.0.1", "--save": "", "--dir": str(tmp_path)}
    command = [valkey_binary(), *itertools.chain(*options.items())]
    with subprocess.Popen([*command, "--requirepass", "secret-word"], stdout=subprocess.DEVNULL) as server:
        try:
            wait_for_port(port)
            yield f"127.0.0.1:{port}"
        finally:
            server.terminate()


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Serve the given paths, all but `/health` to that login only; others are 404."""
    servers: list[HTTPServer] = []

    def start(answers: dict[str, bytes], login: str = "") -> str:
        wanted = f"Basic {b64encode(login.encode()).decode()}" if login else None

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                known = self.path == "/health" or wanted in (None, self.headers.get("Authorization"))
                self.send_response(401 if not known else 200 if self.path in answers else 404)
                self.end_headers()
                self.wfile.write(answers.get(self.path, b"") if known else b"")

            do_POST = do_GET  # noqa: N815

            def log_message(self, format: str, *args: object) -> None:
                pass

        server = HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for each in servers:
        each.shutdown()
        each.server_close()


def doctor() -> Result:
    return CliRunner().invoke(app, ["doctor"])


def line(result: Result, words: str) -> str:
    (found,) = [line for line in result.stdout.splitlines() if words in line]
    return found


def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_every_finding_is_one_marked_line() -> None:
    result = doctor()
    assert result.exception is None or isinstance(result.exception, SystemExit)
    assert all(line[:2] in ("✓ ", "✗ ", "· ") for line in result.stdout.splitlines())
    assert line(result, f"Python {sys.version_info[0]}.{sys.version_info[1]}").startswith("✓")
    assert line(result, "role predict is installed").startswith("✓")
    assert line(result, "there is no stack").startswith("·")


@pytest.mark.parametrize(
    ("flags", "mark", "words"),
    [
        ("avx2", "·", "neither VNNI (avx512_vnni, avx_vnni) nor AMX (amx_int8)"),
        ("avx2 avx512_vnni", "✓", "every int8 file"),
    ],
)
def test_the_processor_is_named_with_what_follows_from_it(
    machine: Path, monkeypatch: pytest.MonkeyPatch, flags: str, mark: str, words: str
) -> None:
    (machine / "cpuinfo").write_text(f"model name : Some Processor\nflags : fpu sse2 {flags} clflush\n")
    monkeypatch.setattr(processor, "CPUINFO", machine / "cpuinfo")
    monkeypatch.setenv("NIGHTSHIFT_PRECISION", "float32")
    (found,) = _processor()
    assert found.sentence.startswith(f"Some Processor, {flags}; trains in float32 on ")
    assert words in found.sentence
    assert {"·": None, "✓": True}[mark] == found.good


def test_the_store_is_tried_and_left_as_it_was(machine: Path) -> None:
    assert re.search(
        "^✓ store file://.* writes in .* ms, reads in .* ms, .*deletes in", doctor().stdout, re.M
    )
    assert [path for path in (machine / "store").rglob("*") if path.is_file()] == []


def test_a_store_that_is_away_is_wrong() -> None:
    address = f"http://127.0.0.1:{unused_port()}"
    os.environ |= {
        "NIGHTSHIFT_STORE": "s3://nightshift",
        "AWS_ENDPOINT_URL_S3": address,
        "AWS_MAX_ATTEMPTS": "1",
    }
    os.environ |= {
        "AWS_ACCESS_KEY_ID": "doctor",
        "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    result = doctor()
    assert result.exit_code == 1
    assert line(result, f"S3 at {address} does not answer ([Errno 111] Connection refused)").startswith("✗")


def test_a_broken_pipeline_file_is_wrong_and_the_others_are_named(machine: Path) -> None:
    (machine / "dags" / "pipelines" / "broken.toml").write_text("[train]\nepochs = 0\n")
    result = doctor()
    assert result.exit_code == 1
    assert line(result, "broken.toml, line 2: train.epochs").startswith("✗")
    assert line(result, "pipelines in").endswith(": digits")


def test_no_pipelines_are_wrong(machine: Path) -> None:
    os.environ["NIGHTSHIFT_DAGS"] = str(machine / "elsewhere")
    assert line(doctor(), "no pipeline files in").startswith("✗")


def test_an_airflow_that_is_well_is_said_to_be(serve: Serve) -> None:
    version = b'{"version": "3.3.2"}'
    address = serve({"/api/v2/monitor/health": HEALTHY, "/api/v2/version": version})
    os.environ["NIGHTSHIFT_AIRFLOW_URL"] = address
    assert line(doctor(), f"Airflow 3.3.2 at {address} is healthy").startswith("✓")


def test_airflow_is_looked_into_where_the_password_is_known(stack: Stack) -> None:
    os.environ |= stack.environment
    os.environ["NIGHTSHIFT_DAGS"] = str(stack.home / "dags")
    result = doctor()
    assert [said for said in result.stdout.splitlines() if said.startswith("✗")] == []
    assert re.search(r"^✓ Airflow's pools: preprocess \d, train 1, promotion 1$", result.stdout, re.M)
    for queue in ("default", "preprocess", "train"):
        assert line(result, f"queue {queue}: ").endswith("workers 1")
    assert line(result, "PostgreSQL 18 at 127.0.0.1:").startswith("✓")
    assert line(result, "MLflow's server and client are both 3.").startswith("✓")
    assert line(result, "message broker on 127.0.0.1:").startswith("✓")
    assert not [value for value in vars(ensure_secrets(stack.home)).values() if value in result.stdout]


def test_mlflow_is_tried_and_left_as_it_was(mlflow_server: Door) -> None:
    before = {path for path in mlflow_server.files.rglob("*") if path.is_file()}
    result = doctor()
    assert line(result, " is healthy, it answers in ").startswith("✓ MLflow at http")
    assert line(result, "MLflow's server and client are both 3.").startswith("✓")
    assert line(result, "MLflow registers a model, tags it and removes it").startswith("✓")
    assert line(result, "MLflow keeps an artifact, returns it and removes it").startswith("✓")
    assert not [name for name in runs.client().search_registered_models() if "doctor" in name.name]
    assert {path for path in mlflow_server.files.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("variable", ["MLFLOW_TRACKING_SERVER_CERT_PATH", "REQUESTS_CA_BUNDLE"])
def test_mlflow_behind_tls_is_trusted_where_its_authority_is_named(
    mlflow_server: Door, machine: Path, variable: str
) -> None:
    write_certificates(machine)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(machine / "server.pem")
    mlflow_server.socket = context.wrap_socket(mlflow_server.socket, server_side=True)
    os.environ["MLFLOW_TRACKING_URI"] = f"https://127.0.0.1:{mlflow_server.server_port}"
    assert line(doctor(), "its certificate is not trusted").startswith("✗")
    os.environ[variable] = str(machine / "ca.pem")
    result = doctor()
    assert line(result, "MLflow registers a model, tags it and removes it").startswith("✓")
    assert line(result, "MLflow keeps an artifact, returns it and removes it").startswith("✓")


def test_a_tracking_server_that_only_looks_well_is_wrong(serve: Serve) -> None:
    os.environ["MLFLOW_TRACKING_URI"] = serve({"/health": b"OK", "/version": b"2.9.1"})
    result = doctor()
    assert result.exit_code == 1
    assert line(result, "MLflow's server is 2.9.1, its client 3.").startswith("✗")


@pytest.mark.parametrize(("seconds", "mark"), [(0, "✓"), (-105, "·"), (405, "✗")])
def test_a_clock_that_is_elsewhere_is_told(seconds: int, mark: str) -> None:
    (found,) = checks.clock("S3", formatdate(time.time() + seconds))
    assert {True: "✓", False: "✗", None: "·"}[found.good] == mark
    if seconds:
        side = "ahead of" if seconds > 0 else "behind"
        assert re.match(rf"the clock of S3 is {abs(seconds) // 10}\d s {side} this machine's", found.sentence)


def test_the_clock_of_s3_is_read_where_it_refuses_everything(server: Server) -> None:
    os.environ["NIGHTSHIFT_STORE"] = "s3://test"
    server.says(Answer(b"<Error><Code>RequestTimeTooSkewed</Code></Error>", 403))
    result = doctor()
    assert result.exit_code == 1
    assert line(result, f"S3 at {server.url} and this machine have the same time").startswith("✓")
    assert line(result, "(RequestTimeTooSkewed)").startswith("✗")


def test_a_real_s3_server_is_tried_and_left_as_it_was(s3: str) -> None:
    os.environ["NIGHTSHIFT_STORE"] = s3
    result = doctor()
    assert line(result, " deletes in ").startswith(f"✓ store {s3} at http://127.0.0.1:")
    assert line(result, "begins uploads in parts").startswith("✓")
    assert line(result, "If-None-Match").startswith("·")
    assert list(storage.listing(f"{s3}/doctor")) == list(storage.uploads(f"{s3}/doctor")) == []


@pytest.mark.parametrize(
    ("method", "right"), [("PUT", "PutObject"), ("GET /test/", "GetObject"), ("DELETE", "DeleteObject")]
)
def test_a_right_that_is_missing_is_named(server: Server, method: str, right: str) -> None:
    os.environ["NIGHTSHIFT_STORE"] = "s3://test"
    kept = {"body": b""}

    def answer(line: str) -> Answer:
        if line.startswith(method):
            return Answer(b"<Error><Code>AccessDenied</Code></Error>", 403)
        listed = LISTING.format(0, "").encode()
        return Answer(listed if line.startswith("GET /test?") else kept["body"])

    server.answer = answer
    result = doctor()
    assert result.exit_code == 1
    assert line(result, f"(AccessDenied); allow its key s3:{right}").startswith("✗")


def test_a_broker_is_asked_for_its_queues(valkey: str) -> None:
    os.environ["AIRFLOW__CELERY__BROKER_URL"] = f"redis://:secret-word@{valkey}/0"
    with redis.Redis.from_url(os.environ["AIRFLOW__CELERY__BROKER_URL"]) as client:
        client.rpush("train", "a", "b")
        client.config_set("maxmemory-policy", "allkeys-lru")
    result = doctor()
    assert re.search(rf"^✓ message broker on {valkey}, Valkey \d.* answers in", result.stdout, re.M)
    assert line(result, "drops messages when its memory is full").startswith("✗")
    assert line(result, "queue train: messages 2, and no worker").startswith("✗")
    assert line(result, "queue default: messages 0, and no worker").startswith("·")
    assert "secret-word" not in result.stdout
    os.environ["AIRFLOW__CELERY__BROKER_URL"] = f"redis://:another-word@{valkey}/0"
    assert "another-word" not in line(doctor(), "check its address, its password")


def test_a_database_that_refuses_is_wrong_and_its_login_is_not_shown() -> None:
    port = unused_port()
    os.environ["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] = (
        f"postgresql+psycopg2://me:secret-word@127.0.0.1:{port}/a"
    )
    result = doctor()
    assert line(result, f"PostgreSQL at 127.0.0.1:{port} does not do what Airflow needs").startswith("✗")
    assert "secret-word" not in result.stdout


@pytest.mark.parametrize("answer", [HEALTHY.replace(b"healthy", b"unhealthy", 2), b"<html>", b"[]"])
def test_an_airflow_that_is_not_well_is_wrong(answer: bytes, serve: Serve) -> None:
    os.environ["NIGHTSHIFT_AIRFLOW_URL"] = serve({"/api/v2/monitor/health": answer})
    result = doctor()
    assert result.exit_code == 1
    assert [said for said in result.stdout.splitlines() if said.startswith("✗ ") and "irflow " in said]


def test_the_sick_part_of_airflow_is_named(serve: Serve) -> None:
    answer = HEALTHY.replace(b'"scheduler": {"status": "healthy"', b'"scheduler": {"status": "unhealthy"')
    os.environ["NIGHTSHIFT_AIRFLOW_URL"] = serve({"/api/v2/monitor/health": answer})
    assert "scheduler not healthy; see nightshift logs" in line(doctor(), "Airflow at")


def test_a_tracking_server_that_is_away_is_wrong() -> None:
    os.environ["MLFLOW_TRACKING_URI"] = f"http://127.0.0.1:{unused_port()}"
    result = doctor()
    assert result.exit_code == 1
    assert line(result, "/health does not answer").startswith("✗")


@pytest.mark.parametrize("password", ["wrong", None])
def test_a_login_that_mlflow_refuses_is_wrong(password: str | None, serve: Serve) -> None:
    os.environ["MLFLOW_TRACKING_URI"] = serve({"/health": b"OK"}, "me:right")
    if password:
        os.environ |= {"MLFLOW_TRACKING_USERNAME": "me", "MLFLOW_TRACKING_PASSWORD": password}
    found = line(doctor(), "refuses the login of ")
    assert found.startswith("✗")
    assert "set MLFLOW_TRACKING_USERNAME" in found


def test_a_stopped_stack_is_a_remark(machine: Path) -> None:
    (machine / "home").mkdir()
    ensure_secrets(machine / "home")
    store_ports(machine / "home", Ports(*(unused_port() for _ in range(6))))
    assert line(doctor(), "is stopped; nightshift up starts it").startswith("·")


def test_a_stack_that_runs_in_part_is_wrong(machine: Path, serve: Serve) -> None:
    (machine / "home").mkdir()
    ensure_secrets(machine / "home")
    mlflow = int(serve({"/health": b"OK"}).rpartition(":")[2])
    ports = Ports(airflow=unused_port(), mlflow=mlflow, s3=unused_port(), valkey=unused_port())
    store_ports(machine / "home", ports)
    result = doctor()
    assert result.exit_code == 1
    assert line(result, f"mlflow answers on 127.0.0.1:{mlflow}").startswith("✓")
    assert line(result, f"s3 does not answer on 127.0.0.1:{ports.s3}").startswith("✗")
    assert line(result, "message broker on").startswith("✗")
    assert line(result, f"MLflow at http://127.0.0.1:{mlflow} is healthy").startswith("✓")


def test_secrets_that_others_can_read_are_wrong(machine: Path) -> None:
    (machine / "home").mkdir()
    ensure_secrets(machine / "home")
    assert line(doctor(), "its secrets are private").startswith("✓")
    (machine / "home" / "secrets.json").chmod(0o644)
    assert line(doctor(), "can be read by other users; run chmod 600").startswith("✗")


def test_signing_is_a_remark_unless_it_is_configured(machine: Path) -> None:
    assert line(doctor(), "models are not signed").startswith("·")
    fingerprint = signing.make_keys(machine / "keys")
    os.environ[signing.PUBLIC_KEYS] = str(machine / "keys" / "signing.pub")
    assert line(doctor(), f"models are trusted when signed by {fingerprint}").startswith("✓")
    os.environ[signing.SIGNING_KEY] = str(machine / "keys" / "signing.key")
    assert line(doctor(), f"what is registered here is signed by {fingerprint}").startswith("✓")
    (machine / "keys" / "signing.key").chmod(0o640)
    assert line(doctor(), "signing.key can be read by other users; run chmod 600").startswith("✗")


def test_half_a_configuration_of_signing_is_wrong(machine: Path) -> None:
    signing.make_keys(machine / "keys")
    os.environ[signing.SIGNING_KEY] = str(machine / "keys" / "signing.key")
    result = doctor()
    assert result.exit_code == 1
    assert line(result, "NIGHTSHIFT_PUBLIC_KEYS has none; add its public key there").startswith("✗")
    os.environ[signing.PUBLIC_KEYS] = str(machine / "nowhere")
    assert line(doctor(), "nothing is trusted without it").startswith("✗")


@pytest.mark.skipif(not (ROOT / "requirements.lock").is_file(), reason="not a checkout")
def test_the_installed_versions_are_compared_with_the_lock() -> None:
    assert "requirements.lock" in doctor().stdout
