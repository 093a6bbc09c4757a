"""Uploads in parts that were begun and not ended: S3 keeps what came of them, and no listing shows it."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from nightshift.errors import InputError, NightshiftError, OutageError
from nightshift.storage.connection import boto_client, bucket_key, endpoint


class Upload(NamedTuple):
    """One upload that is not ended; `key` is relative to the prefix, `begun` in seconds since 1970."""

    key: str
    identity: str
    begun: float


def uploads(uri: str) -> Iterator[Upload]:
    """Those under a prefix. Raises InputError where the server does not know the call."""
    from botocore.exceptions import BotoCoreError, ClientError

    bucket, prefix = bucket_key(uri.rstrip("/") + "/")
    try:
        pages = boto_client().get_paginator("list_multipart_uploads")
        for page in pages.paginate(Bucket=bucket, Prefix=prefix):
            for item in page.get("Uploads", ()):
                begun = item["Initiated"].timestamp()
                yield Upload(item["Key"].removeprefix(prefix), item["UploadId"], begun)
    except ClientError as error:
        if error.response["Error"].get("Code") != "NoSuchUpload":  # rclone's word for a bucket without any
            raise _failure(uri, "list uploads", error) from error
    except BotoCoreError as error:
        raise _failure(uri, "list uploads", error) from error


def begin(uri: str) -> str:
    """Begin an upload in parts and return its identity."""
    from botocore.exceptions import BotoCoreError, ClientError

    bucket, key = bucket_key(uri)
    try:
        return str(boto_client().create_multipart_upload(Bucket=bucket, Key=key)["UploadId"])
    except (BotoCoreError, ClientError) as error:
        raise _failure(uri, "begin an upload in parts", error) from error


def abort(uri: str, identity: str) -> None:
    """End an upload and give back what it takes; one that is ended is no error."""
    from botocore.exceptions import BotoCoreError, ClientError

    bucket, key = bucket_key(uri)
    try:
        boto_client().abort_multipart_upload(Bucket=bucket, Key=key, UploadId=identity)
    except ClientError as error:
        if error.response["Error"].get("Code") != "NoSuchUpload":
            raise _failure(uri, "end an upload", error) from error
    except BotoCoreError as error:
        raise _failure(uri, "end an upload", error) from error


def _failure(uri: str, what: str, error: Exception) -> NightshiftError:
    answer: dict[str, Any] = getattr(error, "response", {})
    status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if (400 <= status < 500 and status != 429) or status == 501:
        code = answer.get("Error", {}).get("Code") or status
        return InputError(f"S3 at {endpoint()} does not {what} under {uri} ({code})")
    return OutageError(f"S3 at {endpoint()} could not {what} under {uri} ({error}); try again")
