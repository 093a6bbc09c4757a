"""From the standard variables to a connected bucket.

Without keys in the environment boto3 finds them, as in profiles, SSO and containers; where boto3 is not
installed, object_store asks the metadata services itself.
"""

import functools
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from obstore.store import S3Store

from nightshift.errors import InputError
from nightshift.storage.failures import misconfigured

if TYPE_CHECKING:
    from obstore.store import ClientConfig, S3Credential

ATTEMPTS: Final = 6  # of a request, before it has failed
ENDPOINTS: Final = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
KEYS: Final = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
TOKEN: Final = "AWS_SESSION_TOKEN"  # noqa: S105
REGIONS: Final = ("AWS_DEFAULT_REGION", "AWS_REGION")
HEADERS: Final = (KEYS[0], TOKEN, *REGIONS)  # sent as they are
FILES: Final = ("AWS_PROFILE", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE", "AWS_CA_BUNDLE")
VIRTUAL: Final = "AWS_VIRTUAL_HOSTED_STYLE_REQUEST"  # the bucket in the host's name instead of the path
VARIABLES: Final = (
    *ENDPOINTS,
    *KEYS,
    TOKEN,
    *REGIONS,
    *FILES,
    VIRTUAL,
    "AWS_CHECKSUM_ALGORITHM",
    "AWS_MAX_ATTEMPTS",
)


@dataclass
class Bucket:
    """A connected bucket; `digests` as long as its ETags look like the MD5 of the content."""

    store: S3Store
    attempts: int
    digests: bool = True


def bucket_key(uri: str) -> tuple[str, str]:
    """The two parts of an address, the key taken literally. Raises InputError."""
    scheme, separator, rest = uri.partition("://")
    bucket, _, key = rest.partition("/")
    if scheme != "s3" or not separator or not re.fullmatch(r"[A-Za-z0-9._-]{1,255}", bucket):
        raise InputError(f"storage address {uri!r} must look like s3://bucket/key or file:///path")
    return bucket, key


def connected(uri: str) -> Bucket:
    """The bucket of an address; the same one until a variable changes. Raises InputError."""
    if _owner() != os.getpid():
        raise RuntimeError(
            f"{uri} was asked for in a fork of a process that had used S3, which would wait for ever; "
            "spawn the process instead"
        )
    return _connect(bucket_key(uri)[0], tuple(os.environ.get(name, "") for name in VARIABLES))


def boto_client() -> Any:
    """boto3's client of the same server, for what obstore cannot do."""
    import boto3
    from botocore.config import Config

    style = "virtual" if is_virtual() else "path" if first(ENDPOINTS) else "auto"
    session = boto3.Session(region_name=first(REGIONS) or None)
    return session.client("s3", config=Config(s3={"addressing_style": style}))


def is_virtual(variables: Mapping[str, str] = os.environ) -> bool:
    """Whether the bucket goes into the host's name. Raises InputError."""
    given = variables.get(VIRTUAL, "").lower()
    if given not in ("", "true", "false", "1", "0"):
        raise InputError(f"{VIRTUAL} is {given!r}; it must be true or false")
    return given in ("true", "1")


def endpoint() -> str:
    return first(ENDPOINTS) or "AWS"


def first(names: tuple[str, ...]) -> str:
    """The first of these variables that is set and not empty, else the empty text."""
    return next((value for name in names if (value := os.environ.get(name))), "")


@functools.cache
def _owner() -> int:
    """The process that started obstore's threads: a fork does not have them."""
    return os.getpid()


@functools.lru_cache(maxsize=8)
def _connect(bucket: str, variables: tuple[str, ...]) -> Bucket:
    uri, given = f"s3://{bucket}", dict(zip(VARIABLES, variables, strict=True))
    _check(uri, given)
    options: dict[str, Any] = {"region": first(REGIONS) or "us-east-1"}
    if any(given[name] for name in KEYS):
        options["credential_provider"] = functools.partial(_given, *(given[name] for name in (*KEYS, TOKEN)))
    else:
        options |= _found_by_boto3(uri)
    found = options.pop("endpoint", "")
    address = (first(ENDPOINTS) or found or amazon(options["region"])).rstrip("/")
    client: ClientConfig = {
        "allow_http": address.startswith("http://"),
        "connect_timeout": timedelta(seconds=5),
        "read_timeout": timedelta(seconds=60),
        "timeout": timedelta(minutes=15),  # of a whole request, and a shard may go over a slow line
    }
    if virtual := is_virtual():
        address = _with_bucket(bucket, address)
    if bundle := given["AWS_CA_BUNDLE"]:
        client["root_certificate"] = _certificates(bundle)
    try:
        store = S3Store(
            bucket,
            **options,
            aws_endpoint_url_s3=address,  # the only form that beats a variable which is set and empty
            virtual_hosted_style_request=virtual,
            disable_bulk_delete=True,
            # Where nobody can change it on the way, a signature of the content would hash it once more.
            unsigned_payload=address.startswith("https://") or _is_loopback(address),
            client_options=client,
            retry_config={"max_retries": 0},  # they are the caller's, who can be interrupted between them
        )
    except Exception as error:
        raise misconfigured(uri, endpoint(), str(error).partition("\n")[0]) from error
    return Bucket(store, _attempts(given["AWS_MAX_ATTEMPTS"] or str(ATTEMPTS)))


def _given(key: str, secret: str, token: str) -> "S3Credential":
    """The keys of the environment; obstore by itself would send an empty token."""
    return {"access_key_id": key, "secret_access_key": secret, "token": token or None, "expires_at": None}


def _with_bucket(bucket: str, address: str) -> str:
    scheme, _, rest = address.partition("://")
    if re.fullmatch(r"[\d.]+|.*:.*", urlsplit(address).hostname or ""):
        raise InputError(
            f"{VIRTUAL} is set, and {address} has no name that {bucket} can stand before; unset it"
        )
    return f"{scheme}://{bucket}.{rest}"


def amazon(region: str) -> str:
    """Where AWS's own S3 is."""
    return f"https://s3.{region}.amazonaws.com{'.cn' if region.startswith('cn-') else ''}"


def _attempts(given: str) -> int:
    if not given.isdecimal() or int(given) < 1:
        raise InputError(f"AWS_MAX_ATTEMPTS is {given!r}; it must be a whole number from 1")
    return int(given)


def _check(uri: str, given: dict[str, str]) -> None:
    """Refuse in words what the Rust code would panic at. Raises InputError."""
    for name in ENDPOINTS:
        if given[name] and not is_address(given[name]):
            raise InputError(f"{name} is {given[name]!r}; it must look like http://host:9000 or https://host")
    for name in HEADERS:
        if not re.fullmatch("[!-~]*", given[name]):
            raise InputError(f"{name} has spaces, line ends or characters beyond ASCII; copy it again")
    absent = [name for name in KEYS if not given[name]]
    if len(absent) == 1:
        raise misconfigured(uri, endpoint(), f"{absent[0]} is not set")


def is_address(text: str) -> bool:
    try:
        port = urlsplit(text).port
    except ValueError:
        return False
    form = r"https?://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:\d+)?(/[!-~]*)?"
    return port != 0 and re.fullmatch(form, text) is not None


def _is_loopback(address: str) -> bool:
    host = urlsplit(address).hostname or ""
    return host == "localhost" or re.fullmatch(r"127(\.\d+){3}|::1", host) is not None


def _certificates(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise InputError(
            f"AWS_CA_BUNDLE is {path!r}, which cannot be read ({error.strerror}); name a PEM file"
        ) from error


def _found_by_boto3(uri: str) -> dict[str, Any]:
    """Credentials, region and endpoint of the profile, the container or the machine. Raises InputError."""
    try:
        import boto3
        from botocore.exceptions import BotoCoreError
        from obstore.auth.boto3 import Boto3CredentialProvider
    except ImportError:
        return {}
    try:
        # A session of its own: boto3's default one is not safe when two threads ask first.
        session = boto3.Session()
        # botocore renews them ten minutes before their end: they must be asked for again before that.
        provider = Boto3CredentialProvider(session, ttl=timedelta(minutes=5))
        provider()
        address = session.client("s3", region_name=first(REGIONS) or session.region_name).meta.endpoint_url
    except (BotoCoreError, ValueError) as error:
        raise misconfigured(uri, endpoint(), str(error)) from error
    found: dict[str, Any] = {"credential_provider": provider}
    if region := first(REGIONS) or session.region_name:
        found["region"] = region
    return found | {"endpoint": address}
