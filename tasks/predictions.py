"""Predictions of a batch as files: `predictions/<pipeline>/<version>/<batch>/<part>.parquet`.

    _parts/<digest>.json   what a part came to, written after its file
    _to_label.csv          images of which the model is not sure, as a manifest for a person to correct
    _SUCCESS               written last: the batch is done, and these are its files

Readers of a folder of Parquet files pass over names that begin with an underscore.
"""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tasks import storage
from tasks.config import store_root
from tasks.duplicates import harmless
from tasks.records import BatchPredictions, Unsure

DONE: Final = "_SUCCESS"
PARTS: Final = "_parts"
TO_LABEL: Final = "_to_label.csv"
CLASSES: Final = "nightshift.classes"  # in a file's metadata, JSON
BINS: Final = 20  # of the histogram of confidences


def schema(classes: Sequence[str]) -> pa.Schema:
    """Columns of a table of predictions; the order of the probabilities is that of `classes`."""
    return pa.schema(
        [
            ("key", pa.string()),  # <batch>/<path in the batch>, or the file's own path
            ("sha256", pa.string()),  # of the file
            ("label", pa.dictionary(pa.int32(), pa.string())),
            ("confidence", pa.float32()),  # probability of the label
            ("probabilities", pa.list_(pa.float32(), len(classes))),  # of all classes
            ("model_version", pa.string()),
            ("model_sha256", pa.string()),
            ("runtime", pa.string()),
            ("predicted_at", pa.timestamp("ms", "UTC")),
        ],
        metadata={CLASSES: json.dumps(list(classes), ensure_ascii=False)},
    )


def table(
    classes: Sequence[str],
    keys: Sequence[str],
    digests: Sequence[str],
    probabilities: NDArray[np.float32],
    labels: NDArray[np.int64],
    facts: Mapping[str, Any],
) -> pa.Table:
    """Predictions [N] with probabilities float32 [N,K] and labels int64 [N].

    `facts` are the columns that are the same for all: model_version, model_sha256, runtime, predicted_at.
    """
    columns = schema(classes)
    flat = pa.array(np.ascontiguousarray(probabilities, np.float32).ravel(), pa.float32())
    same = [pa.array([facts[field.name]] * len(keys), field.type) for field in columns if field.name in facts]
    return pa.table(
        [
            pa.array(keys, pa.string()),
            pa.array(digests, pa.string()),
            pa.DictionaryArray.from_arrays(labels.astype(np.int32), pa.array(classes, pa.string())),
            pa.array(confidences(probabilities, labels)),
            pa.FixedSizeListArray.from_arrays(flat, len(classes)),
            *same,
        ],
        schema=columns,
    )


def confidences(probabilities: NDArray[np.float32], labels: NDArray[np.int64]) -> NDArray[np.float32]:
    """The probability of each label, float32 [N]."""
    return np.take_along_axis(probabilities, labels[:, None], axis=1)[:, 0].astype(np.float32)


def encoded(rows: pa.Table) -> bytes:
    """The table as a Parquet file."""
    buffer = io.BytesIO()
    pq.write_table(rows, buffer, compression="zstd")
    return buffer.getvalue()


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


def to_label(unsure: Sequence[Unsure]) -> bytes:
    """A manifest, `path,label,confidence`, of images of one batch; safe to open in a spreadsheet."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("path", "label", "confidence"))
    for key, label, confidence in ((row.key, row.label, row.confidence) for row in unsure):
        writer.writerow((harmless(key.partition("/")[2]), harmless(label), f"{confidence:.4f}"))
    return text.getvalue().encode()
