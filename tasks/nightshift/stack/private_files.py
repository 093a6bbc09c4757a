"""What a stack keeps of itself, each in a file that only its owner reads: ports, secrets, others' servers."""

import base64
import json
import os
import secrets as entropy
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from nightshift.errors import NightshiftError


@dataclass(frozen=True)
class Ports:
    """One TCP port on the loopback interface for each server that listens."""

    airflow: int = 8080
    mlflow: int = 5000
    s3: int = 9000
    postgres: int = 5433
    valkey: int = 6380
    serve: int = 8500
    metrics: int = 8501


@dataclass(frozen=True)
class Secrets:
    """Made at the first start and kept in one file that only its owner reads."""

    airflow_password: str
    fernet_key: str
    jwt_secret: str
    api_secret_key: str
    postgres_password: str
    valkey_password: str
    s3_key: str
    s3_secret: str
    mlflow_password: str
    mlflow_secret_key: str


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, whole or not at all."""
    draft = path.with_name(f"{path.name}.{os.getpid()}.draft")
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
    draft.replace(path)


def _read(path: Path) -> dict[str, object] | None:
    try:
        stored = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise NightshiftError(
            f"{path} is not readable as JSON ({error}): restore it, or remove {path.parent} to begin anew"
        ) from error
    return dict(stored)


def stored_ports(home: Path) -> Ports | None:
    stored = _read(home / "ports.json")
    return None if stored is None else Ports(**{name: int(str(port)) for name, port in stored.items()})


def stored_secrets(home: Path) -> Secrets | None:
    """None where no stack was ever started. What the file lacks is made, and kept."""
    stored = _read(home / "secrets.json")
    return None if stored is None else _complete(home, stored)


def stored_own(home: Path) -> dict[str, dict[str, str]]:
    """Which servers of the stack in this folder are the caller's own, and the variables that lead there."""
    stored = _read(home / "own.json") or {}
    return {part: dict(variables) for part, variables in stored.items() if isinstance(variables, dict)}


def store_own(home: Path, own: Mapping[str, Mapping[str, str]]) -> None:
    write_private(home / "own.json", json.dumps(own, indent=2))


def ensure_secrets(home: Path) -> Secrets:
    """The stack's secrets, made once: a second call reads the same ones."""
    return stored_secrets(home) or _complete(home, {})


def _complete(home: Path, stored: Mapping[str, object]) -> Secrets:
    made = asdict(_made())
    complete = {name: str(stored.get(name) or value) for name, value in made.items()}
    if complete.keys() != stored.keys():
        write_private(home / "secrets.json", json.dumps(complete, indent=2))
    return Secrets(**complete)


def _made() -> Secrets:
    return Secrets(
        airflow_password=entropy.token_urlsafe(12),
        fernet_key=base64.urlsafe_b64encode(entropy.token_bytes(32)).decode(),
        jwt_secret=entropy.token_hex(32),
        api_secret_key=entropy.token_hex(32),
        postgres_password=entropy.token_hex(24),
        valkey_password=entropy.token_hex(24),
        s3_key=entropy.token_hex(10),
        s3_secret=entropy.token_hex(24),
        mlflow_password=entropy.token_urlsafe(12),
        mlflow_secret_key=entropy.token_hex(32),
    )


def store_ports(home: Path, ports: Ports) -> None:
    write_private(home / "ports.json", json.dumps(asdict(ports), indent=2))
