"""Nightshift: nightly retraining for image classifiers. One stage, one file, one verb.

import nightshift
model = nightshift.load("models:/digits@champion")
print(model.predict(["digit.png"]))
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nightshift.inference.model import Model

__version__ = "0.1.0"
__all__ = ["__version__", "load"]


def load(uri: str) -> "Model":
    """Load a model for predictions, checked against its digest and, with public keys, its signature.

    `uri` is models:/NAME@champion, models:/NAME/VERSION, an s3:// or file:// address or the path of an .onnx
    file. MLflow and the store are those of the environment (MLFLOW_TRACKING_URI, AWS_…), else those of the
    embedded stack. Needs the extra `predict`. Raises nightshift.errors.InputError.
    """
    from nightshift.cli.connection import connect_for
    from nightshift.inference.model import Model, model_file

    connect_for(uri)
    return Model(model_file.load(uri))
