"""MLflow: its version, and whether its registry and its artifacts keep and remove something small."""

import os
import secrets
import tempfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from nightshift.cli.checks import Finding, clock, timed
from nightshift.errors import InputError, OutageError

if TYPE_CHECKING:
    from nightshift.stack import http_client


def tracking() -> Iterator[Finding]:
    from nightshift.stack import http_client

    address = http_client.without_login(os.environ["MLFLOW_TRACKING_URI"]).rstrip("/")
    if not address.startswith(("http://", "https://")):
        yield Finding(None, f"MLflow is not a server: MLFLOW_TRACKING_URI is {address}")
        return
    context = http_client.trust(os.environ, http_client.MLFLOW_AUTHORITIES)
    health, took = timed(lambda: http_client.get(f"{address}/health", context))
    if health.status == 404 or health.status >= 500:
        yield Finding(
            False, f"{address}/health answers {health.status}; check the address and the server's log"
        )
        return
    yield Finding(True, f"MLflow at {address} is healthy, it answers in {took}")
    login = [os.environ.get(f"MLFLOW_TRACKING_{name}", "") for name in ("USERNAME", "PASSWORD")]
    yield from _version(http_client.get(f"{address}/version", context, ":".join(login) if any(login) else ""))
    yield from clock(f"MLflow at {address}", health.date)
    yield from _round_trips()
    yield from _owners()


def _version(answer: "http_client.Answer") -> Iterator[Finding]:
    client = _installed()
    server = answer.body.decode(errors="replace").strip() if answer.status == 200 else ""
    if not client or not server:
        yield Finding(None, f"MLflow's version is not known: its server says {answer.status}")
    elif server == client:
        yield Finding(True, f"MLflow's server and client are both {server}")
    elif server.partition(".")[0] == client.partition(".")[0]:
        yield Finding(None, f"MLflow's server is {server}, its client {client}: tried are equal ones only")
    else:
        yield Finding(False, f"MLflow's server is {server}, its client {client}; install the same version")


def _installed() -> str:
    for package in ("mlflow", "mlflow-skinny"):
        try:
            return metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return ""


def _round_trips() -> Iterator[Finding]:
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    name = f"nightshift-doctor-{secrets.token_hex(4)}"
    _, took = timed(lambda: _try_model(name))
    yield Finding(True, f"MLflow registers a model, tags it and removes it in {took}")
    data = os.urandom(32)
    kept, took = timed(lambda: _try_artifact(f"doctor/{name}", data))
    if kept == data:
        yield Finding(True, f"MLflow keeps an artifact, returns it and removes it in {took}")
    else:
        yield Finding(
            False, "MLflow does not return the artifact that it was given; look at its store and log"
        )


def _owners() -> Iterator[Finding]:
    """Whether nights of another MLflow write to the same store."""
    from nightshift.tracking import owners

    try:
        owners.check()
    except OutageError:  # of the store, which has checks of its own
        return
    except InputError as error:
        yield Finding(False, str(error))


def _try_model(name: str) -> None:
    """Register a model without versions, tag it and remove it again."""
    from nightshift.tracking import registry
    from nightshift.tracking.runs import client, mlflow_errors

    with mlflow_errors():
        client().create_registered_model(name)
        client().set_registered_model_tag(name, registry.STATE, "tried")
        client().delete_registered_model(name)


def _try_artifact(folder: str, data: bytes) -> bytes:
    """What the server returns of an artifact outside of any run, which is removed again."""
    from mlflow.store.artifact.mlflow_artifacts_repo import MlflowArtifactsRepository

    from nightshift.errors import InputError
    from nightshift.tracking import runs

    place = MlflowArtifactsRepository(f"mlflow-artifacts:/{folder}", runs.address())
    with tempfile.TemporaryDirectory() as there, tempfile.TemporaryDirectory() as back, runs.mlflow_errors():
        Path(there, "tried").write_bytes(data)
        try:
            place.log_artifact(str(Path(there, "tried")))
            returned = Path(place.download_artifacts("tried", back)).read_bytes()
            place.delete_artifacts("tried")
        except OSError as error:  # the answers of a server that refuses, too
            raise InputError(
                f"MLflow at {runs.address()} keeps no artifacts ({error}); see its log"
            ) from error
    return returned
