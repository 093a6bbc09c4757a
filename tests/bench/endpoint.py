"""Measure the live endpoint with photos over HTTP; lines go to bench.json.

python tests/bench/endpoint.py FOLDER [MODEL.onnx]      (JPEGs in any depth; nothing else may run)

Six minutes. Without a model it is an untrained int8 ResNet-18 at 224 pixels, which takes the time of a
trained one. Clients keep their connections and send the next photo when they have the answer to the last.
Debian's wrk measures the same rates, but leaves requests behind without waiting, which the slower peer goes
on computing beside the next measurement. The peers, in turn with it: the bare runtime on prepared pixels in
batches as large as the endpoint reached; a loop that decodes the same files and predicts them in batches of
that size, which is the most that a single client could get if HTTP took no time; and `mlflow models serve`
with the prepared pixels of an image as JSON in each request.
"""

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.request import urlopen

import numpy as np
from night import record
from untrained import int8_file

from nightshift.data.images import prepare
from nightshift.evaluation.benchmark import Process
from nightshift.hardware import processor
from nightshift.inference import model_file, runtime

CLIENTS = (1, 8, 64)
ROUNDS = int(os.environ.get("NIGHTSHIFT_BENCH_REPEATS", "3"))
SECONDS = float(os.environ.get("NIGHTSHIFT_BENCH_SECONDS", "8"))
PHOTOS = 256
THREADS = processor.threads()


LOOP = """
import sys, time
import cv2, numpy as np
from pathlib import Path
from nightshift.inference import model_file
from nightshift.data.images import prepare
from nightshift.inference.runtime import Session
model, photos, runtime, batch, limit = sys.argv[1:]
model, batch = model_file.load(model), int(batch)
session, files = Session(model.data, runtime), [Path(path).read_bytes() for path in photos.splitlines()]
cv2.setNumThreads(1)
def one(start):
    some = [files[(start + number) % len(files)] for number in range(batch)]
    session.predict(np.stack([prepare(data, model.preprocess) for data in some]))
for start in range(20):
    one(start)
images, begun = 0, time.perf_counter()
while time.perf_counter() - begun < float(limit):
    one(images)
    images += batch
print(images / (time.perf_counter() - begun))
"""


class Served(NamedTuple):
    """A server to send requests to: its port, and one whole request for each photo."""

    port: int
    requests: list[bytes]


class Subject(NamedTuple):
    """What is measured: the file, photos and what they are prepared to, and the fastest runtime for them."""

    path: Path
    photos: list[Path]
    images: Path
    runtime: str


class Load(NamedTuple):
    """What clients saw: answers a second, and the seconds that each of them took."""

    rate: float
    seconds: list[float]


def main(photos: str, file: str | None = None) -> int:
    paths = sorted(path for path in Path(photos).rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
    paths = paths[:PHOTOS]
    files = [path.read_bytes() for path in paths]
    if len(files) < PHOTOS:
        raise SystemExit(f"{photos} holds {len(files)} photos; {PHOTOS} are needed")
    with tempfile.TemporaryDirectory(prefix="nightshift-bench-", dir="/var/tmp") as folder:
        path = Path(file) if file else int8_file(photos, folder)
        model = model_file.load(str(path))
        pixels = np.stack([prepare(data, model.preprocess) for data in files])
        images = Path(folder, "images.npy")
        np.save(images, pixels)
        chosen = runtime.fastest(model.data, pixels, batch=16).session.runtime
        subject = Subject(path, paths, images, chosen)
        with endpoint(subject, files) as ours, mlflow_server(model.data, pixels, folder) as peer:
            for clients in CLIENTS:
                measure(subject, ours, peer, clients)
    return 0


def measure(subject: Subject, ours: Served, peer: Served, clients: int) -> None:
    """The endpoint and its peers in turn; the rates' medians count, and the quantiles of all answers."""
    mine, theirs, bare, loop, sizes = [], [], [], [], []
    for served in (ours, peer):
        asyncio.run(load(served, clients, 1))
    for _ in range(ROUNDS):
        before = batches(ours.port)
        mine.append(asyncio.run(load(ours, clients, SECONDS)))
        images, calls = (after - then for after, then in zip(batches(ours.port), before, strict=True))
        sizes.append(images / calls)
        bare.append(alone(subject, max(1, round(sizes[-1]))))
        loop.append(in_turn(subject, max(1, round(sizes[-1]))))
        theirs.append(asyncio.run(load(peer, clients, SECONDS)))
    rate, other = (statistics.median(each.rate for each in loads) for loads in (mine, theirs))
    name, size = f"{subject.path.stem} at the endpoint, {clients} clients", statistics.median(sizes)
    batch = f"{subject.runtime} alone, batch {max(1, round(size))}"
    record(name, rate, "images/s", batch, statistics.median(bare))
    record(name, rate, "images/s", "decoding and predicting in turn", statistics.median(loop))
    record(name, rate, "images/s", "mlflow models serve", other)
    record(f"{name}: a batch", size, "images")
    for percent in (50, 99):
        ms, peer_ms = (
            1000 * float(np.percentile([second for each in loads for second in each.seconds], percent))
            for loads in (mine, theirs)
        )
        record(f"{name}: p{percent}", ms, "ms", "mlflow models serve", peer_ms)


async def load(served: Served, clients: int, seconds: float) -> Load:
    """So many clients at once, for so long."""
    end = time.perf_counter() + seconds
    begun = time.perf_counter()
    found = await asyncio.gather(*(client(served, number, end) for number in range(clients)))
    taken = [second for each in found for second in each]
    return Load(len(taken) / (time.perf_counter() - begun), taken)


async def client(served: Served, number: int, end: float) -> list[float]:
    """The seconds of each answer to one client."""
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port, limit=2**20)
    taken = []
    try:
        while not taken or time.perf_counter() < end:
            begun = time.perf_counter()
            writer.write(served.requests[number % len(served.requests)])
            number += 7
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"(?i)content-length: (\d+)", head)
            body = await reader.readexactly(int(length[1]) if length else 0)
            if b" 200 " not in head[:16]:
                raise SystemExit(f"the server answered {head[:200]!r} {body[:500]!r}")
            taken.append(time.perf_counter() - begun)
    finally:
        writer.close()
    return taken


