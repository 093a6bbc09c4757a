"""The parts of the stack that may be the caller's own: PostgreSQL, the message broker, S3 and MLflow.

A part that `up` is told to leave out is reached by the variables that the caller has set. They are kept in
the stack's folder, so that the same servers are found from another shell.
"""

import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from nightshift.errors import InputError
from nightshift.security import signing
from nightshift.stack.environment import BROKER_URL, DATABASE_URLS, RESULT_BACKEND, SIGNING
from nightshift.storage.connection import is_virtual

AIRFLOW: Final = ("migrate", "api-server", "scheduler", "dag-processor", "triggerer", "janitor")
WORKERS: Final = ("worker", "worker-train")


class Variable(NamedTuple):
    """A variable without which some roles cannot reach a part, and what it looks like."""

    name: str
    example: str
    roles: tuple[str, ...]


class Part(NamedTuple):
    """What leads to a part: variables that have to be there, and what the names of all others begin with."""

    title: str
    needed: tuple[Variable, ...]
    also: tuple[str, ...] = ()


PARTS: Final[Mapping[str, Part]] = {
    "postgres": Part(
        "PostgreSQL",
        (
            Variable(DATABASE_URLS["airflow"], "postgresql+psycopg2://user:password@host/airflow", AIRFLOW),
            Variable(DATABASE_URLS["mlflow"], "postgresql+psycopg2://user:password@host/mlflow", ("mlflow",)),
        ),
    ),
    "valkey": Part(
        "message broker",
        (
            Variable(BROKER_URL, "redis://:password@host:6379/0", ("scheduler", *WORKERS)),
            Variable(RESULT_BACKEND, "redis://:password@host:6379/1", ("scheduler", *WORKERS)),
        ),
    ),
    "s3": Part(
        "S3",
        (Variable("NIGHTSHIFT_STORE", "s3://bucket", ("mlflow", "serve", *WORKERS)),),
        ("AWS_", "MLFLOW_S3_", "MLFLOW_BOTO_"),
    ),
    "mlflow": Part(
        "MLflow",
        (Variable("MLFLOW_TRACKING_URI", "https://host", ("serve", *WORKERS)),),
        ("MLFLOW_TRACKING_", "MLFLOW_REGISTRY_URI", "MLFLOW_HTTP_", "MLFLOW_WORKSPACE", "REQUESTS_CA_BUNDLE"),
    ),
}
FILES: Final = (
    *("AWS_CA_BUNDLE", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE", "AWS_WEB_IDENTITY_TOKEN_FILE"),
    *("MLFLOW_TRACKING_SERVER_CERT_PATH", "MLFLOW_TRACKING_CLIENT_CERT_PATH", "REQUESTS_CA_BUNDLE"),
    *(signing.PUBLIC_KEYS, *SIGNING),
)


def take(
    without: Collection[str], roles: Collection[str], parent: Mapping[str, str]
) -> dict[str, dict[str, str]]:
    """The variables of each part that is left out, as the caller has set them; `roles` are those that start.

    A part that is left out, not named by any variable and needed by no role is not the caller's. Raises
    InputError for one that is needed and not named.
    """
    own: dict[str, dict[str, str]] = {}
    for name, part in PARTS.items():
        if name not in without:
            continue
        for variable in part.needed:
            if not parent.get(variable.name) and (needing := sorted({*variable.roles} & {*roles})):
                raise InputError(
                    f"{name} is left out and {variable.name} is not set, by which {needing[0]} finds your "
                    f"own {part.title}: set it, such as {variable.example}, or leave {needing[0]} out too"
                )
        if any(parent.get(variable.name) for variable in part.needed):
            own[name] = _variables(name, part, parent)
    return own


def _variables(name: str, part: Part, parent: Mapping[str, str]) -> dict[str, str]:
    wanted = {variable.name for variable in part.needed}
    wanted |= {variable for variable in parent if part.also and variable.startswith(part.also)}
    # The models there may be signed by other keys than the stack's.
    if name == "mlflow" and parent.get(signing.PUBLIC_KEYS) and parent.get(signing.SIGNING_KEY):
        wanted |= {signing.PUBLIC_KEYS, *SIGNING}
    found = {each: _whole(each, value) for each in sorted(wanted) if (value := parent.get(each))}
    if name == "s3" and (found.get("AWS_ENDPOINT_URL_S3") or found.get("AWS_ENDPOINT_URL")):
        # MLflow's client would guess by the endpoint's name.
        found.setdefault("MLFLOW_BOTO_CLIENT_ADDRESSING_STYLE", "virtual" if is_virtual(parent) else "path")
    return found


def _whole(name: str, value: str) -> str:
    """Names of files in full, since the servers work in another folder than the caller."""
    if name not in FILES:
        return value
    return os.pathsep.join(
        str(Path(path).expanduser().absolute()) for path in value.split(os.pathsep) if path
    )


def address(name: str, variables: Mapping[str, str]) -> str:
    """Where a part of the caller's is, for people: no login is in it."""
    first = next(variables[each.name] for each in PARTS[name].needed if each.name in variables)
    if name != "s3":
        return host(first)
    endpoint = variables.get("AWS_ENDPOINT_URL_S3") or variables.get("AWS_ENDPOINT_URL")
    return f"{first} at {host(endpoint) if endpoint else 'AWS'}" if first.startswith("s3:") else first


def host(url: str) -> str:
    """Host and port of an address, without a login."""
    return urlsplit(url).netloc.rpartition("@")[2] or url.partition("://")[0]
