"""Verbs about models: `nightshift predict`."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

if TYPE_CHECKING:
    from tasks.config import PreprocessSettings
    from tasks.model_file import ModelFile
    from tasks.runtime import Pixels

app = typer.Typer()


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
    found = _load(model)
    print(f"{model}: {found.origin}", file=sys.stderr)
    predictions = _predict(found, files)
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


def _load(model: str) -> "ModelFile":
    from tasks import model_file
    from tasks.cli.connection import connect_for

    connect_for(model)
    return model_file.load(model)


def _predict(model: "ModelFile", files: list[Path]) -> Iterator[Prediction]:
    """Predictions in the order of the files, decoded and resized as the model's training images were."""
    import numpy as np

    from tasks.classifier import BATCH, Classifier

    classifier = Classifier(model, images=len(files))
    for start in range(0, len(files), BATCH):
        batch = files[start : start + BATCH]
        pixels, refused = _prepare(batch, model.preprocess)
        labelled = zip(*classifier.predict(np.stack(pixels)), strict=True) if pixels else iter(())
        for file in batch:
            if file in refused:
                yield refused[file]
            else:
                row, label = next(labelled)
                yield Prediction(str(file), model.classes[int(label)], float(row[int(label)]))


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
