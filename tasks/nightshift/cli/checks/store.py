"""The store: a small object's round trip, what the key may do, uploads in parts, and the server's clock."""

import os
import re
import secrets
from collections.abc import Callable, Iterator
from typing import Final

from nightshift.cli.checks import Finding, clock, timed
from nightshift.errors import InputError, OutageError

# What each step is called in a policy of S3.
RIGHTS: Final = {
    "write": "s3:PutObject",
    "read": "s3:GetObject",
    "list": "s3:ListBucket",
    "delete": "s3:DeleteObject",
}


def store() -> Iterator[Finding]:
    """Each right on a small object of its own, and on S3 what else Nightshift and MLflow need."""
    os.environ.setdefault("AWS_MAX_ATTEMPTS", "2")  # the answer is wanted now, not after six attempts
    from nightshift import storage
    from nightshift.config import store_root
    from nightshift.storage.connection import bucket_key, endpoint

    root = store_root()
    uri = storage.join(root, "doctor", f"{os.getpid()}-{secrets.token_hex(4)}.txt")
    if not root.startswith("s3:"):
        yield from _round_trip(uri, f"store {root}")
        return
    where = f"store {root} at {endpoint()}"
    found = [*_server(), *_round_trip(uri, where)]
    yield from found
    if all(finding.good is not False for finding in found):
        yield from _uploads(uri, where)
        yield from _boto(*bucket_key(uri), where)


def _server() -> Iterator[Finding]:
    """Asked first, without a signature: one that is away costs seconds, and its clock may be the reason."""
    from nightshift.stack import http_client
    from nightshift.storage.connection import ENDPOINTS, KEYS, REGIONS, amazon, first, is_address

    address = first(ENDPOINTS) or (amazon(first(REGIONS) or "us-east-1") if first(KEYS) else "")
    if is_address(address):  # else a profile names it, or the round trip says what is wrong with it
        try:
            answer = http_client.get(address, http_client.trust(os.environ, http_client.S3_AUTHORITIES))
        except OutageError as error:
            raise OutageError(f"S3 at {error}") from error
        yield from clock(f"S3 at {address}", answer.date)


def _round_trip(uri: str, where: str) -> Iterator[Finding]:
    from nightshift import storage

    folder, _, name = uri.rpartition("/")
    data = os.urandom(32)
    steps: dict[str, Callable[[], object]] = {
        "write": lambda: storage.write(uri, data),
        "read": lambda: storage.read(uri) == data,
        "list": lambda: name in {each.key for each in storage.listing(folder)},
        "delete": lambda: storage.delete(uri),
    }
    answers: dict[str, object] = {}
    times: list[str] = []
    refused: dict[str, str] = {}
    for step, call in steps.items():
        try:
            answers[step], took = timed(call)
            times.append(f"{step}s in {took}")
        except InputError as error:
            # Where nothing could be written nothing is found, and that is allowed.
            if not (isinstance(error, storage.MissingError) and "write" in refused):
                refused[step] = str(error)
    if len(refused) == len(steps):  # another key, no bucket
        yield Finding(False, refused["write"])
        return
    for step, sentence in refused.items():
        yield Finding(False, f"{where} does not {step} ({_code(sentence)}); allow its key {RIGHTS[step]}")
    if refused:
        return
    if not answers["read"] or not answers["list"] or storage.exists(uri):
        yield Finding(False, f"{where} does not return and list what was written, or keeps what was deleted")
    else:
        yield Finding(True, f"{where} {', '.join(times)}")


def _code(sentence: str) -> str:
    """S3's word for why, out of a sentence of `nightshift.storage`."""
    return next(iter(re.findall(r"\((\w+)\)", sentence)), sentence)


def _uploads(uri: str, where: str) -> Iterator[Finding]:
    """Large files come and go in parts; what is not ended is found by upkeep, when the server lists it."""
    from nightshift import storage

    try:
        identity = storage.begin(uri)
    except InputError as error:
        yield Finding(False, f"{error}: large models cannot be kept")
        return
    try:
        listed = identity in {each.identity for each in storage.uploads(uri.rpartition("/")[0])}
        reason = "are not listed"
    except InputError as error:
        listed, reason = False, str(error)
    storage.abort(uri, identity)
    if listed:
        yield Finding(True, f"{where} begins uploads in parts, lists them and gives them up")
    else:
        yield Finding(None, f"uploads in parts that nobody ended stay for ever: in {where} they {reason}")


def _boto(bucket: str, key: str, where: str) -> Iterator[Finding]:
    """MLflow's server writes by boto3, which sends checksums that not every server knows."""
    from botocore.exceptions import BotoCoreError, ClientError

    from nightshift.storage.connection import boto_client

    client = boto_client()
    try:
        client.put_object(Bucket=bucket, Key=key, Body=b"first")
    except (BotoCoreError, ClientError) as error:
        advice = "set AWS_REQUEST_CHECKSUM_CALCULATION=when_required for it and for MLflow"
        yield Finding(False, f"{where} refuses what boto3 writes ({error}); {advice}")
        return
    try:
        client.put_object(Bucket=bucket, Key=key, Body=b"second", IfNoneMatch="*")
        said = "ignores"
    except ClientError as error:
        said = "obeys" if error.response["ResponseMetadata"]["HTTPStatusCode"] == 412 else "does not know"
    finally:
        client.delete_object(Bucket=bucket, Key=key)
    yield Finding(None, f"{where} {said} If-None-Match: *, on which nothing here depends")
