"""The index of a data set: one row per image with everything about it but its pixels, as a Parquet table.

Each part of a batch has one beside its shards, in the order of the shards' rows. Duplicates,
drift and the data card are found from the indexes alone, without reading a pixel again.
"""

import io
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Executor
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from nightshift import storage
from nightshift.records import Artifact, PartResult
from nightshift.storage import outputs

THUMBNAIL: Final = 16  # side in pixels
SCHEMA: Final = pa.schema(
    [
        ("key", pa.string()),  # <batch>/<path in the batch>
        ("id", pa.binary(32)),  # SHA-256 of the file
        ("label", pa.string()),
        ("split", pa.string()),
        ("group", pa.string()),  # empty: the image is a group of its own
        ("shard", pa.int32()),  # position among the part's shards
        ("row", pa.int32()),  # row in that shard
        ("format", pa.string()),  # of the file: JPEG, PNG, …
        ("width", pa.int32()),  # of the file's image, upright, in pixels
        ("height", pa.int32()),
        ("bytes", pa.int64()),  # of the file
        ("brightness", pa.float32()),  # mean luma of the stored pixels, 0 to 1
        ("contrast", pa.float32()),  # standard deviation of the luma, 0 to 0.5
        ("sharpness", pa.float32()),  # variance of the luma's Laplacian
        ("phash", pa.uint64()),  # perceptual hash
        ("thumbnail", pa.binary(THUMBNAIL**2)),  # luma, uint8, row by row
        ("extra", pa.string()),  # further columns of the manifest as a JSON object; empty when there are none
    ]
)
WITHOUT_THUMBNAILS: Final = [name for name in SCHEMA.names if name != "thumbnail"]


def write(folder: str, rows: Iterable[Mapping[str, Any]]) -> Artifact:
    """Store rows; equal rows give equal bytes."""
    buffer = io.BytesIO()
    table = pa.Table.from_pylist(list(rows), schema=SCHEMA)
    pq.write_table(table, buffer, compression="zstd", use_dictionary=["label", "split", "format", "extra"])
    return outputs.write(folder, "index.parquet", buffer.getvalue())


def read(artifact: Artifact, columns: list[str] | None = None) -> pa.Table:
    """The rows of one part, checked against the artifact's digest."""
    return pq.read_table(io.BytesIO(storage.read_artifact(artifact)), columns=columns)


class Index(NamedTuple):
    """The indexes of all parts as one table, in the order of the parts.

    `rows` lacks the thumbnails, which are the larger half; `shards` int32 [N] counts shards over all parts.
    """

    rows: pa.Table
    shards: NDArray[np.int32]
    starts: NDArray[np.int64]  # [P + 1], the first row of each part
    files: tuple[Artifact, ...]

    @classmethod
    def of(cls, pool: Executor, results: Sequence[PartResult]) -> "Index":
        files = tuple(result.index for result in results)
        tables = list(pool.map(lambda file: read(file, WITHOUT_THUMBNAILS), files))
        lengths = [table.num_rows for table in tables]
        first = np.cumsum([0, *(len(result.shards) for result in results)])[:-1]
        rows = pa.concat_tables(tables) if tables else SCHEMA.empty_table().select(WITHOUT_THUMBNAILS)
        shards = rows["shard"].to_numpy() + np.repeat(first, lengths).astype(np.int32)
        return cls(rows, shards, np.cumsum([0, *lengths]), files)

    def thumbnails(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Thumbnails of some rows, uint8 [n, THUMBNAIL**2]; only the parts that hold them are read."""
        result = np.empty((len(rows), THUMBNAIL**2), np.uint8)
        part = np.searchsorted(self.starts, rows, side="right") - 1
        for number in np.unique(part):
            column = read(self.files[number], ["thumbnail"])["thumbnail"]
            wanted = column.take(pa.array(rows[part == number] - self.starts[number])).to_pylist()
            result[part == number] = np.frombuffer(b"".join(wanted), np.uint8).reshape(len(wanted), -1)
        return result

    def places(self, marked: NDArray[np.bool_]) -> dict[int, tuple[int, ...]]:
        """Rows in their shards of the marked rows, bool [N]: shard number -> sorted rows."""
        found: dict[int, list[int]] = {}
        rows = self.rows["row"].to_numpy()
        for at in np.flatnonzero(marked):
            found.setdefault(int(self.shards[at]), []).append(int(rows[at]))
        return {number: tuple(sorted(places)) for number, places in found.items()}
