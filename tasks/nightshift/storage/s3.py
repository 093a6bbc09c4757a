"""Reading, writing, listing and deleting objects by `s3://bucket/key`.

Failures that pass are tried again; what remains raises OutageError. Everything else raises an InputError.
"""

import hashlib
import itertools
import random
import re
import time
from collections.abc import Callable, Iterator, Sequence
from operator import attrgetter
from typing import Any, Final, NamedTuple, TypeVar

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError
from obstore.store import S3Store

from nightshift.errors import InputError, OutageError
from nightshift.storage.connection import Bucket, boto_client, bucket_key, connected, endpoint
from nightshift.storage.failures import MissingError, TooLargeError, UnsafeKeyError, failure, summary, unsafe

READS: Final = 4  # of one object whose bytes break off, or mix two versions of it
PAGE: Final = 1000  # keys, as many as S3 sends at once
# object_store has no name for these keys, and takes one with a slash at its end for another.
UNSAFE: Final = re.compile(r"(^|/)\.{0,2}(/|$)|[\x00-\x1f\x7f]")
Result = TypeVar("Result")


class Stored(NamedTuple):
    """One line of a listing; `key` is relative to the listed prefix, `modified` in seconds since 1970."""

    key: str
    size: int
    etag: str
    modified: float


def read(uri: str, limit: int | None) -> bytes:
    """The object's bytes, compared with the ETag where that is an MD5.

    While an object is overwritten, rclone's server may send one version's headers and another's body.
    """
    key, bucket = _key(uri), connected(uri)
    before, broken = None, ""
    for attempt in range(READS):
        answer = _asked(uri, lambda store: obstore.get(store, key), bucket)
        facts = answer.meta
        check_size(uri, facts["size"], limit)
        try:
            data = bytes(answer.bytes())
        except BaseError as error:
            broken = summary(error)
        else:
            if not bucket.digests or _is_whole(data, facts["e_tag"] or ""):
                return data
            if data == before:  # then it is what is stored: encrypted buckets have other ETags
                bucket.digests = False
                return data
            before, broken = data, "its MD5 is not its ETag"
        time.sleep(0.1 * 2**attempt)
    raise OutageError(
        f"{uri} broke off {READS} times while it was read ({broken}); try again, and see the server's log"
    )


def write(uri: str, pieces: Sequence[bytes | memoryview]) -> None:
    """One request whatever the size, so that the ETag is the MD5 of the content."""
    key = _key(uri)
    _asked(uri, lambda store: obstore.put(store, key, pieces, use_multipart=False))


def create(uri: str, data: bytes) -> bool:
    """Write an object where there is none, and say whether there was none.

    Atomic where the server knows `If-None-Match`, as AWS does; a server that does not know it writes in any
    case.
    """
    key = _key(uri)

    def put(store: S3Store) -> bool:
        try:
            obstore.put(store, key, data, use_multipart=False, mode="create")
        except (AlreadyExistsError, PreconditionError):
            return False
        return True

    return _asked(uri, put)


def exists(uri: str) -> bool:
    key = _key(uri)
    try:
        _asked(uri, lambda store: obstore.head(store, key))
    except MissingError:
        return False
    return True


def delete(uri: str) -> None:
    """Remove one object; what is not there is no error."""
    key = _key(uri)
    try:
        _asked(uri, lambda store: obstore.delete(store, key))
    except MissingError:
        return


def listing(uri: str) -> Iterator[Stored]:
    """All objects under a prefix, in the order of their keys, a page at a time.

    Where many had written one key at once, rclone's server lists it twice for minutes.
    """
    for _, same in itertools.groupby(_listing(uri), key=attrgetter("key")):
        yield next(same)