def request(path: str, kind: str, body: bytes) -> bytes:
    head = (
        f"POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def batches(port: int) -> tuple[float, float]:
    """Images and calls of the model so far."""
    text = get(port, "/metrics")
    images, calls = (
        re.search(rf"(?m)^nightshift_batch_size_{part} (\S+)$", text) for part in ("sum", "count")
    )
    if not images or not calls:
        raise SystemExit(f"the endpoint has no metrics: {text[:500]}")
    return float(images[1]), float(calls[1])


def alone(subject: Subject, batch: int) -> float:
    """Images per second of the runtime in a process of its own."""
    process = Process(subject.path.name, (subject.path, subject.images), subject.runtime, THREADS)
    try:
        process.load()
        command = {"batch": batch, "calls": 1_000_000, "limit": SECONDS, "warm": 2}
        seconds = process.ask(command)["seconds"]
    finally:
        process.end()
    return batch * len(seconds) / sum(seconds)


def in_turn(subject: Subject, batch: int) -> float:
    """Images per second of a process that decodes so many files, predicts them, and goes on."""
    photos = "\n".join(str(path) for path in subject.photos)
    given = (str(subject.path), photos, subject.runtime, str(batch), str(SECONDS))
    command = [sys.executable, "-c", LOOP, *given]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout)


@contextmanager
def endpoint(subject: Subject, files: list[bytes]) -> Iterator[Served]:
    port = free_port()
    command = [sys.executable, "-m", "nightshift.cli", "serve", str(subject.path), "--port", str(port)]
    with running([*command, "--runtime", subject.runtime], port, "/ready"):
        yield Served(port, [request("/v1/predict", "image/jpeg", data) for data in files])


@contextmanager
def mlflow_server(model: bytes, pixels: np.ndarray, folder: str) -> Iterator[Served]:
    """MLflow's own server of the same file, and requests for it."""
    import mlflow
    import onnx
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    given = Schema([TensorSpec(np.dtype("uint8"), (-1, *pixels.shape[1:]), "images")])
    saved, port = Path(folder, "mlflow-model"), free_port()
    mlflow.onnx.save_model(
        onnx.load_model_from_string(model),
        saved,
        signature=ModelSignature(given),
        pip_requirements=["onnxruntime"],
    )
    command = [sys.executable, "-m", "mlflow", "models", "serve", "--model-uri", str(saved)]
    command += ["--env-manager", "local", "--host", "127.0.0.1", "--port", str(port)]
    bodies = [json.dumps({"inputs": {"images": image[None].tolist()}}).encode() for image in pixels[:64]]
    with running(command, port, "/ping"):
        yield Served(port, [request("/invocations", "application/json", body) for body in bodies])


@contextmanager
def running(command: list[str], port: int, path: str) -> Iterator[None]:
    """A server that answers 200 at `path`, in a session of its own so that its children end with it."""
    with tempfile.TemporaryFile() as log:
        folders = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # uvicorn for MLflow
        variables = os.environ | {"PATH": folders}
        server = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, env=variables)
        try:
            end = time.monotonic() + 120
            while not answers(port, path):
                if server.poll() is not None or time.monotonic() > end:
                    log.seek(0)
                    raise SystemExit(f"{' '.join(command)} does not answer:\n{log.read()[-3000:].decode()}")
                time.sleep(0.2)
            yield
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGTERM)
            server.wait()


def answers(port: int, path: str) -> bool:
    try:
        get(port, path)
    except OSError:
        return False
    return True


def get(port: int, path: str) -> str:
    with urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
        return str(answer.read().decode())


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
