"""Whether a role works: each one is asked in its own language, and the answer is None or why not.

A process that runs is not a server that works, and Airflow reports a heartbeat as healthy for half a minute
after its sender died: so a heartbeat counts only when it is younger than the process.
"""

import json
import socket
import threading
from collections.abc import Callable, Mapping
from datetime import datetime
from http.client import HTTPConnection, HTTPException
from urllib.parse import urlsplit

from nightshift.errors import NightshiftError
from nightshift.stack import http_client
from nightshift.stack.environment import LOOPBACK, Site
from nightshift.stack.roles import Health

# celery puts another object in its module's place while it is imported, which a second thread must not see
# half done.
_IMPORT = threading.Lock()

Check = Callable[[Site, str, float], str | None]


def _postgres(site: Site, target: str, since: float) -> str | None:
    return _connects(site.database_url("airflow"))


def _connects(url: str) -> str | None:
    import psycopg2  # type: ignore[import-untyped]

    try:
        connection = psycopg2.connect(libpq(url), connect_timeout=2)
    except psycopg2.Error as error:
        return str(error).strip().splitlines()[0]
    connection.close()
    return None


def libpq(url: str) -> str:
    """A database's address as PostgreSQL's own library takes it, without the driver that SQLAlchemy wants."""
    scheme, separator, rest = url.partition("://")
    return scheme.partition("+")[0] + separator + rest


def _valkey(site: Site, target: str, since: float) -> str | None:
    try:
        with socket.create_connection((LOOPBACK, site.ports.valkey), timeout=2) as connection:
            connection.sendall(f"AUTH {site.secrets.valkey_password}\r\nPING\r\n".encode())
            answer = b""
            while answer.count(b"\r\n") < 2 and (more := connection.recv(256)):
                answer += more
    except OSError as error:
        return str(error)
    return (
        None if answer == b"+OK\r\n+PONG\r\n" else f"it answered {answer.decode(errors='replace').strip()!r}"
    )


def _get(url: str) -> tuple[int, bytes]:
    """Status and body. With the plain client: asked every half second, httpx would take a core."""
    parts = urlsplit(url)
    connection = HTTPConnection(parts.hostname or LOOPBACK, parts.port, timeout=5)
    try:
        connection.request("GET", parts.path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def server(url: str) -> str | None:
    """None when a server answers at this address, otherwise why not."""
    try:
        code, _ = _get(url)
    except (OSError, HTTPException) as error:
        return str(error) or type(error).__name__
    # S3 refuses an unsigned request: that too is an answer of a server that works.
    return None if code < 500 and code != 404 else f"it answered {code}"


def heartbeat(airflow_url: str, component: str, since: float) -> str | None:
    """None when Airflow has heard of the component since that time (seconds of the epoch), or why not."""
    try:
        code, body = _get(f"{airflow_url}/api/v2/monitor/health")
    except (OSError, HTTPException) as error:
        return f"the API server cannot be asked: {error}"
    if code != 200:
        return f"the API server answered {code}"
    found = json.loads(body)[component]
    beat = found.get(f"latest_{component}_heartbeat")
    if beat is None:
        return "no heartbeat yet"
    if datetime.fromisoformat(beat).timestamp() < since:
        return "no heartbeat since it was started"
    return None if found["status"] == "healthy" else f"the last heartbeat was at {beat}"


def worker(broker: str, node: str) -> str | None:
    """None when the Celery worker of this name answers over the broker, otherwise why not."""
    with _IMPORT:
        from celery import Celery  # type: ignore[import-untyped]
        from kombu.exceptions import OperationalError

    try:
        with Celery(broker=broker, set_as_current=False) as app:
            answers = app.control.ping(destination=[node], timeout=2.0)
    except (OperationalError, OSError) as error:
        return f"the broker cannot be asked: {error}"
    return None if answers else "it does not answer over the broker"


def _process(site: Site, target: str, since: float) -> str | None:
    """Nothing listens; that it runs is seen before this is asked."""
    return None


_CHECKS: dict[str, Check] = {
    "postgres": _postgres,
    "valkey": _valkey,
    "http": lambda site, target, since: server(target),
    "heartbeat": lambda site, target, since: heartbeat(site.airflow_url, target, since),
    "celery": lambda site, target, since: worker(site.broker_url, target),
    "process": _process,
}


def ask(health: Health, site: Site, since: float) -> str | None:
    """None when it works, otherwise why not. `since` (seconds of the epoch) is when its process began."""
    return _CHECKS[health.kind](site, health.target, since)


def ask_own(part: str, site: Site) -> str | None:
    """None when a part of the caller's own answers, otherwise why not."""
    return {"postgres": _own_postgres, "valkey": _own_broker, "s3": _own_s3, "mlflow": _own_mlflow}[part](
        site
    )


def _own_postgres(site: Site) -> str | None:
    for url in (site.database_url("airflow"), site.database_url("mlflow")):
        if url.startswith("postgres") and (reason := _connects(url)):
            return reason
    return None


def _own_broker(site: Site) -> str | None:
    with _IMPORT:
        from kombu.connection import Connection

    options = {"socket_timeout": 2, "socket_connect_timeout": 2}
    try:
        with Connection(  # type: ignore[no-untyped-call]
            site.broker_url, connect_timeout=2, transport_options=options
        ) as connection:
            connection.ensure_connection(max_retries=1, timeout=3)
    except Exception as error:  # each kind of broker has errors of its own
        return str(error)
    return None


def _own_s3(site: Site) -> str | None:
    """A store of files has nothing to ask, and AWS itself is not asked."""
    variables = site.own["s3"]
    endpoint = variables.get("AWS_ENDPOINT_URL_S3") or variables.get("AWS_ENDPOINT_URL")
    if not endpoint or not variables["NIGHTSHIFT_STORE"].startswith("s3:"):
        return None
    return _answers(endpoint, variables, http_client.S3_AUTHORITIES)


def _own_mlflow(site: Site) -> str | None:
    variables = site.own["mlflow"]
    address = variables["MLFLOW_TRACKING_URI"].rstrip("/")
    if not address.startswith(("http://", "https://")):
        return None
    return _answers(f"{address}/health", variables, http_client.MLFLOW_AUTHORITIES)


def _answers(url: str, variables: Mapping[str, str], authorities: tuple[str, ...]) -> str | None:
    try:
        status = http_client.get(url, http_client.trust(variables, authorities)).status
    except NightshiftError as error:
        return str(error)
    return None if status < 500 else f"it answered {status}"
