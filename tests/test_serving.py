"""The live endpoint: what it answers, refuses and counts, and how it batches."""

import hashlib
import re
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import joblib
import pytest
from endpoints import Endpoint, held, picture, refusal, running
from small_models import BRIGHTNESS, brightness
from waiting import patience, wait_for

from nightshift.hardware import processor
from nightshift.inference import runtime
from nightshift.inference.portability import PAIR_SUM
from nightshift.serving import events, uploads
from nightshift.serving.recent_images import RecentImages

MODEL = brightness()


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("model") / "brightness.onnx"
    path.write_bytes(MODEL)
    return str(path)


@pytest.fixture(scope="module")
def endpoint(model_file: str) -> Iterator[Endpoint]:
    """One for all tests that leave it as it is."""
    with running(model_file, max_megabytes=1, max_pixels=10_000, queue=4) as found:
        yield found


@pytest.mark.parametrize("kind", ["jpg", "png", "webp"])
def test_one_image_is_answered_with_the_model_that_saw_it(
    endpoint: Endpoint, model_file: str, kind: str
) -> None:
    answer = endpoint.predict(picture(250, f".{kind}"), f"image/{kind.replace('jpg', 'jpeg')}")
    assert answer.status_code == 200
    assert answer.json() == {
        "model": {"uri": model_file, "version": "", "sha256": hashlib.sha256(MODEL).hexdigest()},
        "predictions": [
            {"label": "bright", "probability": 1.0, "top": [{"label": "bright", "probability": 1.0}]}
        ],
    }


def test_as_many_labels_as_there_are_come_best_first(endpoint: Endpoint) -> None:
    (found,) = endpoint.predict(picture(129, ".png"), query="?top=9").json()["predictions"]
    assert [each["label"] for each in found["top"]] == ["bright", "dark"]
    assert [each["probability"] for each in found["top"]] == pytest.approx([0.8808, 0.1192], abs=1e-3)
    assert found["top"][0] == {"label": found["label"], "probability": found["probability"]}


def test_many_images_keep_their_order_and_bad_ones_say_why(endpoint: Endpoint) -> None:
    answer = endpoint.form(
        ("day.png", picture(255, ".png")),
        ("broken.jpg", picture()[:-30]),
        ("letter.txt", b"dear reader"),
        ("night.webp", picture(3, ".webp")),
    )
    assert answer.status_code == 200
    found = answer.json()["predictions"]
    assert [(each["file"], each.get("label"), each.get("reason")) for each in found] == [
        ("day.png", "bright", None),
        ("broken.jpg", None, "truncated"),
        ("letter.txt", None, "unsupported"),
        ("night.webp", "dark", None),
    ]
    assert "no JPEG" not in found[1]["error"]
    assert found[1].keys() == {"file", "error", "reason"}


@pytest.mark.parametrize(
    ("data", "kind", "expected"),
    [
        (b"", "image/jpeg", (400, "empty")),
        (b"GIF89a and more", "image/jpeg", (415, "unsupported")),
        (picture(250, ".bmp"), "application/octet-stream", (415, "unsupported")),
        (picture(), "text/plain", (415, "media-type")),
        (picture()[:-30], "image/jpeg", (422, "truncated")),
        (picture(250, ".png").replace(b"IDAT", b"IDAT\xff", 1), "image/png", (422, "truncated")),
        (picture(250, ".png", side=101), "image/png", (413, "too-large")),
        (b"\xff\xd8\xff" + bytes(2**20), "image/jpeg", (413, "too-large")),
        (b"no form at all", "multipart/form-data; boundary=x", (400, "form")),
        (b"no form at all", "multipart/form-data", (400, "form")),
        (
            b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\nword\r\n--x--',
            "multipart/form-data; boundary=x",
            (400, "form"),
        ),
        (b"--x--\r\n", "multipart/form-data; boundary=x", (400, "empty")),
    ],
)
def test_what_cannot_be_answered_is_one_sentence_and_a_reason(
    endpoint: Endpoint, data: bytes, kind: str, expected: tuple[int, str]
) -> None:
    counter = f'images_refused_total{{reason="{expected[1]}"}}'
    before = endpoint.meter(counter)
    assert refusal(endpoint.predict(data, kind)) == expected
    assert endpoint.meter(counter) == before + 1
    assert endpoint.meter("waiting_images") == 0


def test_wrong_addresses_and_parameters_are_sentences_too(endpoint: Endpoint) -> None:
    assert refusal(endpoint.predict(picture(), query="?top=0")) == (422, "parameter")
    assert refusal(endpoint.client.get("/nowhere")) == (404, "address")
    wrong = endpoint.client.get("/v1/predict")
    assert refusal(wrong) == (405, "address")
    assert wrong.headers["Allow"] == "POST"


