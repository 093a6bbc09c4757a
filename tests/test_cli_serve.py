"""`nightshift serve`: how it starts, what it refuses to start with, and how it ends."""

import re
import signal
import socket
from pathlib import Path

import pytest
from endpoints import client_of, picture, promoted, registered, serving
from mlflow_server import Door
from small_models import brightness
from typer.testing import CliRunner, Result
from waiting import patience, wait_for

from nightshift.cli import app
from nightshift.security import signing
from nightshift.tracking import registry


def serve(*arguments: str) -> Result:
    """For what ends at once."""
    return CliRunner().invoke(app, ["serve", *arguments, "--port", "0"])


def test_it_waits_follows_and_ends_in_order(registering: Door, tmp_path: Path) -> None:
    log, data = tmp_path / "log", picture()
    with (
        serving("models:/lamp@champion", log, "--wait") as (process, port),
        client_of(port) as client,
    ):
        assert client.get("/ready").status_code == 503
        version = promoted("lamp")
        wait_for(lambda: client.get("/ready").status_code == 200)
        with socket.create_connection(("127.0.0.1", port), timeout=patience(20)) as connection:
            head = f"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Length: {len(data)}\r\n\r\n"
            connection.sendall(head.encode() + data[:50])
            wait_for(lambda: "waiting_images 1.0" in client.get("/metrics").text)
            process.send_signal(signal.SIGTERM)
            wait_for(lambda: refuses(port))
            connection.sendall(data[50:])  # what was under way is still answered
            answer = b"".join(iter(lambda: connection.recv(65536), b""))
        assert answer.startswith(b"HTTP/1.1 200")
        assert b'"label":"bright"' in answer
        assert process.wait(patience(20)) == 0
    lines = log.read_text().splitlines()
    assert [re.findall(r" event=(\w+)", line) for line in lines] == [
        ["waiting"],
        ["listening"],
        ["serving"],
        ["stopped"],
    ]
    assert f" version={version} " in lines[2]


def refuses(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def test_a_missing_alias_is_one_sentence(registering: Door) -> None:
    result = serve("models:/nobody@champion")
    assert result.exit_code == 2
    assert result.stderr.startswith("nightshift: models:/nobody@champion does not exist at http://")
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("arguments", [(), ("--wait",)])
def test_an_unsigned_champion_is_one_sentence(
    registering: Door, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    registry.set_alias("candle", "champion", registered("candle"))
    signing.ensure_keys(tmp_path)
    monkeypatch.setenv(signing.PUBLIC_KEYS, str(tmp_path / "signing.pub"))
    result = serve("models:/candle@champion", *arguments)
    assert result.exit_code == 2
    assert "models:/candle@champion is not signed" in result.stderr


def test_a_silent_registry_ends_it_unless_it_waits(registering: Door) -> None:
    registering.state = "closed"
    result = serve("models:/light@champion")
    assert result.exit_code == 2
    assert result.stderr.startswith("nightshift: MLflow at http://")


def test_only_an_alias_is_waited_for(tmp_path: Path) -> None:
    result = serve(str(tmp_path / "model.onnx"), "--wait")
    assert result.exit_code == 2
    assert "--wait waits for an alias" in result.stderr


def test_a_port_in_use_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(brightness())
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        result = CliRunner().invoke(app, ["serve", str(path), "--port", port, "--runtime", "onnxruntime"])
    assert result.exit_code == 2
    assert f"cannot listen at 127.0.0.1 port {port} (Address already in use)" in result.stderr
