"""Objects of S3 servers that fail, mix things up or hold unusual keys."""

import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

import boto3
import pytest
from test_storage import s3, s3_server, use_endpoint

from nightshift import storage
from nightshift.errors import InputError, OutageError

__all__ = ["s3", "s3_server"]  # fixtures: a real S3 server

LISTING = (
    '<?xml version="1.0" encoding="UTF-8"?><ListBucketResult><KeyCount>{}</KeyCount>{}</ListBucketResult>'
)
OBJECT = (
    "<Contents><Key>{}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
    "<ETag>&quot;e&quot;</ETag><Size>{}</Size></Contents>"
)
ERROR = b"<Error><Code>%s</Code></Error>"


class Answer(NamedTuple):
    """`length` is what the header says when that is not what is sent."""

    body: bytes = b""
    status: int = 200
    etag: str = ""
    length: int | None = None


def md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


class Server(ThreadingHTTPServer):
    """Answers what `answer` says to a request line; keeps the lines and headers of all requests."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer: Callable[[str], Answer] = lambda line: Answer()
        self.lines: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.url = f"http://127.0.0.1:{self.server_port}"

    def says(self, *answers: Answer) -> None:
        """These one after the other, the last for ever."""
        left = list(answers)
        self.answer = lambda line: left.pop(0) if len(left) > 1 else left[0]


class _Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def _any(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.lines.append(f"{self.command} {self.path}")
        self.server.headers.append({name.lower(): value for name, value in self.headers.items()})
        body, status, etag, length = self.server.answer(self.server.lines[-1])
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.send_header("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
        self.send_header("ETag", f'"{etag or md5(body)}"')
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        self.close_connection = length is not None

    do_GET = do_HEAD = do_PUT = do_DELETE = _any  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with Server() as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}).start()
        use_endpoint(server.url, monkeypatch)
        yield server
        server.shutdown()


def page(*objects: tuple[str, int]) -> bytes:
    return LISTING.format(len(objects), "".join(OBJECT.format(*each) for each in objects)).encode()


def test_an_answer_that_breaks_off_is_asked_for_again(server: Server) -> None:
    server.says(Answer(b"whole", length=10), Answer(b"whole", length=10), Answer(b"whole body"))
    assert storage.read("s3://test/a") == b"whole body"


def test_an_answer_that_always_breaks_off_is_an_outage(server: Server) -> None:
    server.says(Answer(b"whole", length=10))
    with pytest.raises(OutageError, match=r"s3://test/a broke off 4 times while it was read"):
        storage.read("s3://test/a")


def test_a_body_of_another_version_than_its_etag_is_asked_for_again(server: Server) -> None:
    server.says(Answer(b"new con", etag=md5(b"old con")), Answer(b"new content"))
    assert storage.read("s3://test/a") == b"new content"


def test_etags_that_are_no_md5_are_believed_after_a_second_look(server: Server) -> None:
    server.says(Answer(b"encrypted", etag="0" * 32))
    assert storage.read("s3://test/a") == storage.read("s3://test/b") == b"encrypted"
    assert server.lines == ["GET /test/a", "GET /test/a", "GET /test/b"]


def test_a_server_s_failure_is_tried_again_as_often_as_allowed(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = Answer(ERROR % b"InternalError", 500)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "3")
    server.says(broken, broken, Answer(b"there"))
    assert storage.read("s3://test/a") == b"there"
    server.says(broken)
    server.lines.clear()
    with pytest.raises(OutageError, match=rf"S3 at {server.url} failed for s3://test/a \(InternalError\)"):
        storage.write("s3://test/a", b"x")
    assert server.lines == ["PUT /test/a"] * 3


@pytest.mark.parametrize("status", [400, 403])
def test_what_is_refused_is_not_asked_again(
    server: Server, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "3")
    server.says(Answer(ERROR % b"AccessDenied", status))
    with pytest.raises(InputError, match=r"refused s3://test/a \(AccessDenied\)"):
        storage.read("s3://test/a")
    assert len(server.lines) == 1


def test_a_bucket_that_is_missing_is_no_missing_object(s3: str) -> None:
    for call in (storage.read, storage.delete, lambda uri: storage.write(uri, b"")):
        with pytest.raises(InputError, match=r"refused s3://no-such-bucket/a \(NoSuchBucket") as caught:
            call("s3://no-such-bucket/a")
        assert not isinstance(caught.value, storage.MissingError)


def test_too_large_an_object_is_refused_before_it_is_read(server: Server) -> None:
    server.says(Answer(b"", length=10**12))
    with pytest.raises(storage.TooLargeError, match=r"has 1,000,000,000,000 bytes, at most 10 are read"):
        storage.read("s3://test/a", limit=10)


def test_a_large_object_is_one_request_so_that_its_etag_is_an_md5(s3: str, server: Server) -> None:
    storage.write("s3://test/large", bytes(20_000_000))
    assert server.lines == ["PUT /test/large"]


def test_a_large_object_is_listed_with_its_md5(s3: str, tmp_path: Path) -> None:
    data = os.urandom(20_000_000)
    storage.write(f"{s3}/{tmp_path.name}/large", data)
    (stored,) = storage.listing(f"{s3}/{tmp_path.name}")
    assert stored[:3] == ("large", len(data), md5(data))
    assert storage.read(f"{s3}/{tmp_path.name}/large") == data


@pytest.mark.parametrize("key", ["a/../b", "..", "a//b", "/a", "a/", "./a", "a\nb", "a\x7f", ""])
def test_a_key_that_cannot_be_had_is_refused_in_words(server: Server, key: str) -> None:
    for call in (storage.read, storage.exists, storage.delete, lambda uri: storage.write(uri, b"x")):
        with pytest.raises(storage.UnsafeKeyError, match="which keys must not have here; rename the object"):
            call(f"s3://test/{key}")
    assert server.lines == []


def test_one_unusual_key_does_not_hide_the_others(s3: str, tmp_path: Path) -> None:
    client = boto3.Session().client("s3")
    for name in ("a.png", "b\nc.png", "d/e.png", "z.png"):
        client.put_object(Bucket="test", Key=f"{tmp_path.name}/{name}", Body=name.encode())
    found = list(storage.listing(f"{s3}/{tmp_path.name}"))
    assert [each.key for each in found] == ["a.png", "b\nc.png", "d/e.png", "z.png"]
    assert [each.etag for each in found] == [md5(each.key.encode()) for each in found]


def test_a_folder_s_marker_is_no_object_and_an_empty_object_is_one(server: Server) -> None:
    objects = page(("in/", 0), ("in/cat/", 0), ("in/cat/a.png", 3), ("in/empty", 0))
    head = {"HEAD /test/in/cat": Answer(status=404), "HEAD /test/in/empty": Answer()}
    server.answer = lambda line: head.get(line) or Answer(objects)
    assert [stored.key for stored in storage.listing("s3://test/in")] == ["cat/a.png", "empty"]


@pytest.mark.parametrize("other", ["in/b.png", "in/b/../c.png"])
def test_a_key_that_a_server_lists_twice_is_listed_once(server: Server, other: str) -> None:
    """The second one is a key that only boto3 can list."""
    server.says(Answer(page(("in/a.png", 1), ("in/a.png", 1), (other, 2), (other, 2))))
    assert [stored.key for stored in storage.listing("s3://test/in")] == ["a.png", other[3:]]


def test_a_listing_goes_on_where_it_broke_off(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    keys = [(f"in/{index:04d}", 1) for index in range(1500)]
    more = b"<IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken></List"
    first = Answer(page(*keys[:1000]).replace(b"</List", more))
    server.says(first, Answer(ERROR % b"InternalError", 500), Answer(page(*keys[1000:])))
    assert [stored.key for stored in storage.listing("s3://test/in")] == [key[3:] for key, _ in keys]
    assert "continuation-token=t" in server.lines[1]
    assert "start-after=in%2F0999" in server.lines[2]


def test_a_listing_reads_no_further_than_it_is_used(server: Server) -> None:
    """Every page says that there is another one."""
    more = b"<IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken></List"
    server.says(Answer(page(*((f"in/{index:04d}", 1) for index in range(1000))).replace(b"</List", more)))
    found = storage.listing("s3://test/in")
    assert next(found).key == "0000"
    assert len(server.lines) <= 2
    assert (found.close(), next(found, None)) == (None, None)  # type: ignore[attr-defined]


def test_a_server_that_knows_no_uploads_is_told_from_one_that_fails(server: Server) -> None:
    server.says(Answer(ERROR % b"NotImplemented", 501))
    with pytest.raises(InputError, match=r"does not list uploads under s3://test/in \(NotImplemented\)"):
        list(storage.uploads("s3://test/in"))
    server.says(Answer(ERROR % b"InternalError", 500))
    with pytest.raises(OutageError, match="could not list uploads"):
        list(storage.uploads("s3://test/in"))
