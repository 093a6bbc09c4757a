"""The real endpoint over real HTTP, in a thread of the test's own process, and images and models for it."""

import json
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import httpx
import numpy as np
import pytest
from small_models import brightness
from waiting import patience, wait_for

from nightshift.inference import runtime
from nightshift.serving import http
from nightshift.serving.app import create
from nightshift.serving.loaded_model import Options
from nightshift.serving.metrics import Metrics
from nightshift.serving.model_watcher import ModelWatcher
from nightshift.tracking import registry, runs


class Endpoint(NamedTuple):
    """A running endpoint: its port, and a client of it."""

    port: int
    client: httpx.Client

    def predict(self, data: bytes, kind: str = "application/octet-stream", query: str = "") -> httpx.Response:
        return self.client.post(f"/v1/predict{query}", content=data, headers={"Content-Type": kind})

    def form(self, *files: tuple[str, bytes]) -> httpx.Response:
        return self.client.post("/v1/predict", files=[("images", file) for file in files])

    def health(self) -> dict[str, Any]:
        return dict(self.client.get("/health").json())

    def meter(self, name: str) -> float:
        """One number of /metrics, 0 when it is not there yet."""
        found = re.search(rf"(?m)^nightshift_{re.escape(name)} (\S+)$", self.client.get("/metrics").text)
        return float(found[1]) if found else 0.0


def client_of(port: int) -> httpx.Client:
    """A client that waits as long as this machine may need."""
    return httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=patience(30), trust_env=False)


@contextmanager
def running(uri: str, *, wait: bool = False, **options: Any) -> Iterator[Endpoint]:
    """The endpoint on a free port, ended in order."""
    metrics, chosen = Metrics(), Options(**{"runtime": "onnxruntime", "poll_seconds": 0.1, **options})
    watcher = ModelWatcher(uri, chosen, metrics)
    watcher.open(wait=wait)
    listener = socket.create_server(("127.0.0.1", 0))
    server = http.server(create(watcher, chosen, metrics), chosen.queue)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    port = listener.getsockname()[1]
    try:
        with client_of(port) as client:
            yield Endpoint(port, client)
    finally:
        server.should_exit = True
        thread.join(patience(30))
    assert not thread.is_alive()


@contextmanager
def serving(uri: str, log: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """The command as a process of its own, and the port it listens at."""
    command = [sys.executable, "-m", "nightshift.cli", "serve", uri, "--port", "0", "--poll-seconds", "0.1"]
    with log.open("wb") as file, subprocess.Popen([*command, *arguments], stderr=file) as process:
        try:
            wait_for(lambda: process.poll() is not None or "event=listening" in log.read_text())
            found = re.search(r"address=http://127\.0\.0\.1:(\d+)", log.read_text())
            assert found, log.read_text()
            yield process, int(found[1])
        finally:
            process.kill()


def picture(grey: int = 250, kind: str = ".jpg", side: int = 20) -> bytes:
    """An image file of one brightness."""
    return bytes(cv2.imencode(kind, np.full((side, side, 3), grey, np.uint8))[1])


def facts(dark: str = "dark", bright: str = "bright", side: int = 8) -> dict[str, str]:
    return {
        "nightshift.classes": json.dumps([dark, bright]),
        "nightshift.preprocess": json.dumps({"image_size": side, "resize": "stretch"}),
    }


def promoted(name: str, bright: str = "bright", side: int = 8, model: bytes | None = None) -> str:
    """The version of a model registered now that calls bright images so; it is the champion."""
    version = registered(name, bright, side, model)
    registry.set_alias(name, registry.CHAMPION, version)
    return version


def registered(name: str, bright: str = "bright", side: int = 8, model: bytes | None = None) -> str:
    data = model or brightness(facts(bright=bright, side=side), side=side)
    run = runs.open_run(name, f"night of {bright}", params={})
    return registry.register_version(run, name, data, classes=2, shape=(side, side, 3), tags={})


def refusal(response: httpx.Response) -> tuple[int, str]:
    """Status and reason, of an answer that is nothing but a sentence and a reason."""
    content = response.json()
    assert content.keys() == {"error", "reason"}
    assert len(content["error"]) > 20
    return response.status_code, content["reason"]


def held(
    monkeypatch: pytest.MonkeyPatch, wait: Callable[[], object], name: runtime.Runtime = "onnxruntime"
) -> None:
    """The runtime does `wait` before each prediction that takes all of its threads."""
    load = runtime.LOADERS[name]

    def loaded(model: bytes) -> runtime.Loaded:
        found = load(model)
        return found._replace(run=lambda images: (wait(), found.run(images))[1])

    monkeypatch.setitem(runtime.LOADERS, name, loaded)  # type: ignore[arg-type]
