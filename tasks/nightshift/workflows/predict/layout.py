"""Predictions of a batch as files: `predictions/<pipeline>/<version>/<batch>/<part>.parquet`.

    _parts/<digest>.json   what a part came to, written after its file
    _to_label.csv          images of which the model is not sure, as a manifest for a person to correct
    _SUCCESS               written last: the batch is done, and these are its files

Readers of a folder of Parquet files pass over names that begin with an underscore.
"""

import csv
import io
from collections.abc import Sequence
from typing import Final

from nightshift import storage
from nightshift.config import store_root
from nightshift.records import BatchPredictions, LowConfidence
from nightshift.security.escaping import escape_cell

DONE: Final = "_SUCCESS"
PARTS: Final = "_parts"
TO_LABEL: Final = "_to_label.csv"
BINS: Final = 20  # of the histogram of confidences


def folder(pipeline: str, version: str, batch: str) -> str:
    return storage.join(store_root(), "predictions", pipeline, version, batch)


def marker(place: str, part: str) -> str:
    """Where a part's record is, in the folder of its batch."""
    return storage.join(place, PARTS, f"{part}.json")


def done(place: str) -> BatchPredictions | None:
    """What a folder's batch came to, or None when it is not done."""
    try:
        return storage.read_record(storage.join(place, DONE), BatchPredictions)
    except storage.MissingError:
        return None


def to_label(unsure: Sequence[LowConfidence]) -> bytes:
    """A manifest, `path,label,confidence`, of images of one batch; safe to open in a spreadsheet."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("path", "label", "confidence"))
    for key, label, confidence in ((row.key, row.label, row.confidence) for row in unsure):
        writer.writerow((escape_cell(key.partition("/")[2]), escape_cell(label), f"{confidence:.4f}"))
    return text.getvalue().encode()
