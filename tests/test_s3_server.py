"""What an S3 server has to keep to: the one of AWS_ENDPOINT_URL_S3 where that is set, else the embedded one.

    AWS_ENDPOINT_URL_S3=… AWS_ACCESS_KEY_ID=… AWS_SECRET_ACCESS_KEY=… NIGHTSHIFT_STORE=s3://bucket \
        python -m pytest tests/test_s3_server.py
"""

import http.client
import os
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import pytest
from test_storage import s3, s3_server
from waiting import patience, wait_for

from nightshift import storage
from nightshift.errors import NightshiftError
from nightshift.storage.connection import boto_client, bucket_key

__all__ = ["s3", "s3_server"]  # fixtures: the embedded S3 server

# As they are before the tests' own stack sets them.
GIVEN = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
STORE = os.environ.get("NIGHTSHIFT_STORE") or "s3://nightshift"
OWN = bool(GIVEN.get("AWS_ENDPOINT_URL_S3"))
WRITERS, READERS = 32, 4
# Uploads in parts and stands still in the third; what it got rid of by then is on the server.
STALLED = """
import sys, time
from nightshift.storage.connection import boto_client
class Slow:
    parts = 0
    def read(self, size=-1):
        self.parts += 1
        if self.parts > 2:
            time.sleep(600)
        return bytes(8 * 2**20)
boto_client().upload_fileobj(Slow(), *sys.argv[1:])
"""


@pytest.fixture
def root(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An empty prefix on the server, emptied again."""
    if OWN:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            monkeypatch.delenv(name)
        for name, value in GIVEN.items():
            monkeypatch.setenv(name, value)
        bucket = STORE
    else:
        bucket = request.getfixturevalue("s3")
        monkeypatch.delenv("AWS_MAX_ATTEMPTS")  # it is away for a moment while an object is overwritten
    prefix = storage.join(bucket, f"test-{uuid.uuid4().hex}")
    yield prefix
    for upload in storage.uploads(prefix):
        storage.abort(storage.join(prefix, upload.key), upload.identity)
    for stored in list(storage.listing(prefix)):
        storage.delete(storage.join(prefix, stored.key))


def test_a_race_of_writers_on_one_key_never_shows_a_mixture_and_ends_with_one_body(root: str) -> None:
    uri = storage.join(root, "contested")
    bodies = {bytes([number]) * (200_000 + 1000 * number) for number in range(WRITERS)}
    storage.write(uri, max(bodies))
    ended, started = threading.Event(), threading.Barrier(WRITERS)

    def write(body: bytes) -> None:
        started.wait()
        storage.write(uri, body)

    def watch() -> tuple[set[bytes], list[NightshiftError]]:
        seen, refused = set(), []
        while not ended.is_set():
            try:
                seen.add(storage.read(uri))
            except NightshiftError as error:  # rclone's server may say that an object is away
                refused.append(error)
        return seen, refused

    with ThreadPoolExecutor(WRITERS + READERS) as pool:
        watchers = [pool.submit(watch) for _ in range(READERS)]
        writers = [pool.submit(write, body) for body in bodies]
        failures = [error for each in writers if (error := each.exception())]
        ended.set()
    seen = set().union(*(each.result()[0] for each in watchers))
    assert failures == []
    assert seen
    assert seen <= bodies
    assert not (OWN and [each.result()[1] for each in watchers if each.result()[1]])
    last = storage.read(uri)
    assert last in bodies
    assert [storage.read(uri) for _ in range(3)] == [last] * 3
    assert [(each.key, each.size) for each in storage.listing(root)] == [("contested", len(last))]


def test_an_upload_in_parts_whose_client_is_killed_leaves_the_old_object_and_is_found(root: str) -> None:
    uri = storage.join(root, "large")
    storage.write(uri, b"as it was")
    begun = time.time()
    client = subprocess.Popen([sys.executable, "-c", STALLED, *bucket_key(uri)])
    try:
        wait_for(lambda: list(storage.uploads(root)) or client.poll() is not None, "the upload to begin", 60)
    finally:
        client.kill()
        client.wait()
    (left,) = storage.uploads(root)
    assert left.key == "large"
    assert begun - 60 < left.begun < time.time() + 60
    assert storage.read(uri) == b"as it was"
    assert [each[:2] for each in storage.listing(root)] == [("large", 9)]
    storage.abort(uri, left.identity)
    assert list(storage.uploads(root)) == []
    assert storage.read(uri) == b"as it was"


@pytest.mark.parametrize("before", [b"as it was", None])
def test_a_request_that_breaks_off_in_its_body_writes_nothing(root: str, before: bytes | None) -> None:
    uri = storage.join(root, "broken")
    if before:
        storage.write(uri, before)
    bucket, key = bucket_key(uri)
    url = urlsplit(boto_client().generate_presigned_url("put_object", {"Bucket": bucket, "Key": key}))
    kind = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
    connection = kind(url.hostname or "", url.port, timeout=patience(10))
    connection.putrequest("PUT", f"{url.path}?{url.query}")
    connection.putheader("Content-Length", "1000000")
    connection.endheaders(bytes(300_000))
    time.sleep(0.5)  # the server has begun to write
    connection.close()
    time.sleep(0.5)  # and seen the end
    assert [each[:2] for each in storage.listing(root)] == ([("broken", len(before))] if before else [])
    if before:
        assert storage.read(uri) == before