def test_more_images_than_may_ever_wait_are_no_reason_to_come_again(endpoint: Endpoint) -> None:
    many = endpoint.form(*[(f"{number}.jpg", picture()) for number in range(5)])
    assert refusal(many) == (413, "too-many")


def connect(endpoint: Endpoint, head: str) -> socket.socket:
    """A connection on which the head of a request was sent."""
    connection = socket.create_connection(("127.0.0.1", endpoint.port), timeout=patience(20))
    connection.sendall(f"POST /v1/predict HTTP/1.1\r\nHost: x\r\n{head}\r\n\r\n".encode())
    return connection


def status(connection: socket.socket) -> int:
    return int(connection.recv(65536).split()[1])


def test_a_body_that_says_it_is_too_long_is_not_read(endpoint: Endpoint) -> None:
    with connect(endpoint, f"Content-Length: {10**12}") as connection:
        assert status(connection) == 413


def test_a_body_without_a_length_is_stopped_at_the_limit(endpoint: Endpoint) -> None:
    sent = 0
    with connect(endpoint, "Transfer-Encoding: chunked") as connection:
        try:
            while sent < 200 * 2**20:
                connection.sendall(b"10000\r\n" + bytes(65536) + b"\r\n")
                sent += 65536
        except OSError:
            pass  # it was closed
        assert status(connection) == 413
    assert sent < 40 * 2**20  # a MiB, and what the system keeps on both sides


def test_a_body_that_does_not_come_is_not_waited_for(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "SECONDS", 0.2)
    with connect(endpoint, "Content-Length: 100") as connection:
        assert status(connection) == 408


def test_when_there_is_no_room_it_says_when_to_come_again(endpoint: Endpoint) -> None:
    data = picture()
    halves = [connect(endpoint, f"Content-Length: {len(data)}") for _ in range(4)]
    for connection in halves:
        connection.sendall(data[:100])
    wait_for(lambda: endpoint.meter("waiting_images") == 4)
    full = endpoint.predict(data)
    assert refusal(full) == (503, "full")
    assert int(full.headers["Retry-After"]) >= 1
    halves.pop().close()
    wait_for(lambda: endpoint.meter("waiting_images") == 3)
    assert refusal(endpoint.form(("1.jpg", data), ("2.jpg", data))) == (503, "full")
    assert endpoint.predict(data).status_code == 200
    for connection in halves:
        connection.sendall(data[100:])
        assert status(connection) == 200
        connection.close()
    assert endpoint.predict(data).status_code == 200


