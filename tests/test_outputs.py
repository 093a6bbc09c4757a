"""What stages made: named by its bytes, found again while it is whole, the first record stays."""

import hashlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from pydantic import BaseModel
from test_storage import use_endpoint

from nightshift import storage
from nightshift.errors import InputError
from nightshift.records import Artifact
from nightshift.storage import outputs


class Made(BaseModel):
    """A record like those of the stages."""

    file: Artifact
    by: str


def files(record: Made) -> list[Artifact]:
    return [record.file]


@pytest.fixture
def folder(tmp_path) -> str:
    return f"file://{tmp_path}/checkpoints/k"


def test_a_late_twin_with_other_bytes_overwrites_nothing(folder):
    uri = f"{folder}/checkpoint.json"
    mine = Made(file=outputs.write(folder, "model.safetensors", b"mine"), by="me")
    assert outputs.claim(uri, mine, files) == mine
    late = Made(file=outputs.write(folder, "model.safetensors", b"late"), by="twin")
    assert outputs.claim(uri, late, files) == mine
    assert outputs.found(uri, Made, files) == mine
    assert storage.read_artifact(mine.file) == b"mine"


@pytest.mark.parametrize("harm", [None, b"", b"other size"])
def test_what_lost_a_file_is_not_found_and_may_be_made_again(folder, harm, capsys):
    uri = f"{folder}/checkpoint.json"
    first = Made(file=outputs.write(folder, "model.onnx", b"mine"), by="me")
    outputs.claim(uri, first, files)
    if harm is None:
        storage.delete(first.file.uri)
    else:
        storage.write(first.file.uri, harm)
    assert outputs.found(uri, Made, files) is None
    assert f"made again: {first.file.uri} is not there, or not whole" in capsys.readouterr().out
    other = Made(file=outputs.write(folder, "model.onnx", b"yours"), by="other")
    assert outputs.claim(uri, other, files) == other
    assert outputs.found(uri, Made, files) == other


def test_a_record_that_is_none_is_not_found(folder, capsys):
    uri = f"{folder}/checkpoint.json"
    assert outputs.found(uri, Made, files) is None
    storage.write(uri, b"{")
    assert outputs.found(uri, Made, files) is None
    assert "is no Made" in capsys.readouterr().out


@pytest.mark.parametrize("mark", outputs.MARKS)
def test_damaged_bytes_take_the_mark_beside_them_away(folder, mark):
    file = outputs.write(folder, "model.onnx", b"mine")
    storage.write(f"{folder}/{mark}", b"{}")
    assert outputs.read(file) == b"mine"
    assert storage.exists(f"{folder}/{mark}")
    storage.write(file.uri, b"mime")
    with pytest.raises(InputError, match="changed or damaged; the next night makes it again"):
        outputs.read(file)
    assert not storage.exists(f"{folder}/{mark}")


@pytest.mark.parametrize("mark", outputs.MARKS)
def test_the_mark_stays_where_the_store_refuses_to_answer(folder, mark, monkeypatch):
    file = outputs.write(folder, "model.onnx", b"mine")
    storage.write(f"{folder}/{mark}", b"{}")
    refusal = InputError("the store answers 403 AccessDenied")

    def refuse(_: str) -> bytes:
        raise refusal

    monkeypatch.setattr(storage, "read", refuse)
    with pytest.raises(InputError) as raised:
        outputs.read(file)
    assert raised.value is refusal
    assert storage.exists(f"{folder}/{mark}")


class OneObject(BaseHTTPRequestHandler):
    """An S3 server of one object that knows `If-None-Match`, as AWS does."""

    protocol_version = "HTTP/1.1"
    lock = threading.Lock()
    content: bytes | None = None

    def do_PUT(self) -> None:
        data = self.rfile.read(int(self.headers["Content-Length"]))
        with self.lock:
            if self.headers["If-None-Match"] == "*" and type(self).content is not None:
                return self.answer(412)
            type(self).content = data
        return self.answer(200)

    def do_GET(self) -> None:
        self.answer(404 if self.content is None else 200, self.content or b"")

    def answer(self, status: int, body: bytes = b"") -> None:
        self.send_response(status)
        self.send_header("ETag", f'"{hashlib.md5(body).hexdigest()}"')  # noqa: S324 (as S3 has it)
        self.send_header("Last-Modified", "Tue, 01 Dec 2026 00:00:00 GMT")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing."""


@pytest.fixture(params=["disk", "S3 with conditions"])
def contested(request, tmp_path, monkeypatch) -> Iterator[str]:
    """Where several write the same record; on S3 the bucket `test`."""
    if request.param == "disk":
        yield f"file://{tmp_path}/checkpoint.json"
        return
    OneObject.content = None
    with ThreadingHTTPServer(("127.0.0.1", 0), OneObject) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        use_endpoint(f"http://127.0.0.1:{server.server_port}", monkeypatch)
        yield "s3://test/checkpoint.json"
        server.shutdown()


def test_of_many_writers_at_once_one_is_first(contested):
    records = [Made(file=Artifact(uri="x", sha256="0", size=1), by=str(number)) for number in range(24)]
    start = threading.Barrier(len(records))

    def write(record: Made) -> bool:
        start.wait()
        return storage.create_record(contested, record)

    with ThreadPoolExecutor(len(records)) as pool:
        first = list(pool.map(write, records))
    assert sum(first) == 1
    assert storage.read_record(contested, Made) == records[first.index(True)]


def test_who_comes_between_looking_and_writing_is_first(folder, monkeypatch):
    uri = f"{folder}/checkpoint.json"
    mine = Made(file=outputs.write(folder, "model.safetensors", b"mine"), by="me")
    late = Made(file=outputs.write(folder, "model.safetensors", b"late"), by="twin")
    real = storage.create_record

    def create(at: str, record: BaseModel) -> bool:
        real(at, mine)
        return real(at, record)

    monkeypatch.setattr(storage, "create_record", create)
    assert outputs.claim(uri, late, files) == mine
