"""A registered model behind MLflow's own server, asked over HTTP: what others do with it just works."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from predicting import Lights
from waiting import listens, patience, wait_for


@pytest.fixture
def address(lights: Lights, tmp_path: Path) -> Iterator[str]:
    """`mlflow models serve` of the champion, on a free port of the loopback interface."""
    lights.register()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        *(sys.executable, "-m", "mlflow", "models", "serve", "--env-manager", "local"),
        *("--model-uri", f"models:/{lights.pipeline.name}@champion", "--port", str(port)),
    ]
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # it looks for uvicorn there
    environment = os.environ | {"MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false", "PATH": programs}
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen(
            command, env=environment, cwd=tmp_path, stdout=log, stderr=log, start_new_session=True
        )
    try:
        wait_for(lambda: listens(port) or server.poll() is not None, "the model's server to start", 120)
        assert server.poll() is None, (tmp_path / "log").read_text(encoding="utf-8")
        yield f"http://127.0.0.1:{port}/invocations"
    finally:
        if server.poll() is None:
            os.killpg(server.pid, 15)
        server.wait(patience(30))


def ask(url: str, body: object) -> httpx.Response:
    return httpx.post(url, json=body, timeout=patience(60))


def test_mlflow_serves_a_registered_model_without_pickle(address: str) -> None:
    images = np.stack([np.full((8, 8, 3), grey, np.uint8) for grey in (250, 3)])
    found = ask(address, {"inputs": {"images": images.tolist()}}).json()["predictions"]
    assert found["label"] == [1, 0]
    assert np.allclose(found["probabilities"], [[0, 1], [1, 0]])
    assert ask(address, {"inputs": {"images": [[[[300, 0, 0]]]]}}).status_code == 400
