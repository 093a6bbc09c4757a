"""One question over HTTP or HTTPS, trusting the authorities that S3's and MLflow's clients trust."""

import http.client
import ssl
from base64 import b64encode
from collections.abc import Mapping
from typing import Final, NamedTuple
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit, urlunsplit
from urllib.request import HTTPSHandler, Request, build_opener

from nightshift.errors import InputError, OutageError

TIMEOUT: Final = 5.0  # seconds; a healthy server answers in milliseconds
S3_AUTHORITIES: Final = ("AWS_CA_BUNDLE",)
MLFLOW_AUTHORITIES: Final = ("MLFLOW_TRACKING_SERVER_CERT_PATH", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
INSECURE: Final = "MLFLOW_TRACKING_INSECURE_TLS"


class Answer(NamedTuple):
    """`date` is the server's clock as it says it, empty where it does not."""

    status: int
    date: str
    body: bytes


def trust(variables: Mapping[str, str], authorities: tuple[str, ...]) -> ssl.SSLContext:
    """Trust in the authorities of the first of these variables that is set, else in the machine's.

    Raises InputError for a file that holds none.
    """
    name = next((name for name in authorities if variables.get(name)), "")
    try:
        context = ssl.create_default_context(cafile=variables.get(name) or None)
    except OSError as error:  # ssl.SSLError is one
        raise InputError(
            f"{name} is {variables.get(name)!r}, which cannot be used ({error.strerror or error}); "
            "name a PEM file"
        ) from error
    if authorities is MLFLOW_AUTHORITIES and variables.get(INSECURE, "").lower() in ("true", "1"):
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def without_login(url: str) -> str:
    """The address as it may be shown and asked without signing in."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def get(url: str, context: ssl.SSLContext, login: str = "") -> Answer:
    """What the server answers, a refusal too; `login` is `user:password`.

    Raises OutageError when it does not answer within 5 seconds.
    """
    url = without_login(url)
    headers = {"Authorization": f"Basic {b64encode(login.encode()).decode()}"} if login else {}
    opener = build_opener(HTTPSHandler(context=context))
    try:
        with opener.open(Request(url, headers=headers), timeout=TIMEOUT) as answer:  # noqa: S310 - the user's own address
            return Answer(answer.status, answer.headers.get("Date", ""), answer.read())
    except HTTPError as refusal:
        with refusal:
            return Answer(refusal.code, refusal.headers.get("Date", ""), refusal.read())
    except (URLError, OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, ssl.SSLCertVerificationError):
            reason = f"its certificate is not trusted: {reason.verify_message}"
        raise OutageError(
            f"{url} does not answer ({reason or type(error).__name__}); "
            "check the address and that its server runs"
        ) from error
