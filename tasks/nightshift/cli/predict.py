"""`nightshift predict`: images from anywhere, answers as a table, as JSON lines or as Parquet."""

import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from nightshift.data.sources.batch import Item
    from nightshift.inference.file_predictor import Answer, Answerer
    from nightshift.inference.model_file import ModelFile

app = typer.Typer()
Model = Annotated[
    str, typer.Argument(help="models:/digits@champion, models:/digits/3, s3://…, file://… or an .onnx file.")
]


@app.command()
def predict(
    model: Model,
    paths: Annotated[
        list[str], typer.Argument(help="Image files, folders, zip or tar archives, or s3://bucket/prefix.")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON line per image.")] = False,
    top: Annotated[int, typer.Option(min=1, help="Show so many of the likeliest classes.")] = 1,
    parquet: Annotated[
        Path | None, typer.Option(help="Write the predictions, with all probabilities, to this file.")
    ] = None,
    embeddings: Annotated[
        Path | None,
        typer.Option(help="Write predictions and embeddings to this Parquet file; see nightshift similar."),
    ] = None,
) -> None:
    """Classify images with a registered model or an ONNX file.

    Images that cannot be read are named with the reason, the others are predicted; then the exit code is 1.
    """
    from nightshift.errors import InputError
    from nightshift.hardware.processor import threads
    from nightshift.inference.file_predictor import Answerer

    if parquet and embeddings:
        raise InputError("give --parquet or --embeddings: the embeddings' file has the predictions too")
    with ExitStack() as opened:
        items = _items(paths, opened)
        found = load_model(model)
        print(f"{model}: {found.origin}", file=sys.stderr)
        answerer = Answerer(found, images=len(items), embed=bool(embeddings), processes=threads())
        answers = _answers(answerer, items, parquet or embeddings)
        show = _lines if as_json else _counts if parquet or embeddings else _table
        failed = show(answers, found.classes, top)
    if failed:
        print(f"nightshift: {failed} of {len(items)} images could not be read", file=sys.stderr)
        raise typer.Exit(1)


def load_model(model: str) -> "ModelFile":
    """The model at an address, from the services of the environment or else of the stack."""
    from nightshift.cli.connection import connect_for
    from nightshift.inference import model_file

    connect_for(model)
    return model_file.load(model)


def _items(paths: Sequence[str], opened: ExitStack) -> "list[Item]":
    """All files of all paths; they are called by the path that was given and the path in it."""
    from nightshift.cli.connection import connect_for
    from nightshift.data.sources.batch import Item
    from nightshift.data.sources.unlabelled import files_of

    items = []
    for path in paths:
        connect_for(path)
        tree = files_of(path, opened)
        alone = len(tree.files) == 1 and path.rstrip("/").endswith(f"/{next(iter(tree.files))}")
        for key, content in tree.files.items():
            items.append(Item(path if alone or path == key else f"{path.rstrip('/')}/{key}", "", content))
    return items


def _answers(answerer: "Answerer", items: "Sequence[Item]", to: Path | None) -> "Iterator[Answer]":
    """The answers as they come, with a bar on a terminal; their tables go to a file, whole or not at all."""
    from nightshift.cli.console import bar
    from nightshift.inference.prediction_table import Growing, schema

    with ExitStack() as opened:
        file = opened.enter_context(Growing(to)) if to else None
        progress = opened.enter_context(bar())
        task = progress.add_task("images", total=len(items))
        for answered in answerer.answers(items):
            progress.advance(task, len(answered.answers))
            if file and answered.rows is not None:
                file.add(answered.rows)
            yield from answered.answers
        if file:
            file.finish(schema(answerer.model))
            print(f"{to}: {file.rows:,} images", file=sys.stderr)


def _likeliest(answer: "Answer", classes: Sequence[str], top: int) -> list[tuple[str, float]]:
    """The likeliest classes with their probabilities, the label first."""
    if answer.probabilities is None:
        return []
    shares = answer.probabilities
    order = sorted(range(len(classes)), key=lambda place: (place != answer.label, -shares[place]))
    return [(classes[place], float(shares[place])) for place in order[:top]]


def _lines(answers: "Iterator[Answer]", classes: Sequence[str], top: int) -> int:
    failed = 0
    for answer in answers:
        line: dict[str, Any] = {"file": answer.key}
        if answer.why is not None:
            failed += 1
            line |= {"reason": answer.why.reason, "detail": answer.why.detail}
        else:
            likeliest = _likeliest(answer, classes, top)
            line |= dict(zip(("label", "probability"), likeliest[0], strict=True))
            if top > 1:
                line["top"] = [{"label": label, "probability": share} for label, share in likeliest]
        print(json.dumps(line))
    return failed


def _table(answers: "Iterator[Answer]", classes: Sequence[str], top: int) -> int:
    from rich.table import Table

    from nightshift.cli.console import console

    table = Table("file", "label")
    table.add_column("probability", justify="right")
    if top > 1:
        table.add_column("or")
    failed = 0
    for answer in answers:
        if answer.why is not None:
            failed += 1
            table.add_row(answer.key, f"{answer.why.reason}: {answer.why.detail}", "")
        else:
            (label, share), *others = _likeliest(answer, classes, top)
            rest = [", ".join(f"{name} {part:.4f}" for name, part in others)] if top > 1 else []
            table.add_row(answer.key, label, f"{share:.4f}", *rest)
    console().print(table)
    return failed


def _counts(answers: "Iterator[Answer]", classes: Sequence[str], top: int) -> int:
    """What is in the file, in numbers, and what could not be read."""
    from rich.table import Table

    from nightshift.cli.console import console

    found: Counter[str] = Counter()
    failed = 0
    for answer in answers:
        if answer.why is not None:
            failed += 1
            print(f"{answer.key}: {answer.why.reason}: {answer.why.detail}", file=sys.stderr)
        else:
            found[classes[answer.label]] += 1
    table = Table("label")
    table.add_column("images", justify="right")
    for name, count in found.most_common():
        table.add_row(name, f"{count:,}")
    console().print(table)
    return failed
