"""Somebody else's environment: `pip install '.[predict]'` and nothing more, and what works there."""

import base64
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow_server import Door
from predicting import Lights, png

from nightshift.tracking import registry, runs

ROOT = Path(__file__).parent.parent
LOGIN = "the-reader-s-own-password"
UV = str(Path(sys.executable).with_name("uv"))


@pytest.fixture(scope="module")
def consumer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with the wheel and its extra `predict`, versions as in the lock file."""
    folder = tmp_path_factory.mktemp("consumer")
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "tasks"):
        (source / name).symlink_to(ROOT / name)
    build = f"import setuptools.build_meta as build; build.build_wheel({str(folder)!r})"
    done = subprocess.run([sys.executable, "-c", build], cwd=source, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = folder.glob("nightshift_ml-*.whl")
    python = folder / "env" / "bin" / "python"
    for command in (
        [UV, "venv", "--quiet", "--python", sys.executable, str(folder / "env")],
        [
            *(UV, "pip", "install", "--quiet", "--python", str(python)),
            *("--constraint", str(ROOT / "requirements.lock"), f"nightshift-ml[predict] @ file://{wheel}"),
        ],
    ):
        done = subprocess.run(command, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
    return python


def there(python: Path, *command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run something in the fresh environment, which knows nothing but where MLflow is."""
    known = {name: os.environ[name] for name in ("PATH", "HOME", "MLFLOW_TRACKING_URI")}
    known |= {"MLFLOW_TRACKING_USERNAME": "reader", "MLFLOW_TRACKING_PASSWORD": LOGIN}
    return subprocess.run(
        [str(python), *command], cwd=cwd, env=known, capture_output=True, text=True, check=False
    )


@pytest.fixture
def digits(lights: Lights) -> str:
    """A champion by the name that the guide's example asks for."""
    version = lights.register()
    lights.pipeline = lights.pipeline.model_copy(update={"name": "digits"})
    version = lights.register()
    return registry.version_tags("digits", version)[registry.SHA256]


def test_the_guides_example_loads_the_champion(
    consumer: Path, digits: str, mlflow_server: Door, tmp_path: Path
) -> None:
    page = (ROOT / "docs" / "predictions.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", page, flags=re.S)
    assert len([line for line in example.splitlines() if line]) == 3
    (tmp_path / "digit.png").write_bytes(png(250))
    done = there(consumer, "-c", example, cwd=tmp_path)
    assert done.stdout.split() == ["bright", "1.0"], done.stderr
    login = base64.b64encode(f"reader:{LOGIN}".encode()).decode()
    assert set(mlflow_server.logins[-3:]) == {f"Basic {login}"}
    client = runs.client()
    version = client.get_model_version_by_alias("digits", "champion").version
    client.set_model_version_tag("digits", version, registry.SHA256, "0" * 64)
    done = there(consumer, "-c", example, cwd=tmp_path)
    assert done.returncode == 1
    assert "0" * 64 in done.stderr


def test_predict_and_similar_work_there(consumer: Path, digits: str, tmp_path: Path) -> None:
    (tmp_path / "day.png").write_bytes(png(250))
    command = str(consumer.with_name("nightshift"))
    done = there(consumer, command, "predict", "models:/digits@champion", "day.png", "--json", cwd=tmp_path)
    assert json.loads(done.stdout)["label"] == "bright", done.stderr
    assert digits in done.stderr
    missing = there(consumer, "-c", "import torch", cwd=tmp_path)
    assert "No module named 'torch'" in missing.stderr
