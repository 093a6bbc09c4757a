"""`nightshift similar`: which images look like this one to a model."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from nightshift.inference.similarity import Embeddings

app = typer.Typer()


@app.command()
def similar(
    image: Annotated[Path, typer.Argument(help="An image file.")],
    embeddings: Annotated[
        Path, typer.Option("--in", help="What nightshift predict --embeddings wrote of the images.")
    ],
    top: Annotated[int, typer.Option(min=1, help="Show so many of the nearest.")] = 10,
    sheet: Annotated[Path | None, typer.Option(help="Write a contact sheet (PNG) of them.")] = None,
    model: Annotated[
        str | None, typer.Option(help="Where the model is now, when it is not where the embeddings say.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON line per image.")] = False,
) -> None:
    """Find the images that a model sees as nearest to one, by the cosine of their embeddings."""
    from nightshift.inference import similarity

    found = similarity.load(embeddings)
    nearest = found.neighbours.nearest(_embedding(image, found, model), top)
    if as_json:
        for near in nearest:
            print(json.dumps(near._asdict()))
    else:
        from rich.table import Table

        from nightshift.cli.console import console

        table = Table("file", "label")
        table.add_column("similarity", justify="right")
        for near in nearest:
            table.add_row(near.key, near.label, f"{near.similarity:.4f}")
        console().print(table)
    if sheet is not None:
        from nightshift.cli.connection import connect_for
        from nightshift.data.contact_sheet import Picture, contact_sheet

        for near in nearest:
            connect_for(near.key)
        shown = [Picture(_address(str(image)), "the image")]
        shown += [Picture(_address(near.key), f"{near.label} {near.similarity:.3f}") for near in nearest]
        picture, seen = contact_sheet(shown)
        sheet.write_bytes(picture)
        print(f"{seen:,} of {len(shown):,} images can be seen in {sheet}", file=sys.stderr)


def _address(file: str) -> str:
    return file if "://" in file else f"file://{Path(file).absolute()}"


def _embedding(image: Path, found: "Embeddings", model: str | None) -> "NDArray[np.float32]":
    """The image's embedding by the very model that made the others."""
    from nightshift.cli.predict import load_model
    from nightshift.data.formats import UnreadableError
    from nightshift.data.images import prepare
    from nightshift.errors import InputError
    from nightshift.inference.embeddings import Embedder

    loaded = load_model(model or found.model)
    if loaded.sha256 != found.sha256:
        raise InputError(
            f"model {loaded.uri} has SHA-256 {loaded.sha256}, the embeddings were made by {found.sha256}; "
            "name that model with --model, or make them again"
        )
    try:
        pixels = prepare(image.read_bytes(), loaded.preprocess)
    except UnreadableError as error:
        raise InputError(f"{image} cannot be used: {error.reason}: {error.detail}") from error
    except OSError as error:
        raise InputError(f"{image} cannot be read ({error.strerror}); give an image file") from error
    embedder = Embedder(loaded.data, loaded.uri, loaded.runtime)
    embedding: NDArray[np.float32] = embedder.embed(pixels[None])[2][0]
    return embedding
