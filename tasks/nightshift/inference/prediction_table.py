"""Predictions as a Parquet table: one row per image, its metadata names the classes and the model.

Names in the metadata: `nightshift.classes`, a JSON list in the order of the probabilities, and
`nightshift.models.build`, the address and the SHA-256 of the model with a space between.
"""

import io
import json
import os
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from nightshift.errors import InputError
from nightshift.inference.model_file import ModelFile

CLASSES: Final = "nightshift.classes"
MODEL: Final = "nightshift.models.build"
EMBEDDING: Final = "embedding"


def schema(model: ModelFile, features: int = 0) -> pa.Schema:
    """Columns of a table; with `features`, each image also has an embedding of so many numbers."""
    embedding = [(EMBEDDING, pa.list_(pa.float32(), features))] if features else []
    return pa.schema(
        [
            ("key", pa.string()),  # <batch>/<path in the batch>, or where the file is
            ("sha256", pa.string()),  # of the file
            ("label", pa.dictionary(pa.int32(), pa.string())),
            ("confidence", pa.float32()),  # probability of the label
            ("probabilities", pa.list_(pa.float32(), len(model.classes))),  # of all classes
            ("model_version", pa.string()),
            ("model_sha256", pa.string()),
            ("runtime", pa.string()),
            ("predicted_at", pa.timestamp("ms", "UTC")),
            *embedding,
        ],
        metadata={
            CLASSES: json.dumps(list(model.classes), ensure_ascii=False),
            MODEL: f"{model.exact} {model.sha256}",
        },
    )


def table(
    model: ModelFile,
    runtime: str,
    files: Sequence[tuple[str, str]],
    probabilities: NDArray[np.float32],
    labels: NDArray[np.int64],
    embeddings: NDArray[np.float32] | None = None,
) -> pa.Table:
    """Predictions of [N] files (key, SHA-256): probabilities float32 [N,K], labels int64 [N], embeddings
    float32 [N,D]; the time is now."""
    columns = schema(model, 0 if embeddings is None else embeddings.shape[1])
    count, at = len(files), datetime.now(UTC)
    rows = [
        pa.array([key for key, _ in files], pa.string()),
        pa.array([digest for _, digest in files], pa.string()),
        pa.DictionaryArray.from_arrays(labels.astype(np.int32), pa.array(model.classes, pa.string())),
        pa.array(confidences(probabilities, labels)),
        _lists(probabilities),
        pa.array([model.version] * count, pa.string()),
        pa.array([model.sha256] * count, pa.string()),
        pa.array([runtime] * count, pa.string()),
        pa.array([at] * count, columns.field("predicted_at").type),
    ]
    return pa.table(rows if embeddings is None else [*rows, _lists(embeddings)], schema=columns)


def confidences(probabilities: NDArray[np.float32], labels: NDArray[np.int64]) -> NDArray[np.float32]:
    """The probability of each label, float32 [N]."""
    return np.take_along_axis(probabilities, labels[:, None], axis=1)[:, 0].astype(np.float32)


def encoded(rows: pa.Table) -> bytes:
    """The table as the bytes of a Parquet file."""
    buffer = io.BytesIO()
    pq.write_table(rows, buffer, compression="zstd")
    return buffer.getvalue()


def _lists(values: NDArray[np.float32]) -> pa.FixedSizeListArray:
    flat = pa.array(np.ascontiguousarray(values, np.float32).ravel(), pa.float32())
    return pa.FixedSizeListArray.from_arrays(flat, values.shape[1])


class Growing:
    """A Parquet file on the disk that takes tables one after the other, and is there only when it is whole.

    Use it in a `with`, and end with `finish`; left without, nothing of it stays. Raises InputError when it
    cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows = 0
        self._writer: pq.ParquetWriter | None = None

    def __enter__(self) -> Self:
        try:
            self._file = tempfile.NamedTemporaryFile(dir=self.path.parent, prefix=".partial-", delete=False)
        except OSError as error:
            raise self._failure(error) from error
        return self

    def add(self, rows: pa.Table) -> None:
        """Rows of the same columns as those before."""
        try:
            if self._writer is None:
                self._writer = pq.ParquetWriter(self._file, rows.schema, compression="zstd")
            self._writer.write_table(rows)
        except OSError as error:
            raise self._failure(error) from error
        self.rows += rows.num_rows

    def finish(self, empty: pa.Schema) -> None:
        """Make the file whole; without any rows it has the columns of `empty`."""
        try:
            if self._writer is None:
                self._writer = pq.ParquetWriter(self._file, empty)
            self._writer.close()
            self._file.close()
            os.chmod(self._file.name, 0o666 & ~_umask())
            os.replace(self._file.name, self.path)
        except OSError as error:
            raise self._failure(error) from error

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        Path(self._file.name).unlink(missing_ok=True)

    def _failure(self, error: OSError) -> InputError:
        reason = error.strerror or str(error)
        return InputError(
            f"{self.path} cannot be written ({reason}); make room on its disk or choose another"
        )


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
