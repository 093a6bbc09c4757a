"""An ONNX file as MLflow keeps one: the logged model that a registered version points at."""

from pathlib import Path

import mlflow

from nightshift.errors import InputError


def log(run_id: str, model: bytes, classes: int, shape: tuple[int, int, int]) -> str:
    """Log ONNX bytes as a model of a run, and return its id; `shape` is that of one image.

    Raises InputError when what is stored is not what was given.
    """
    import numpy as np
    import onnx
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    signature = ModelSignature(
        inputs=Schema([TensorSpec(np.dtype("uint8"), (-1, *shape), "images")]),
        outputs=Schema(
            [
                TensorSpec(np.dtype("float32"), (-1, classes), "probabilities"),
                TensorSpec(np.dtype("int64"), (-1,), "label"),
            ]
        ),
    )
    # Requirements are given because inferring them loads the model in another process (16 s);
    # external data is off because it would split the file whose digest was evaluated.
    with mlflow.start_run(run_id=run_id):
        info = mlflow.onnx.log_model(
            onnx.load_model_from_string(model),
            name="model",
            signature=signature,
            input_example={"images": np.zeros((1, *shape), np.uint8)},
            pip_requirements=_requirements(),
            onnx_execution_providers=["CPUExecutionProvider"],
            save_as_external_data=False,
        )
    stored = Path(mlflow.artifacts.download_artifacts(info.model_uri)) / "model.onnx"
    if stored.read_bytes() != model:
        raise InputError(
            f"the model stored at {info.model_uri} is not the one that was evaluated; nothing is registered"
        )
    return str(info.model_id)


def _requirements() -> list[str]:
    from importlib.metadata import version

    return [f"{name}=={version(name)}" for name in ("mlflow", "numpy", "onnx", "onnxruntime")]