def _listing(uri: str) -> Iterator[Stored]:
    bucket, prefix = bucket_key(uri.rstrip("/") + "/")
    if prefix:
        _key(uri.rstrip("/"))
    last = prefix
    try:
        for chunk in _chunks(uri, prefix):
            for item in chunk:
                last, size = item["path"], item["size"]
                # object_store drops the slash of a folder's marker, an empty object that is then not found.
                if last.startswith(prefix) and (size or exists(f"s3://{bucket}/{last}")):
                    etag, modified = (item["e_tag"] or "").strip('"'), item["last_modified"].timestamp()
                    yield Stored(last.removeprefix(prefix), size, etag, modified)
    except UnsafeKeyError:
        yield from _unsafe_listing(uri, bucket, prefix, last)


def folders(uri: str) -> list[str]:
    """What the keys under a prefix begin with, up to their next slash, sorted."""
    prefix = bucket_key(uri.rstrip("/") + "/")[1]
    found = _asked(uri, lambda store: obstore.list_with_delimiter(store, prefix or None))
    return sorted(name.removeprefix(prefix) for name in found["common_prefixes"])


def check_size(uri: str, size: int, limit: int | None) -> None:
    """Raises TooLargeError."""
    if limit is not None and size > limit:
        raise TooLargeError(f"{uri} has {size:,} bytes, at most {limit:,} are read")


def _chunks(uri: str, prefix: str) -> Iterator[Sequence[Any]]:
    """A listing that breaks off goes on after the last key that came."""
    last: str | None = None
    streams: list[Iterator[Sequence[Any]]] = []

    def advance(store: S3Store) -> Sequence[Any] | None:
        if not streams:
            streams.append(obstore.list(store, prefix or None, offset=last, chunk_size=PAGE))
        try:
            return next(streams[0], None)
        except BaseError:
            streams.clear()
            raise

    while chunk := _asked(uri, advance):
        yield chunk
        last = chunk[-1]["path"]


def _unsafe_listing(uri: str, bucket: str, prefix: str, last: str) -> Iterator[Stored]:
    """What comes after `last`, by boto3: obstore gives up a whole page for one key that it cannot name."""
    try:
        from botocore.exceptions import BotoCoreError, ClientError
    except ImportError as error:
        raise InputError(f"{uri} holds unusual keys, which only boto3 can list; install it") from error
    try:
        pages = boto_client().get_paginator("list_objects_v2")
        for page in pages.paginate(Bucket=bucket, Prefix=prefix, StartAfter=last):
            for item in page.get("Contents", ()):
                key = item["Key"].removeprefix(prefix)
                if key and not key.endswith("/"):
                    etag, modified = item["ETag"].strip('"'), item["LastModified"].timestamp()
                    yield Stored(key, item["Size"], etag, modified)
    except (BotoCoreError, ClientError) as error:
        raise OutageError(f"{uri} could not be listed to its end ({error}); try again") from error


def _asked(uri: str, call: Callable[[S3Store], Result], bucket: Bucket | None = None) -> Result:
    """What the server answers to one of as many attempts as are allowed."""
    bucket = bucket or connected(uri)
    attempt = 0
    while True:
        try:
            return call(bucket.store)
        except (BaseError, OSError, ValueError) as error:
            failed = failure(uri, endpoint(), error)
            if not isinstance(failed, OutageError) or attempt + 1 >= bucket.attempts:
                raise failed from error
        # 0.1 s for a hiccup to 8 s for a server that starts again; clients must not come back all at once.
        time.sleep(0.1 * 3**attempt * random.SystemRandom().uniform(0.5, 1.0))
        attempt += 1


def _is_whole(data: bytes, etag: str) -> bool:
    digest = etag.strip('"')
    if not re.fullmatch("[0-9a-f]{32}", digest):  # an upload in parts has another form
        return True
    return hashlib.md5(data, usedforsecurity=False).hexdigest() == digest


def _key(uri: str) -> str:
    key = bucket_key(uri)[1]
    if UNSAFE.search(key):
        raise unsafe(repr(uri))
    return key