def test_requests_that_come_together_are_computed_together(
    model_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, free = threading.Event(), threading.Event()
    free.set()
    held(monkeypatch, lambda: (begun.set(), free.wait()))
    with running(model_file, max_batch=8) as endpoint, ThreadPoolExecutor(17) as pool:
        begun.clear()
        free.clear()

        def ask(number: int) -> tuple[int, str]:
            (found,) = endpoint.predict(picture(255 * (number % 2))).json()["predictions"]
            return number % 2, found["label"]

        answers = [pool.submit(ask, 0)]
        assert begun.wait(patience(20))
        answers += [pool.submit(ask, number) for number in range(1, 17)]
        wait_for(lambda: endpoint.meter("ready_images") == 16)
        assert endpoint.meter("waiting_images") == 17
        free.set()
        assert {answer.result() for answer in answers} == {(0, "dark"), (1, "bright")}
        assert endpoint.meter("batch_size_sum") == endpoint.meter("images_total") == 17
        assert endpoint.meter("batch_size_count") == 3  # the first alone, then eight and eight
        assert endpoint.meter('batch_size_bucket{le="4.0"}') == 1
        assert endpoint.meter('batch_size_bucket{le="8.0"}') == 3
        assert endpoint.meter('requests_total{status="200"}') == 17
        assert endpoint.meter("request_seconds_count") == 17


@pytest.mark.skipif("openvino" not in runtime.installed(), reason="OpenVINO is not installed")
@pytest.mark.skipif(joblib.cpu_count() < 2, reason="OpenVINO has one lane on one core")
def test_a_runtime_with_lanes_computes_calls_side_by_side(
    model_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NIGHTSHIFT_THREADS", "2")
    begun, free = threading.Event(), threading.Event()
    free.set()
    held(monkeypatch, lambda: (begun.set(), free.wait()), "openvino")
    with running(model_file, runtime="openvino") as endpoint, ThreadPoolExecutor(8) as pool:
        begun.clear()
        free.clear()
        first = pool.submit(endpoint.predict, picture(255))  # alone, so all threads are its own
        assert begun.wait(patience(20))
        assert endpoint.predict(picture(0)).json()["predictions"][0]["label"] == "dark"
        assert not first.done()
        free.set()
        assert first.result().json()["predictions"][0]["label"] == "bright"
        many = [picture(255 * (number % 2)) for number in range(40)]
        answers = pool.map(endpoint.predict, many)
        labels = [answer.json()["predictions"][0]["label"] for answer in answers]
        assert labels == ["dark", "bright"] * 20


@pytest.mark.skipif("openvino" not in runtime.installed(), reason="OpenVINO is not installed")
@pytest.mark.skipif(joblib.cpu_count() < 2, reason="OpenVINO has one lane on one core")
def test_a_lane_takes_its_share_and_the_choice_of_a_runtime_is_told_of_all(
    model_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NIGHTSHIFT_THREADS", "2")
    calls: list[tuple[int, int]] = []
    add, share = RecentImages.add, runtime.Session.share
    begun, shared, free = threading.Event(), threading.Event(), threading.Event()
    free.set()
    held(monkeypatch, lambda: (begun.set(), free.wait()), "openvino")
    monkeypatch.setattr(
        runtime.Session, "share", lambda *given: (shared.set(), free.wait(), share(*given))[-1]
    )
    monkeypatch.setattr(
        RecentImages, "add", lambda *given: (calls.append((len(given[2]), given[3])), add(*given))[-1]
    )
    with running(model_file, runtime="openvino", max_batch=16) as endpoint, ThreadPoolExecutor(18) as pool:
        for event in (begun, shared, free):
            event.clear()
        answers = [pool.submit(endpoint.predict, picture())]
        assert begun.wait(patience(20))
        answers.append(pool.submit(endpoint.predict, picture()))
        assert shared.wait(patience(20))  # both lanes are taken
        answers += [pool.submit(endpoint.predict, picture()) for _ in range(16)]
        wait_for(lambda: endpoint.meter("ready_images") == 16)
        free.set()
        assert {answer.result().status_code for answer in answers} == {200}
    assert (4, 16) in calls
    assert sum(images for images, _ in calls) == 18


def test_documentation_needs_nothing_from_elsewhere(endpoint: Endpoint) -> None:
    page = endpoint.client.get("/docs")
    assert page.headers["Content-Type"].startswith("text/html")
    assert not re.search(r"https?:|src=|<script|<link|@import|url\(", page.text)
    assert re.findall(r'href="([^"]+)"', page.text) == ["openapi.json"]
    schema = endpoint.client.get("/openapi.json").json()
    assert schema["paths"].keys() == {"/v1/predict", "/health", "/ready", "/metrics"}
    for path in schema["paths"]:
        assert path in page.text
    assert schema["paths"]["/v1/predict"]["post"]["requestBody"]["content"].keys() >= {"image/webp"}
    for name in schema["components"]["schemas"]:
        assert f'id="{name}"' in page.text


def test_prometheus_reads_the_metrics(endpoint: Endpoint) -> None:
    answer = endpoint.client.get("/metrics")
    assert answer.headers["Content-Type"].startswith("text/plain; version=")
    assert f'sha256="{hashlib.sha256(MODEL).hexdigest()}"' in answer.text
    assert "process_resident_memory_bytes" in answer.text


def test_a_file_is_ready_and_not_followed(endpoint: Endpoint) -> None:
    assert endpoint.client.get("/ready").status_code == 200
    found = endpoint.health()
    assert (found["status"], found["runtime"]) == ("serving", "onnxruntime")
    assert "is not followed" in found["following"]


def test_events_are_one_line_without_passwords(capsys: pytest.CaptureFixture[str]) -> None:
    events.say("tried", at="http://me:secret@host/x", words='two "words"', number=3, empty="")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith(r'event=tried at=http://host/x words="two \"words\"" number=3 empty=""')


def test_a_file_that_could_saturate_is_served_exactly_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "cpuinfo").write_text("model name : Old One\nflags : fpu avx2\n")
    monkeypatch.setattr(processor, "CPUINFO", tmp_path / "cpuinfo")
    file = tmp_path / "wide.onnx"
    file.write_bytes(brightness({**BRIGHTNESS, PAIR_SUM: "64770"}))
    with running(str(file), runtime="auto") as found:
        assert found.health()["runtime"] == runtime.EXACT
        (answer,) = found.predict(picture(250, ".png"), "image/png").json()["predictions"]
    assert answer["label"] == "bright"
    (said,) = [line for line in capfd.readouterr().err.splitlines() if "event=model_not_portable" in line]
    assert "Old One has neither VNNI" in said
