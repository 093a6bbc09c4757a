"""Each role installs what it runs and no more: its entry points import without any other role's packages."""

import re
import subprocess
import sys
import zipfile
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
ENTRY_POINTS = {
    "predict": (
        "nightshift.inference.file_predictor",
        "nightshift.inference.similarity",
        "nightshift.tracking.registry",
        "nightshift.security.signing",
        "nightshift.cli",
    ),
    "serve": (
        "nightshift.serving.app",
        "nightshift.tracking.registry",
        "model_signing.verifying",
        "uvicorn",
        "uvloop",
        "httptools",
        "nightshift.cli",
    ),
    "preprocess": (
        "nightshift.preprocess",
        "nightshift.workflows.retrain.plan",
        "nightshift.workflows.retrain.assemble",
        "nightshift.cli",
    ),
    "train": (
        "nightshift.train",
        "nightshift.quantize",
        "nightshift.evaluate",
        "nightshift.register",
        "nightshift.workflows.promote.promote",
        "nightshift.workflows.retrain.close",
        "nightshift.workflows.sweep.start",
        "nightshift.workflows.sweep.trial",
        "nightshift.workflows.sweep.finish",
    ),
    "airflow": (
        "nightshift.runner",
        "nightshift.airflow.retrain",
        "nightshift.airflow.promote",
        "nightshift.airflow.predict",
        "nightshift.airflow.sweep",
    ),
    "stack": (
        "nightshift.stack.lifecycle",
        "nightshift.cli.stack",
        "nightshift.cli.airflow_api",
        "nightshift.airflow.retrain",
    ),
    # What is in the image of docker/Dockerfile, and what its services run.
    "airflow train serve heic dicom": (
        "nightshift.stack.provision",
        "nightshift.stack.airflow_access",
        "nightshift.stack.healthcheck",
        "nightshift.stack.janitor",
        "nightshift.cli",
        "nightshift.cli.airflow_api",
        "nightshift.serving.app",
        "nightshift.register",
        "nightshift.airflow.retrain",
        "nightshift.airflow.promote",
        "nightshift.airflow.predict",
        "nightshift.airflow.sweep",
        "nightshift.airflow.upkeep",
        "boto3",
        "httpx",
        "psutil",
        "psycopg2",
        "celery",
        "redis",
        "airflow.providers.fab.auth_manager.fab_auth_manager",
        "airflow.providers.amazon.aws.log.s3_task_handler",
    ),
}


def name_of(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


def closure(distribution: str, extras: frozenset[str]) -> set[str]:
    """All distributions that an installation with these extras brings."""
    found: set[str] = set()
    todo = [(name_of(distribution), extras)]
    seen = set()
    while todo:
        name, wanted = todo.pop()
        if (name, wanted) in seen:
            continue
        seen.add((name, wanted))
        found.add(name)
        try:
            lines = requires(name) or []
        except PackageNotFoundError:
            continue
        for requirement in map(Requirement, lines):
            marker = requirement.marker
            if marker is None or any(marker.evaluate({"extra": extra}) for extra in wanted or {""}):
                todo.append((name_of(requirement.name), frozenset(requirement.extras)))
    return found


@pytest.mark.parametrize("role", ENTRY_POINTS)
def test_a_roles_entry_points_import_without_the_other_roles(role, tmp_path):
    allowed = closure("nightshift-ml", frozenset(role.split()))
    foreign = sorted(
        module
        for module, owners in packages_distributions().items()
        if not {name_of(owner) for owner in owners} & allowed
        and module not in ("nightshift", "dags", "tests")
    )
    assert len(foreign) > 20
    code = (
        "import sys\n"
        f"foreign = set({foreign!r})\n"
        "class Without:\n"
        "    def __init__(self, finder): self.finder = finder\n"
        "    def __getattr__(self, name): return getattr(self.finder, name)\n"
        "    def find_spec(self, name, *more):\n"
        "        return None if name.split('.')[0] in foreign else self.finder.find_spec(name, *more)\n"
        "sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]\n"
        f"import {', '.join(ENTRY_POINTS[role])}\n"
    )
    environment = {"PATH": "/usr/bin:/bin", "AIRFLOW_HOME": str(tmp_path), "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_images_extras_are_those_that_are_tested():
    dockerfile = (ROOT / "docker" / "Dockerfile").read_text(encoding="utf-8")
    for line in re.findall(r"(?m)^ +--extra.*", dockerfile):
        assert " ".join(re.findall(r"--extra (\w+)", line)) in ENTRY_POINTS


def test_the_wheel_holds_every_module(tmp_path):
    build = "import setuptools.build_meta as build; build.build_wheel({!r})"
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "tasks"):
        (source / name).symlink_to(ROOT / name)
    done = subprocess.run(
        [sys.executable, "-c", build.format(str(tmp_path))],
        cwd=source,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("nightshift_ml-*.whl")
    inside = {name for name in zipfile.ZipFile(wheel).namelist() if name.endswith(".py")}
    assert inside == {
        str(path.relative_to(ROOT / "tasks")) for path in (ROOT / "tasks" / "nightshift").rglob("*.py")
    }
