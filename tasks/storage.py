"""Objects by URI, on S3 (`s3://bucket/key`) or the local disk (`file:///path`). Nothing else uses boto3.

S3 is reached by the standard variables (AWS_ENDPOINT_URL_S3, AWS_ACCESS_KEY_ID, …). Every write is atomic:
readers see the whole object or none. Retrying is boto3's; what remains unreachable raises OutageError.
"""

import functools
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    FlexibleChecksumError,
    IncompleteReadError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
    ReadTimeoutError,
    ResponseStreamingError,
)
from pydantic import BaseModel

from tasks.errors import InputError, OutageError
from tasks.records import Artifact

MISSING = {"404", "NoSuchKey", "NotFound"}
# Trying again does not help against these, unlike against everything else that botocore raises by itself.
MISCONFIGURED = (NoCredentialsError, PartialCredentialsError, ParamValidationError, ValueError)  # a bad URL
# An answer that broke off, or mixes two versions of an object (rclone's server, while it is overwritten).
# The AttributeError is botocore's, on an error answer that carries a checksum.
BROKEN_OFF: Final = (
    FlexibleChecksumError,
    IncompleteReadError,
    ReadTimeoutError,
    ResponseStreamingError,
    AttributeError,
)
READS = 4
Model = TypeVar("Model", bound=BaseModel)


class MissingError(InputError):
    """An object that does not exist."""


class Stored(NamedTuple):
    """One line of a listing; `key` is relative to the listed prefix, `modified` in seconds since 1970."""

    key: str
    size: int
    etag: str
    modified: float


def join(uri: str, *parts: str) -> str:
    return "/".join((uri.rstrip("/"), *parts))


def read(uri: str) -> bytes:
    """The object's bytes. Raises MissingError (an InputError), or OutageError when the store is away."""
    path = _local(uri)
    if path is not None:
        try:
            return path.read_bytes()
        except (FileNotFoundError, IsADirectoryError) as error:
            raise MissingError(f"{uri} does not exist") from error
    bucket, key = _bucket_key(uri)
    return bytes(_s3(uri, lambda s3: _body(s3, uri, bucket, key)))


def write(uri: str, data: bytes) -> Artifact:
    """Store `data` and say what was stored."""
    path = _local(uri)
    if path is not None:
        _write_file(path, data)
    else:
        bucket, key = _bucket_key(uri)
        _s3(uri, lambda s3: s3.put_object(Bucket=bucket, Key=key, Body=data))
    return Artifact(uri=uri, sha256=hashlib.sha256(data).hexdigest(), size=len(data))


def read_artifact(artifact: Artifact) -> bytes:
    """The artifact's bytes, checked against its digest."""
    data = read(artifact.uri)
    digest = hashlib.sha256(data).hexdigest()
    if digest != artifact.sha256:
        raise InputError(
            f"{artifact.uri} has SHA-256 {digest}, expected {artifact.sha256}: it was changed or damaged"
        )
    return data


def read_record(uri: str, kind: type[Model]) -> Model:
    return kind.model_validate_json(read(uri))


def write_record(uri: str, record: BaseModel) -> Artifact:
    return write(uri, record.model_dump_json().encode())


def read_json(uri: str) -> Any:
    return json.loads(read(uri))


def exists(uri: str) -> bool:
    path = _local(uri)
    if path is not None:
        return path.is_file()
    bucket, key = _bucket_key(uri)
    try:
        _s3(uri, lambda s3: s3.head_object(Bucket=bucket, Key=key))
    except MissingError:
        return False
    return True


