"""What `nightshift doctor` asks of each service: whether it answers, and does what it is there for."""

import os
from typing import NamedTuple

TIMEOUT = 5.0  # seconds; a healthy service answers in milliseconds
LOOPBACK = "127.0.0.1"


class Finding(NamedTuple):
    """One line. `good` is None for a remark, which never makes the verdict worse."""

    good: bool | None
    sentence: str


def store() -> Finding:
    """Write, read and delete a small object, and say which of them fails."""
    os.environ.setdefault("AWS_MAX_ATTEMPTS", "2")  # the answer is wanted now, not after six attempts
    from tasks import storage
    from tasks.config import store_root

    uri, data = storage.join(store_root(), f"doctor/{os.getpid()}.txt"), os.urandom(32)
    storage.write(uri, data)
    same = storage.read(uri) == data
    storage.delete(uri)
    if not same or storage.exists(uri):
        return Finding(
            False, f"store {store_root()} does not return what was written or keeps what was deleted"
        )
    where = os.environ.get("AWS_ENDPOINT_URL_S3")
    suffix = f" at {where}" if where and store_root().startswith("s3:") else ""
    return Finding(True, f"store {store_root()}{suffix} writes, reads and deletes")


def tracking() -> Finding:
    address = os.environ["MLFLOW_TRACKING_URI"].rstrip("/")
    if not address.startswith(("http://", "https://")):
        return Finding(None, f"MLflow is not a server: MLFLOW_TRACKING_URI is {address}")
    _get(f"{address}/health")  # open to everybody, so it says nothing of the login
    if _refuses(f"{address}/api/2.0/mlflow/experiments/search?max_results=1"):
        return Finding(
            False,
            f"MLflow at {address} refuses the login; set MLFLOW_TRACKING_USERNAME and "
            "MLFLOW_TRACKING_PASSWORD",
        )
    return Finding(True, f"MLflow at {address} is healthy")


def airflow() -> Finding:
    import json

    address = os.environ["NIGHTSHIFT_AIRFLOW_URL"].rstrip("/")
    health = json.loads(_get(f"{address}/api/v2/monitor/health"))
    if not isinstance(health, dict) or not all(isinstance(part, dict) for part in health.values()):
        raise ValueError(f"{address} is no Airflow API server of version 3")
    sick = [name for name, part in health.items() if part.get("status") not in ("healthy", None)]
    if sick:
        return Finding(False, f"Airflow at {address}: {', '.join(sick)} not healthy; see nightshift logs")
    return Finding(True, f"Airflow at {address} is healthy")


def broker() -> Finding:
    import redis

    from tasks.stack.environment import home, stored_ports, stored_secrets

    ports, secrets = stored_ports(home()), stored_secrets(home())
    if ports is None or secrets is None:
        return Finding(False, f"{home()} has ports but no secrets; run nightshift down, then nightshift up")
    client = redis.Redis(LOOPBACK, ports.valkey, password=secrets.valkey_password, socket_timeout=TIMEOUT)
    try:
        client.ping()
    except redis.RedisError as error:
        return Finding(False, f"message broker on {LOOPBACK}:{ports.valkey} does not answer: {error}")
    finally:
        client.close()
    return Finding(True, f"message broker on {LOOPBACK}:{ports.valkey} answers")


def signatures() -> Finding:
    """Whether models are signed and verified here, and by which keys."""
    from tasks import signing

    trusted, private = signing.trusted_keys(), os.environ.get(signing.SIGNING_KEY)
    signer = signing.signer() if private else None
    if signer and signer.path.stat().st_mode & 0o077:
        return Finding(
            False, f"private key {signer.path} can be read by other users; run chmod 600 {signer.path}"
        )
    if not trusted:
        return Finding(None, f"models are not signed: {signing.PUBLIC_KEYS} is not set; see nightshift keys")
    names = ", ".join(key.fingerprint for key in trusted)
    signs = f", what is registered here is signed by {signer.fingerprint}" if signer else ""
    return Finding(True, f"models are trusted when signed by {names}{signs}")


def _refuses(url: str) -> bool:
    """Whether MLflow answers the login that its client sends with a refusal."""
    from base64 import b64encode
    from urllib.error import HTTPError
    from urllib.request import Request, urlopen

    login = ":".join(os.environ.get(f"MLFLOW_TRACKING_{name}", "") for name in ("USERNAME", "PASSWORD"))
    headers = {"Authorization": f"Basic {b64encode(login.encode()).decode()}"} if login != ":" else {}
    try:
        urlopen(Request(url, headers=headers), timeout=TIMEOUT).close()  # noqa: S310 - the user's own address
    except HTTPError as error:
        return error.code in (401, 403)
    return False


def _get(url: str) -> bytes:
    from urllib.error import URLError
    from urllib.request import urlopen

    from tasks.errors import OutageError

    try:
        with urlopen(url, timeout=TIMEOUT) as answer:  # noqa: S310 - the user's own address
            return bytes(answer.read())
    except (URLError, TimeoutError) as error:
        raise OutageError(
            f"{url} does not answer ({error}); check the address and that its server runs"
        ) from error
