"""The endpoint against strangers: connections that stay open, bodies that pile up, images that are bombs."""

import contextlib
import io
import os
import random
import re
import shlex
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from bombs import CARRIERS, deep_png, empty_segments, exif, png
from endpoints import Endpoint, client_of, picture, refusal, running, serving
from PIL import Image
from small_models import brightness
from waiting import patience, wait_for

from nightshift.serving import http

REQUESTS = int(os.environ.get("NIGHTSHIFT_HOSTILE_REQUESTS", "300"))  # 10,000 take half an hour
ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("model") / "brightness.onnx"
    path.write_bytes(brightness())
    return str(path)


@pytest.fixture(scope="module")
def endpoint(model_file: str) -> Iterator[Endpoint]:
    with running(model_file, max_megabytes=4, queue_megabytes=4, queue=8, decode_megabytes=64) as found:
        yield found


def connected(endpoint: Endpoint) -> socket.socket:
    return socket.create_connection(("127.0.0.1", endpoint.port), timeout=patience(20))


def ended(connection: socket.socket) -> bytes:
    """What still came until the server closed it."""
    received = b""
    try:
        while data := connection.recv(65536):
            received += data
    except ConnectionResetError:
        pass
    return received


def test_headers_that_do_not_come_are_not_waited_for(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "HEADER_SECONDS", 0.5)
    silent, slow, second = (connected(endpoint) for _ in range(3))
    slow.sendall(b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nX-A: ")
    second.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
    assert b" 200 OK" in second.recv(65536)
    second.sendall(b"GET /health HTTP/1.1\r\nHost: ")
    for connection in (silent, slow, second):
        assert ended(connection) == b""
        connection.close()


def test_who_reads_no_answers_is_not_waited_for(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "READ_SECONDS", 0.5)
    with connected(endpoint) as deaf, pytest.raises((ConnectionResetError, BrokenPipeError)):
        ask_for_ever(deaf)


def ask_for_ever(connection: socket.socket) -> None:
    """Until nothing between the two takes more, and the connection ends."""
    while True:
        connection.sendall(b"GET /docs HTTP/1.1\r\nHost: x\r\n\r\n" * 1000)


def test_headers_without_end_are_refused(endpoint: Endpoint) -> None:
    with connected(endpoint) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\nX: " + b"x" * (http.HEADER_BYTES + 10_000))
        assert ended(connection).startswith(b"HTTP/1.1 400 ")


def test_connections_beyond_the_limit_are_told_or_closed(
    model_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "SPARE", 4)
    monkeypatch.setattr(http, "HEADER_SECONDS", patience(60))  # silent ones stay while this runs
    with running(model_file, queue=4) as endpoint:
        idle = [connected(endpoint) for _ in range(16)]
        with connected(endpoint) as refused:
            assert ended(refused) == b""
        for connection in idle[8:]:
            connection.close()
        wait_for(lambda: is_told(endpoint), "an answer once it is known that others were closed")
        for connection in idle[:8]:
            connection.close()
        wait_for(lambda: endpoint.client.get("/health").status_code == 200)


def is_told(endpoint: Endpoint) -> bool:
    """Whether a connection beyond the limit is answered with 503."""
    with connected(endpoint) as beyond, contextlib.suppress(OSError):
        beyond.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        return ended(beyond).startswith(b"HTTP/1.1 503 ")
    return False


def test_bodies_that_wait_are_limited_in_bytes(endpoint: Endpoint) -> None:
    size = 3 * 2**20
    with connected(endpoint) as half:
        half.sendall(f"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n".encode())
        half.sendall(bytes(size - 1))
        wait_for(lambda: endpoint.predict(bytes(2 * 2**20)).status_code == 503)
        full = endpoint.predict(bytes(2 * 2**20))
        assert refusal(full) == (503, "full")
        assert int(full.headers["Retry-After"]) >= 1
        assert "8 images or 4 MiB" in full.json()["error"]
        assert endpoint.predict(picture()).status_code == 200
    wait_for(lambda: endpoint.predict(bytes(2 * 2**20)).status_code == 415)


def test_a_bomb_costs_one_answer(endpoint: Endpoint) -> None:
    """Of 16 bits and four channels: few pixels, and eight bytes for each of them."""
    bomb = deep_png(2600)
    assert len(bomb) < 100_000
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(endpoint.predict, [bomb, picture(), bomb, picture()]))
    assert [answer.status_code for answer in answers] == [413, 200, 413, 200]
    assert refusal(answers[0]) == (413, "too-much-memory")


