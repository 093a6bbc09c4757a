"""What can go wrong with an S3 server, in words, and whether trying again can help."""

import re
from typing import Final

from obstore.exceptions import InvalidPathError, UnauthenticatedError

from nightshift.errors import InputError, NightshiftError, OutageError

MISSING: Final = {"", "NoSuchKey", "NotFound"}  # a HEAD says no more than 404
PASSING: Final = {"RequestTimeout", "SlowDown", "Throttling"}  # some servers send these with a 4xx


class MissingError(InputError):
    """An object that does not exist."""


class TooLargeError(InputError):
    """An object with more bytes than its reader wants."""


class UnsafeKeyError(InputError):
    """A key that S3 allows and that is not read or written here."""


def failure(uri: str, endpoint: str, error: Exception) -> NightshiftError:
    """The sentence for a failure: an OutageError where trying again can help, else an InputError.

    obstore's errors carry the server's answer only in their text.
    """
    text = str(error)
    status = int(found[1]) if (found := re.search(r"status code: (\d{3})", text)) else 0
    code = found[1] if (found := re.search(r"<Code>(\w+)</Code>", text)) else ""
    if isinstance(error, InvalidPathError):
        return unsafe(f"a key under {uri}")
    if status == 404 and code in MISSING:
        return MissingError(f"{uri} does not exist on {endpoint}")
    if status >= 500 or status == 429 or code in PASSING:
        what = code or status
        return OutageError(f"S3 at {endpoint} failed for {uri} ({what}); try again when it is healthy")
    if status:
        return InputError(
            f"S3 at {endpoint} refused {uri} ({code or status}); "
            "check the bucket, AWS_ACCESS_KEY_ID and its rights"
        )
    if "redirect" in text:
        return InputError(f"S3 at {endpoint} has {uri} in another region; set AWS_DEFAULT_REGION to it")
    if "InvalidCertificate" in text:
        return InputError(
            f"S3 at {endpoint} has a certificate that is not trusted; set AWS_CA_BUNDLE to the PEM file of "
            "the authority that signed it (a server's certificate cannot be its own authority)"
        )
    if isinstance(error, UnauthenticatedError | ValueError):
        return misconfigured(uri, endpoint, summary(error))
    return OutageError(
        f"S3 at {endpoint} cannot be reached for {uri} ({summary(error)}); "
        "check AWS_ENDPOINT_URL_S3 and that the server runs"
    )


def summary(error: Exception) -> str:
    """What went wrong, without the request and the Rust source that obstore adds."""
    return str(error).partition("\n")[0].rpartition(" - ")[2]


def misconfigured(uri: str, endpoint: str, why: str) -> InputError:
    return InputError(
        f"S3 at {endpoint} cannot be asked for {uri} ({why}); "
        "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY and check the other AWS variables"
    )


def unsafe(what: str) -> UnsafeKeyError:
    return UnsafeKeyError(
        f"{what} has control characters, or nothing, '.' or '..' between two slashes, "
        "which keys must not have here; rename the object"
    )
