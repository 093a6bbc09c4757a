"""Verbs about models: `nightshift predict`."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

if TYPE_CHECKING:
    from tasks.config import PreprocessSettings
    from tasks.runtime import Session

app = typer.Typer()

BATCH = 64  # images per call of the model


class Prediction(NamedTuple):
    """What became of one file: a label with its probability, or the reason why there is none."""

    file: str
    label: str | None
    probability: float | None
    reason: str | None = None
    detail: str | None = None


@app.command()
def predict(
    model: Annotated[
        str,
        typer.Argument(help="models:/digits@champion, models:/digits/3, s3://…, file://… or an .onnx file."),
    ],
    paths: Annotated[list[Path], typer.Argument(help="Image files, or folders of them.")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON line per image.")] = False,
) -> None:
    """Classify images with a registered model or an ONNX file.

    Images that cannot be read are named with the reason, the others are predicted; then the exit code is 1.
    """
    files = list(_files(paths))
    data, origin = _fetch(model)
    print(f"{model}: {origin}", file=sys.stderr)
    predictions = _predict(data, files, model)
    failed = _print_json(predictions) if as_json else _print_table(predictions)
    if failed:
        print(f"nightshift: {failed} of {len(files)} images could not be read", file=sys.stderr)
        raise typer.Exit(1)


def _files(paths: list[Path]) -> Iterator[Path]:
    """The files themselves, and every visible file below the folders, sorted."""
    from tasks.errors import InputError

    for path in paths:
        if path.is_dir():
            inside = (p.relative_to(path) for p in path.rglob("*") if p.is_file())
            found = sorted(p for p in inside if not any(part.startswith(".") for part in p.parts))
            if not found:
                raise InputError(f"folder {path} holds no files; give a folder with images")
            yield from (path / file for file in found)
        elif path.exists():
            yield path
        else:
            raise InputError(f"{path} does not exist; give image files or folders of them")


def _fetch(model: str) -> tuple[bytes, str]:
    """The ONNX file's bytes and what identifies it; a registered model is checked against its digest tag."""
    import hashlib

    from tasks.cli.connection import connect

    if model.startswith("models:/"):
        connect("tracking")
        from tasks.registry import fetch_model

        data, tags = fetch_model(model)
        version = tags.get("version")
        return data, f"version {version}, SHA-256 {hashlib.sha256(data).hexdigest()}, checked"
    if model.startswith(("s3://", "file://")):
        if model.startswith("s3://"):
            connect()
        from tasks.storage import read

        data = read(model)
    else:
        data = _read_file(model)
    return data, f"SHA-256 {hashlib.sha256(data).hexdigest()}"


def _read_file(model: str) -> bytes:
    from tasks.errors import InputError

    try:
        return Path(model).expanduser().read_bytes()
    except OSError as error:
        raise InputError(
            f"model {model!r} cannot be read ({error.strerror}); give models:/NAME@champion, "
            "models:/NAME/VERSION, an s3:// or file:// address, or the path of an .onnx file"
        ) from error


def _predict(data: bytes, files: list[Path], model: str) -> Iterator[Prediction]:
    """Predictions in the order of the files, decoded and resized as the model's training images were."""
    from tasks.runtime import Session

    session = Session(data)
    classes, settings = _facts(_metadata(data), model)
    for start in range(0, len(files), BATCH):
        yield from _predict_batch(session, classes, settings, files[start : start + BATCH])


def _predict_batch(
    session: "Session", classes: list[str], settings: "PreprocessSettings", files: list[Path]
) -> Iterator[Prediction]:
    import numpy as np

    from tasks.images import Unreadable, prepare

    pixels, refused = [], {}
    for file in files:
        try:
            pixels.append(prepare(file.read_bytes(), settings))
        except Unreadable as error:
            refused[file] = Prediction(str(file), None, None, error.reason, error.detail)
        except OSError as error:
            refused[file] = Prediction(str(file), None, None, "unreadable-file", str(error.strerror))
    probabilities, labels = (
        session.predict(np.stack(pixels)) if pixels else (np.empty((0, 0)), np.empty(0, int))
    )
    results = zip(labels, probabilities, strict=True)
    for file in files:
        if file in refused:
            yield refused[file]
        else:
            label, row = next(results)
            yield Prediction(str(file), classes[int(label)], float(row[int(label)]))


def _metadata(data: bytes) -> dict[str, str]:
    """What the ONNX file says of itself; its graph is loaded as it is, since it is not run."""
    from onnxruntime import GraphOptimizationLevel, InferenceSession, SessionOptions

    options = SessionOptions()
    options.graph_optimization_level = GraphOptimizationLevel.ORT_DISABLE_ALL
    loaded = InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return dict(loaded.get_modelmeta().custom_metadata_map)


def _facts(facts: dict[str, str], model: str) -> tuple[list[str], "PreprocessSettings"]:
    """Class names and preprocessing from the ONNX file's own metadata."""
    from pydantic import ValidationError

    from tasks.config import PreprocessSettings
    from tasks.errors import InputError

    try:
        classes = [str(name) for name in json.loads(facts["nightshift.classes"])]
        return classes, PreprocessSettings.model_validate_json(facts["nightshift.preprocess"])
    except (KeyError, ValueError, ValidationError) as error:
        raise InputError(
            f"model {model} does not say its classes and preprocessing in its metadata "
            f"({type(error).__name__}: {error}); give a model that Nightshift made"
        ) from error


def _print_json(predictions: Iterator[Prediction]) -> int:
    failed = 0
    for prediction in predictions:
        print(json.dumps({key: value for key, value in prediction._asdict().items() if value is not None}))
        failed += prediction.label is None
    return failed


def _print_table(predictions: Iterator[Prediction]) -> int:
    from rich.table import Table

    from tasks.cli.tables import console

    table = Table("file", "label")
    table.add_column("probability", justify="right")
    failed = 0
    for file, label, probability, reason, detail in predictions:
        if label is None or probability is None:
            failed += 1
            table.add_row(file, f"{reason}: {detail}", "")
        else:
            table.add_row(file, label, f"{probability:.4f}")
    console().print(table)
    return failed
