"""The data card: what one data set version is made of, as a page and as a picture that need nothing else."""

import base64
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa
from jinja2 import Environment, StrictUndefined
from numpy.typing import NDArray

from nightshift.data import drift
from nightshift.data.duplicates import DuplicateRow
from nightshift.records import SPLITS, Dataset, Drift, Profile
from nightshift.report.data_card_page import PAGE

LISTED: Final = 20  # duplicates shown; the listing has all of them
NAMED: Final = 10  # classes named in a sentence
PERCENTILES: Final = (0, 5, 50, 95, 100)


class Reference(NamedTuple):
    """What an earlier data set looked like, and how far this one has moved from it."""

    drift: Drift
    profile: Profile

    @property
    def name(self) -> str:
        return {"previous": "the last decision's data", "champion": "the champion's data"}[self.drift.against]


class Card(NamedTuple):
    """What the card shows.

    `index` has the rows of nightshift.data.index.SCHEMA, thumbnails not needed, and `drop`, bool [N], marks
    those that are not in the data set. `lines` are its duplicates and `refused` counts files by reason.
    `pixels` gives a few images of each class, uint8 [n,H,W,3] RGB.
    """

    pipeline: str
    dataset: Dataset
    index: pa.Table
    drop: NDArray[np.bool_]
    references: Sequence[Reference]
    refused: Mapping[str, int]
    lines: Sequence[DuplicateRow]
    pixels: Mapping[str, NDArray[np.uint8]]

    @property
    def kept(self) -> pa.Table:
        return self.index.filter(pa.array(~self.drop))


class ClassRow(NamedTuple):
    """Images of one class per split; `shares` are of all images of the split."""

    name: str
    counts: tuple[int, ...]
    total: int
    share: float


def class_rows(dataset: Dataset) -> list[ClassRow]:
    """The classes from the largest to the smallest."""
    whole = max(1, sum(sum(dataset.counts[split].values()) for split in SPLITS))
    rows = []
    for name in dataset.classes:
        counts = tuple(dataset.counts[split].get(name, 0) for split in SPLITS)
        rows.append(ClassRow(name, counts, sum(counts), sum(counts) / whole))
    return sorted(rows, key=lambda row: (-row.total, row.name))


def render(card: Card, figure: bytes) -> bytes:
    """The page as UTF-8, around the picture of the card; names of strangers are escaped."""
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["count"] = lambda number: f"{number:,}"
    environment.filters["percent"] = lambda share: f"{100 * share:.1f} %"
    rows, kept = class_rows(card.dataset), card.kept
    page = environment.from_string(PAGE).render(
        **card._asdict(),
        rows=rows,
        splits=SPLITS,
        totals={split: sum(card.dataset.counts[split].values()) for split in SPLITS},
        imbalance=rows[0].total / max(1, rows[-1].total) if rows else 1.0,
        sizes=_sizes(kept),
        formats=_counted(kept, "format"),
        duplicates=card.dataset.duplicates,
        shown=card.lines[:LISTED],
        drifts=[_drift_row(reference, card.dataset) for reference in card.references],
        words=drift.words,
        small=drift.SMALL,
        large=drift.LARGE,
        picture=base64.b64encode(figure).decode(),
    )
    return page.encode()


class _DriftRow(NamedTuple):
    title: str
    drift: Drift
    images: int
    new: str
    gone: str


def _drift_row(reference: Reference, dataset: Dataset) -> _DriftRow:
    before, now = set(reference.profile.classes), set(dataset.classes)
    whose = "All images" if reference.drift.of == "data" else "New images alone"
    return _DriftRow(
        f"{whose} against {reference.name}",
        reference.drift,
        reference.profile.images,
        _named(sorted(now - before)),
        _named(sorted(before - now)),
    )


def _named(names: list[str]) -> str:
    rest = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {rest} more" if rest > 0 else "")


def _sizes(kept: pa.Table) -> dict[str, list[int]]:
    """Percentiles of the files' images, in pixels, and of the files, in bytes."""
    if not kept.num_rows:
        return {}
    columns = {"width, pixels": "width", "height, pixels": "height", "file, bytes": "bytes"}
    return {
        title: np.percentile(kept[column].to_numpy(), PERCENTILES, method="nearest").astype(int).tolist()
        for title, column in columns.items()
    }


def _counted(kept: pa.Table, column: str) -> list[tuple[str, int]]:
    counts = ((entry["values"], entry["counts"]) for entry in kept[column].value_counts().to_pylist())
    return sorted(
        ((str(name or "unknown"), count) for name, count in counts), key=lambda item: (-item[1], item)
    )
