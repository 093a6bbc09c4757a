"""The deployment's files as data: services, their variables as compose would give them, the secrets made."""

import functools
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
DOCKER, MLFLOW = ROOT / "docker", ROOT / "mlflow"
SECRETS = "/run/secrets"
REFERENCE = re.compile(r"\$\{(\w+)(?::([-?])([^}]*))?\}")


@functools.cache
def compose() -> dict[str, Any]:
    return dict(yaml.safe_load((DOCKER / "compose.yaml").read_text(encoding="utf-8")))


def services() -> dict[str, dict[str, Any]]:
    return dict(compose()["services"])


def env_file(path: Path) -> dict[str, str]:
    """Names and values of a file of variables; it has no quotes."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def example() -> dict[str, str]:
    return env_file(DOCKER / ".env.example")


def interpolated(text: str, variables: Mapping[str, str] | None = None) -> str:
    """With references replaced by a variable's value or its default."""
    given = variables or {}
    text = REFERENCE.sub(lambda found: given.get(found[1]) or found[3] or "", text)
    return text.replace("$$", "$")


def environment(service: str, variables: Mapping[str, str] | None = None) -> dict[str, str]:
    """What a container of the service starts with, apart from what is in its image."""
    about = services()[service]
    found: dict[str, str] = {}
    for name in about.get("env_file", []):
        found |= env_file(DOCKER / name)
    found |= {name: str(value) for name, value in about.get("environment", {}).items()}
    return {name: interpolated(value, variables) for name, value in found.items()}


def command(service: str, variables: Mapping[str, str] | None = None) -> list[str]:
    return interpolated(str(services()[service]["command"]), variables).split()


def make_secrets(folder: Path) -> Path:
    """Run the script that makes them."""
    script = shutil.copy(DOCKER / "make-secrets.sh", folder.parent)
    subprocess.run(["sh", str(script), str(folder)], check=True, capture_output=True, text=True)
    return folder