def listing(uri: str) -> Iterator[Stored]:
    """All objects under a prefix, in the order of their keys."""
    path = _local(uri)
    if path is not None:
        yield from _walk(path)
        return
    bucket, prefix = _bucket_key(uri.rstrip("/") + "/")
    token: dict[str, str] = {}
    while True:
        page = _s3(uri, functools.partial(_page, Bucket=bucket, Prefix=prefix, **token))
        for item in page.get("Contents", ()):
            name = item["Key"].removeprefix(prefix)
            if name and not name.endswith("/"):
                yield Stored(name, item["Size"], item["ETag"].strip('"'), item["LastModified"].timestamp())
        if not page.get("IsTruncated"):
            return
        token = {"ContinuationToken": page["NextContinuationToken"]}


def delete(uri: str) -> None:
    """Remove one object; what is not there is no error."""
    path = _local(uri)
    if path is not None:
        path.unlink(missing_ok=True)
        return
    bucket, key = _bucket_key(uri)
    _s3(uri, lambda s3: s3.delete_object(Bucket=bucket, Key=key))


def _local(uri: str) -> Path | None:
    """The path of a file:// address, taken literally: like a key on S3 it may hold `%`, `#` and `?`."""
    return Path(uri.removeprefix("file://")) if uri.startswith("file:///") else None


def _bucket_key(uri: str) -> tuple[str, str]:
    scheme, separator, rest = uri.partition("://")
    bucket, _, key = rest.partition("/")
    if scheme != "s3" or not separator or not bucket:
        raise InputError(f"storage address {uri!r} must look like s3://bucket/key or file:///path")
    return bucket, key


def _body(s3: Any, uri: str, bucket: str, key: str) -> bytes:
    """boto3 repeats a request, but not the reading of its answer: that is done here."""
    for attempt in range(READS):
        try:
            return bytes(s3.get_object(Bucket=bucket, Key=key)["Body"].read())
        except BROKEN_OFF as error:
            broken: Exception = error
            time.sleep(0.1 * 2**attempt)
    raise OutageError(
        f"{uri} broke off {READS} times while it was read ({broken}); try again, and see the server's log"
    ) from broken


def _page(s3: Any, **arguments: str) -> Any:
    return s3.list_objects_v2(**arguments)


def _s3(uri: str, call: Callable[[Any], Any]) -> Any:
    """Run one boto3 call and put its failures into words."""
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or "AWS"
    try:
        return call(_client())
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", ""))
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        if code in MISSING:
            raise MissingError(f"{uri} does not exist on {endpoint}") from error
        if status >= 500:
            raise OutageError(
                f"S3 at {endpoint} failed for {uri} ({code}); try again when it is healthy"
            ) from error
        raise InputError(
            f"S3 at {endpoint} refused {uri} ({code or status}); "
            "check the bucket, AWS_ACCESS_KEY_ID and its rights"
        ) from error
    except MISCONFIGURED as error:
        raise InputError(
            f"S3 at {endpoint} cannot be asked for {uri} ({error}); "
            "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY and check the bucket's name"
        ) from error
    except BotoCoreError as error:
        raise OutageError(
            f"S3 at {endpoint} cannot be reached for {uri} ({type(error).__name__}); "
            "check AWS_ENDPOINT_URL_S3 and that the server runs"
        ) from error


@functools.lru_cache(maxsize=1)
def _client() -> Any:
    retries = {"mode": "standard", "max_attempts": int(os.environ.get("AWS_MAX_ATTEMPTS", "6"))}
    config = Config(retries=retries, connect_timeout=10, read_timeout=60, max_pool_connections=32)
    # A session of its own: boto3's default one is not safe when two threads ask first.
    return boto3.Session().client("s3", config=config)


def _write_file(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".partial-", delete=False) as file:
        try:
            file.write(data)
            file.flush()
            Path(file.name).replace(path)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise


def _walk(root: Path) -> Iterator[Stored]:
    files = (path for path in root.rglob("*") if path.is_file() and not path.name.startswith(".partial-"))
    for key in sorted(
        path.relative_to(root).as_posix() for path in files
    ):  # as S3 sorts: by key, not by folder
        path = root / key
        stat = path.stat()
        etag = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
        yield Stored(key, stat.st_size, etag, stat.st_mtime)
