"""The store, on the local disk and on a real S3 server (rclone)."""

import hashlib
import os
import resource
import socket
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import boto3
import pytest
from waiting import wait_for_port

from nightshift import storage
from nightshift.errors import InputError, OutageError
from nightshift.records import Artifact, Refusal
from nightshift.stack import binaries

KEY, SECRET = "nightshift-test", "nightshift-test-secret"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an S3 server that has the bucket `test`."""
    root, port = tmp_path_factory.mktemp("s3"), free_port()
    (root / "test").mkdir()
    log = (root.parent / "rclone.log").open("w")
    command, environment = binaries.s3_server(root, port, KEY, SECRET)
    with log, subprocess.Popen(command, env=os.environ | environment, stdout=log, stderr=log) as server:
        try:
            wait_for_port(port)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()


@pytest.fixture
def s3(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The environment of a client of the server, and the bucket's URI."""
    use_endpoint(s3_server, monkeypatch)
    return "s3://test"


def use_endpoint(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL", "AWS_REGION", "AWS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", address)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")


@pytest.fixture(params=["local", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty prefix of each kind of store."""
    if request.param == "local":
        return f"file://{tmp_path}/store"
    bucket: str = request.getfixturevalue("s3")
    return storage.join(bucket, tmp_path.name)


def test_what_is_written_is_read_listed_and_deleted(root: str) -> None:
    uri = storage.join(root, "a", "b.bin")
    begun = time.time()
    artifact = storage.write(uri, b"hello")
    assert artifact == Artifact(uri=uri, sha256=hashlib.sha256(b"hello").hexdigest(), size=5)
    assert storage.read(uri) == b"hello" == storage.read_artifact(artifact)
    assert storage.exists(uri)
    assert not storage.exists(storage.join(root, "a"))
    (stored,) = storage.listing(root)
    assert stored[:3] == ("a/b.bin", 5, "5d41402abc4b2a76b9719d911017c592")
    assert begun - 60 < stored.modified < time.time() + 60
    storage.delete(uri)
    storage.delete(uri)  # what is not there is no error
    assert not storage.exists(uri)
    assert list(storage.listing(root)) == []


def test_names_with_special_characters_keep_their_bytes_apart(root: str) -> None:
    names = ["a b.png", "a%20b.png", "a#1.png", "a#2.png", "a?.png", "ä.png", "+.png"]
    for name in names:
        storage.write(storage.join(root, "x", name), name.encode())
    assert sorted(stored.key for stored in storage.listing(root)) == sorted(f"x/{name}" for name in names)
    assert [storage.read(storage.join(root, "x", name)).decode() for name in names] == names


def test_listing_is_in_the_order_of_the_keys_and_stays_inside_its_prefix(root: str) -> None:
    for key in ("a/1", "a-b/1", "a.b", "ab/1", "a/0/1"):
        storage.write(storage.join(root, "in", key), b"x")
    storage.write(storage.join(root, "in-not", "1"), b"x")
    keys = [stored.key for stored in storage.listing(storage.join(root, "in"))]
    assert keys == sorted(keys) == ["a-b/1", "a.b", "a/0/1", "a/1", "ab/1"]


def test_a_missing_object_is_named(root: str) -> None:
    with pytest.raises(InputError, match=r"nothing/here does not exist"):
        storage.read(storage.join(root, "nothing/here"))


def test_a_changed_artifact_is_refused(root: str) -> None:
    artifact = storage.write(storage.join(root, "a"), b"as it was")
    storage.write(artifact.uri, b"changed")
    with pytest.raises(InputError, match="it was changed or damaged"):
        storage.read_artifact(artifact)


def test_records_survive_the_store(root: str) -> None:
    record = Refusal(key="a/b.png", sha256="ab" * 32, reason="empty", detail="the file has no bytes")
    artifact = storage.write_record(storage.join(root, "r.json"), record)
    assert storage.read_record(artifact.uri, Refusal) == record
    assert storage.read_json(artifact.uri)["reason"] == "empty"


def test_a_reader_never_takes_half_an_object_for_a_whole_one(
    root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it is overwritten, rclone's server may say that it is away; the local disk never does."""
    monkeypatch.delenv("AWS_MAX_ATTEMPTS", raising=False)  # it may say so to a writer too, who tries again
    uri, versions = storage.join(root, "big"), {bytes([value]) * 300_000 for value in range(6)}
    storage.write(uri, min(versions))
    with ThreadPoolExecutor(6) as pool:
        writes = [pool.submit(storage.write, uri, version) for version in versions]
        reads = [pool.submit(storage.read, uri) for _ in range(20)]
    assert all(write.result() for write in writes)
    refused = [error for read in reads if (error := read.exception())]
    assert {read.result() for read in reads if read.exception() is None} <= versions
    assert all(isinstance(error, InputError | OutageError) for error in refused)
    assert not (refused and root.startswith("file://"))


def test_a_failed_local_write_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(OutageError, match="Is a directory"):
        storage.write(f"file://{tmp_path}/taken", b"x")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_a_disk_without_room_is_an_outage_and_leaves_the_old_object_whole(tmp_path: Path) -> None:
    uri = f"file://{tmp_path}/folder/object"
    storage.write(uri, b"old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(
            OutageError, match=r"folder/object cannot be written \(File too large\); make room"
        ):
            storage.write(uri, bytes(2000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert storage.read(uri) == b"old"
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["object"]


def test_a_listing_of_more_than_one_page_is_complete(s3: str, tmp_path: Path) -> None:
    prefix = storage.join(s3, tmp_path.name)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: storage.write(f"{prefix}/{i:04d}", b""), range(1005)))
    assert [stored.key for stored in storage.listing(prefix)] == [f"{i:04d}" for i in range(1005)]


def test_an_unreachable_server_is_an_outage_that_names_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    address = f"http://127.0.0.1:{free_port()}"
    use_endpoint(address, monkeypatch)
    for call in (storage.read, storage.exists, storage.delete, lambda uri: list(storage.listing(uri))):
        with pytest.raises(OutageError, match=f"{address} cannot be reached for s3://test/a"):
            call("s3://test/a")


def test_wrong_credentials_are_refused_and_not_taken_for_a_missing_object(
    s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage.write(f"{s3}/there", b"x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-secret")
    for call in (storage.read, storage.exists):
        with pytest.raises(InputError, match=r"refused .* check the bucket, AWS_ACCESS_KEY_ID"):
            call(f"{s3}/there")


def test_absent_credentials_are_said(s3: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(InputError, match="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"):
        storage.read(f"{s3}/there")


def test_a_missing_bucket_is_said(s3: str) -> None:
    with pytest.raises(InputError, match=r"no-such-bucket.*NoSuchBucket"):
        list(storage.listing("s3://no-such-bucket/x"))


@pytest.mark.parametrize("uri", ["/data/x", "http://host/x", "s3://", "file:relative"])
def test_an_address_of_another_kind_is_refused(uri: str) -> None:
    with pytest.raises(InputError, match="must look like s3://bucket/key or file:///path"):
        storage.read(uri)


def test_folders_are_what_keys_begin_with(root: str) -> None:
    assert storage.folders(root) == []
    for key in ("b/x/y", "b/z", "a/1", "top"):
        storage.write(f"{root}/{key}", b"1")
    assert storage.folders(root) == ["a", "b"]
    assert storage.folders(f"{root}/b/") == ["x"]


def test_a_listing_without_etags_has_the_rest(root: str) -> None:
    storage.write(f"{root}/a/b", b"12")
    (known,), (found,) = storage.listing(root), storage.listing(root, etags=False)
    assert found[:2] == ("a/b", 2)
    assert found.modified == known.modified


def test_a_file_that_was_not_written_to_its_end_is_no_object_and_is_found(tmp_path: Path) -> None:
    storage.write(f"file://{tmp_path}/a/whole", b"12")
    (tmp_path / "a" / f"{storage.PARTIAL}x1").write_bytes(b"123")
    assert [each.key for each in storage.listing(f"file://{tmp_path}")] == ["a/whole"]
    assert [each[:2] for each in storage.broken_off(f"file://{tmp_path}")] == [("a/.partial-x1", 3)]


def test_an_upload_that_was_begun_is_found_and_given_up(s3: str, tmp_path: Path) -> None:
    key, begun = f"{tmp_path.name}/in/a b.tar", time.time()
    started = boto3.Session().client("s3").create_multipart_upload(Bucket="test", Key=key)["UploadId"]
    boto3.Session().client("s3").create_multipart_upload(Bucket="test", Key="elsewhere")
    (found,) = storage.uploads(f"{s3}/{tmp_path.name}")
    assert (found.key, found.identity) == ("in/a b.tar", started)
    assert begun - 60 < found.begun < time.time() + 60
    for _ in range(2):  # the second time it is gone already
        storage.abort(f"{s3}/{key}", started)
    assert list(storage.uploads(f"{s3}/{tmp_path.name}")) == []
    assert list(storage.uploads(f"file://{tmp_path}")) == []


@pytest.mark.parametrize("key", ["../x", "a/../../x", "a/..", "..", "a/../b"])
def test_no_key_leads_out_of_its_prefix(root: str, key: str) -> None:
    """A batch of somebody's bucket can be called `..`, and names of batches become keys of this store."""
    uri = storage.join(root, key)
    for call in (storage.read, storage.exists, storage.delete, lambda uri: storage.write(uri, b"x")):
        with pytest.raises(storage.UnsafeKeyError, match="which keys must not have here"):
            call(uri)
    with pytest.raises(storage.UnsafeKeyError):
        list(storage.listing(uri))
