"""Finds images that look alike: the nearest of many embeddings, by the cosine of the angle between them.

Exact, by one product of a matrix and a vector: 100,000 embeddings of 512 numbers take 5 ms on two cores,
and a library for approximate search repays itself only far beyond.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from nightshift.errors import InputError
from nightshift.inference.prediction_table import EMBEDDING, MODEL


class Near(NamedTuple):
    """One of the nearest: `similarity` is 1 for the same direction, 0 for none in common."""

    key: str
    label: str
    similarity: float


class Neighbours:
    """The embeddings of one file, in memory."""

    def __init__(self, rows: pa.Table) -> None:
        self.keys = rows["key"].to_pylist()
        self.labels = rows["label"].to_pylist()
        flat = rows[EMBEDDING].combine_chunks().flatten().to_numpy()
        vectors = flat.reshape(len(self.keys), -1) if self.keys else np.empty((0, 1), np.float32)
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        self.vectors: NDArray[np.float32] = vectors / np.maximum(lengths, 1e-12)

    def nearest(self, vector: NDArray[np.float32], count: int) -> list[Near]:
        """The nearest to float32 [D], the nearest first."""
        cosines = self.vectors @ (vector / max(float(np.linalg.norm(vector)), 1e-12))
        count = min(count, len(cosines))
        best = np.argpartition(-cosines, count - 1)[:count] if count else np.empty(0, np.int64)
        order = best[np.argsort(-cosines[best], kind="stable")]
        return [Near(self.keys[row], self.labels[row], float(cosines[row])) for row in order]


class Embeddings(NamedTuple):
    """A file of embeddings, and the model that made them."""

    neighbours: Neighbours
    model: str  # address
    sha256: str  # of the model


def load(path: Path) -> Embeddings:
    """Read what `nightshift predict --embeddings` wrote. Raises InputError."""
    try:
        rows = pq.read_table(path, columns=["key", "label", EMBEDDING], memory_map=True)
    except (OSError, KeyError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"{path} cannot be read as embeddings ({reason}); nightshift predict --embeddings writes them"
        ) from error
    about = {key.decode(): value.decode() for key, value in (rows.schema.metadata or {}).items()}
    if MODEL not in about or not rows.num_rows:
        raise InputError(f"{path} holds no embeddings; nightshift predict --embeddings writes them")
    uri, _, sha256 = about[MODEL].rpartition(" ")
    return Embeddings(Neighbours(rows), uri, sha256)
