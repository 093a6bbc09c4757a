"""A pickled model runs code when it is loaded: neither MLflow as it is set here nor Nightshift does."""

import os
import pickle
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow.exceptions import MlflowException
from mlflow_server import Door
from predicting import png
from typer.testing import CliRunner

from nightshift.cli import app
from nightshift.errors import InputError
from nightshift.inference import model_file
from nightshift.stack import environment, private_files
from nightshift.stack.environment import Site
from nightshift.stack.private_files import Ports
from nightshift.tracking import registry, runs

ALLOW = "MLFLOW_ALLOW_PICKLE_DESERIALIZATION"


class Evil(mlflow.pyfunc.PythonModel):
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.folder),)

    def predict(self, context: object, model_input: list[str]) -> list[str]:
        return model_input


@pytest.fixture
def trap(tmp_path: Path) -> Path:
    """The folder that is there once a pickle was loaded."""
    return tmp_path / "evil"


@pytest.fixture
def pickled(mlflow_server: Door, trap: Path, tmp_path: Path) -> str:
    """Version 1 of a model that somebody registered who may write to MLflow: a pickle."""
    run = runs.open_run("trapped", tmp_path.name, params={})
    with mlflow.start_run(run_id=run):
        info = mlflow.pyfunc.log_model(name="model", python_model=Evil(trap), pip_requirements=["mlflow"])
    name = f"trapped-{tmp_path.name}"
    runs.client().create_registered_model(name)
    made = runs.client().create_model_version(name, info.model_uri, run, model_id=info.model_id)
    assert not trap.exists()
    return f"models:/{name}/{made.version}"


def test_the_stack_and_every_client_of_it_forbid_pickles(tmp_path: Path) -> None:
    site = Site(tmp_path, Ports(), private_files.ensure_secrets(tmp_path), tmp_path, cores=1)
    assert environment.client_variables(site)[ALLOW] == "false"


def test_mlflow_refuses_a_pickled_model_as_it_is_set_here(
    pickled: str, trap: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(ALLOW, raising=False)
    runs.client()  # also in a shell that has not set the variable
    assert os.environ[ALLOW] == "false"
    with pytest.raises(MlflowException, match="Deserializing model using pickle is disallowed"):
        mlflow.pyfunc.load_model(pickled)
    assert not trap.exists()
    monkeypatch.setenv(ALLOW, "true")
    with pytest.raises(Exception):  # noqa: B017, PT011 - the trap is no model
        mlflow.pyfunc.load_model(pickled)
    assert trap.exists()  # so it was a trap


@pytest.mark.parametrize("allowed", ["true", "false"])
def test_nightshift_refuses_it_whatever_the_shell_allows(
    pickled: str, trap: Path, allowed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ALLOW, allowed)
    with pytest.raises(InputError, match=r"models:/trapped-.*/1 was not registered by Nightshift"):
        registry.fetch_model(pickled)
    name = pickled.split("/")[1]
    registry.set_version_tag(name, "1", registry.SHA256, "0" * 64)
    with pytest.raises(InputError, match=r"holds no model.onnx but .*python_model.pkl"):
        registry.fetch_model(pickled)
    (trap.parent / "day.png").write_bytes(png(250))
    done = CliRunner().invoke(app, ["predict", pickled, str(trap.parent / "day.png")])
    assert done.exit_code == 2
    assert "holds no model.onnx" in done.stderr
    with pytest.raises(InputError, match="does not record the checkpoint"):
        registry.checkpoint_of(pickled)
    assert not trap.exists()


def test_a_pickle_that_is_called_an_onnx_file_is_no_model(trap: Path, tmp_path: Path) -> None:
    data = pickle.dumps(Evil(trap))
    (tmp_path / "model.onnx").write_bytes(data)
    with pytest.raises(InputError, match="cannot be loaded by onnxruntime"):
        model_file.load(str(tmp_path / "model.onnx"))
    assert not trap.exists()


def test_no_setting_names_a_file_that_could_be_a_pickle() -> None:
    from pydantic import ValidationError

    from nightshift.config import TrainSettings

    wrong: dict[str, Any] = {"weights": "s3://nightshift/checkpoints/model.pt"}
    with pytest.raises(ValidationError, match=r"checkpoint\.json|safetensors"):
        TrainSettings.model_validate(wrong)