@pytest.mark.parametrize("path", ["/health", "/ready", "/metrics", "/docs", "/openapi.json"])
def test_every_page_answers_head(endpoint: Endpoint, path: str) -> None:
    answer = endpoint.client.head(path)
    assert (answer.status_code, answer.content) == (200, b"")
    assert int(answer.headers["Content-Length"]) > 10


@pytest.mark.parametrize(
    "kind",
    ["", "image/jpg", "image/*", "image/pjpeg", "IMAGE/JPEG; q=1", "binary/octet-stream"],
)
def test_the_bytes_decide_what_an_image_is(endpoint: Endpoint, kind: str) -> None:
    assert endpoint.predict(picture(), kind).status_code == 200


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_curl_commands_of_the_guide_are_answered(endpoint: Endpoint, tmp_path: Path) -> None:
    guide = (ROOT / "docs/predictions.md").read_text(encoding="utf-8")
    commands = re.findall(r"^curl .*predict.*$", guide, re.M)
    assert len(commands) >= 2
    for name in ("digit.png", "one.jpg", "two.png"):
        (tmp_path / name).write_bytes(picture(250, Path(name).suffix))
    for command in commands:
        here = command.replace("127.0.0.1:8500", f"127.0.0.1:{endpoint.port}")
        quiet = ("--silent", "--noproxy", "*", "--write-out", " %{http_code}")
        done = subprocess.run([*shlex.split(here), *quiet], cwd=tmp_path, capture_output=True, check=True)
        said = done.stdout.decode()
        assert said.endswith(" 200"), said
        assert '"bright"' in said


def mutated(generator: random.Random) -> bytes:
    """A file of one of the kinds that are taken, changed, cut or made to be a bomb."""
    data = bytearray(generator.choice(SEEDS)(generator))
    for _ in range(generator.choice((0, 1, 2, 8, 64))):
        data[generator.randrange(min(len(data), generator.choice((64, 1024, len(data)))))] ^= (
            generator.randrange(1, 256)
        )
    return bytes(data[: generator.choice((len(data), len(data), generator.randrange(1, len(data))))])


def _saved(kind: str, **options: object) -> Callable[[random.Random], bytes]:
    def save(generator: random.Random) -> bytes:
        side, buffer = generator.choice((1, 16, 200)), io.BytesIO()
        image = Image.frombytes("RGB", (side, side), generator.randbytes(3 * side * side))
        image.save(buffer, kind, **options)
        return buffer.getvalue()

    return save


SEEDS: tuple[Callable[[random.Random], bytes], ...] = (
    _saved("JPEG"),
    _saved("JPEG", progressive=True),
    _saved("PNG"),
    _saved("PNG", save_all=True, append_images=[Image.new("RGB", (9, 9))]),
    _saved("WEBP"),
    _saved("WEBP", lossless=True),
    *(lambda generator, make=make: make(exif(900, 60_000)) for make in CARRIERS.values()),
    lambda generator: deep_png(generator.choice((600, 2600))),
    lambda generator: empty_segments(60_000, 20_000),
    lambda generator: png(60_000, 60_000),
)


def test_hostile_requests_never_end_it_nor_take_more_memory(model_file: str, tmp_path: Path) -> None:
    log, generator, seen, peak = tmp_path / "log", random.Random(0), set(), 0
    limits = ("--decode-megabytes", "64", "--queue-megabytes", "16", "--runtime", "onnxruntime")
    with serving(model_file, log, *limits) as (process, port), client_of(port) as client:
        for number in range(REQUESTS):
            data = mutated(generator)
            if number % 7 == 0:
                answer = client.post("/v1/predict", files=[("images", (f"{n}", data)) for n in range(3)])
            else:
                answer = client.post("/v1/predict", content=data)
            seen.add(answer.status_code)
            if number % 25 == 24:
                peak = max(peak, memory(process.pid))
        assert client.post("/v1/predict", content=picture()).status_code == 200
        assert process.poll() is None
    assert seen <= {200, 400, 413, 415, 422}
    assert seen >= {200, 413, 415, 422}
    print(f"{REQUESTS} requests, at most {peak >> 20} MiB")
    assert 0 < peak < 512 * 2**20
    assert "Traceback" not in log.read_text()


def memory(pid: int) -> int:
    """Bytes of a process and its children; what they share counts once."""
    process = psutil.Process(pid)
    return sum(each.memory_full_info().pss for each in (process, *process.children(recursive=True)))
