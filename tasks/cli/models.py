"""Verbs about models: `nightshift predict`."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

if TYPE_CHECKING:
    from tasks.config import PreprocessSettings
    from tasks.runtime import Pixels, Session

app = typer.Typer()

BATCH = 64  # images per call of the model
LOOK = 16  # of them are timed in each runtime
MANY = 512  # files from which looking for the fastest runtime repays itself


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
    from tasks.errors import InputError
    from tasks.sealing import MAGIC

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
    if data.startswith(MAGIC):
        raise InputError(f"model {model!r} is sealed; open it first by nightshift unseal {model} FILE.onnx")
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
    import numpy as np

    from tasks.runtime import Session

    session = Session(data)
    classes, settings = _facts(_metadata(data), model)
    choose = len(files) >= MANY
    for start in range(0, len(files), BATCH):
        batch = files[start : start + BATCH]
        pixels, refused = _prepare(batch, settings)
        if pixels and choose:
            session, choose = _fastest(data, np.stack(pixels)), False
        labelled = zip(*session.predict(np.stack(pixels)), strict=True) if pixels else iter(())
        for file in batch:
            if file in refused:
                yield refused[file]
            else:
                row, label = next(labelled)
                yield Prediction(str(file), classes[int(label)], float(row[int(label)]))


def _prepare(
    files: list[Path], settings: "PreprocessSettings"
) -> "tuple[list[Pixels], dict[Path, Prediction]]":
    """The pixels of the files that can be read, and what is said of the others."""
    from tasks.images import Unreadable, prepare

    pixels, refused = [], {}
    for file in files:
        try:
            pixels.append(prepare(file.read_bytes(), settings))
        except Unreadable as error:
            refused[file] = Prediction(str(file), None, None, error.reason, error.detail)
        except OSError as error:
            refused[file] = Prediction(str(file), None, None, "unreadable-file", str(error.strerror))
    return pixels, refused


def _fastest(data: bytes, pixels: "Pixels") -> "Session":
    """The runtime for many images, as the first of them tell; said on stderr with how far it agrees."""
    from tasks import runtime

    choice = runtime.fastest(data, pixels, batch=LOOK)
    for sentence in choice.passed_over:
        print(sentence, file=sys.stderr)
    print(
        f"{choice.session.runtime} is the fastest runtime here, with {choice.agreement:.2%} of the first "
        f"{len(pixels)} labels those of onnxruntime",
        file=sys.stderr,
    )
    return choice.session


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
