"""What a data set holds more than once, and the listing of it for people.

Files are equal by their SHA-256; images that only look alike are found by `nightshift.data.near_duplicates`.
"""

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Literal, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nightshift.data.near_duplicates import Pair
from nightshift.data.uploads import Said, newest
from nightshift.security.escaping import escape_cell

Rows = NDArray[np.int64]
Kind = Literal["copy", "conflict", "corrected", "near"]
Row = tuple[dict[str, str], int]  # key, label and split of a row, and its place

PREFERENCE: Final = {"test": 0, "validation": 1, "train": 2}  # which of equal images stays


class Duplicate(NamedTuple):
    """A row to leave out, and the row of the same file because of which it goes."""

    row: int
    other: int
    kind: Kind  # a conflict goes with the other, which has another label; otherwise the other stays


class Exact(NamedTuple):
    """`drop`, bool [N], marks the rows of `copies`, which are those to leave out."""

    drop: NDArray[np.bool_]
    copies: tuple[Duplicate, ...]

    @property
    def merged(self) -> int:
        return self._count("copy")

    @property
    def conflicting(self) -> int:
        return self._count("conflict")

    @property
    def corrected(self) -> int:
        return self._count("corrected")

    def _count(self, kind: Kind) -> int:
        return sum(copy.kind == kind for copy in self.copies)


class DuplicateRow(NamedTuple):
    """A line for people: `key` is left out (or listed) because of `other_key`."""

    kind: Kind
    key: str
    label: str
    split: str
    other_key: str
    other_label: str
    other_split: str
    bits: int | None


def nothing_said(keys: Sequence[str]) -> Mapping[str, Said]:
    """For tables of which nobody knows when their labels were said."""
    return {}


def exact(
    index: pa.Table,
    conflicts: Literal["refuse", "keep"],
    said: Callable[[Sequence[str]], Mapping[str, Said]] = nothing_said,
) -> Exact:
    """Rows of `index` with the same `id`, merged the same way whatever the order of the rows.

    Of copies with one label, one stays: of the test split rather than validation rather than train, so that
    nothing that is tested on is trained on, then the smallest key. Of copies with several labels those of the
    newest upload are right, as `said` tells of keys. Where it does not, they contradict each other: `refuse`
    leaves all of them out, `keep` takes the label of the smallest key, and the rest go.
    """
    groups = _equal(_digests(index))
    members = np.concatenate([np.empty(0, np.int64), *groups])
    facts = iter(index.select(["key", "label", "split"]).take(pa.array(members)).to_pylist())
    alike: list[list[Row]] = [
        sorted(((next(facts), int(row)) for row in group), key=lambda entry: entry[0]["key"])
        for group in groups
    ]
    unlike = [rows for rows in alike if len({fact["label"] for fact, _ in rows}) > 1]
    times = said([fact["key"] for rows in unlike for fact, _ in rows]) if unlike else {}
    copies = [copy for rows in alike for copy in _copies(rows, conflicts, times)]
    drop = np.zeros(index.num_rows, np.bool_)
    drop[[copy.row for copy in copies]] = True
    return Exact(drop, tuple(copies))


def _copies(rows: Sequence[Row], conflicts: str, times: Mapping[str, Said]) -> list[Duplicate]:
    """What goes of rows with the same image, sorted by key."""
    keys, labels = [fact["key"] for fact, _ in rows], [fact["label"] for fact, _ in rows]
    told = newest(labels, [times.get(key) for key in keys], [key.partition("/")[0] for key in keys])
    label = labels[0] if told is None else told
    same = [(fact, row) for fact, row in rows if fact["label"] == label]
    others = [row for fact, row in rows if fact["label"] != label]
    _, stays = min(same, key=lambda entry: PREFERENCE.get(entry[0]["split"], len(PREFERENCE)))
    copies = [Duplicate(row, stays, "conflict" if told is None else "corrected") for row in others]
    if others and told is None and conflicts == "refuse":
        return copies + [Duplicate(row, others[0], "conflict") for _, row in same]
    return copies + [Duplicate(row, stays, "copy") for _, row in same if row != stays]


def found(index: pa.Table, exact: Exact, near: Sequence[Pair]) -> list[DuplicateRow]:
    """Every copy, contradiction and look-alike, sorted by kind and key; rows are those of `index`."""
    triples: list[tuple[Kind, int, int, int | None]] = [
        *((kind, row, other, None) for row, other, kind in exact.copies),
        *(("near", row, other, bits) for row, other, bits in near),
    ]
    wanted = pa.array([row for _, row, other, _ in triples for row in (row, other)], pa.int64())
    facts = iter(
        (fact["key"], fact["label"], fact["split"])
        for fact in index.select(["key", "label", "split"]).take(wanted).to_pylist()
    )
    lines = [DuplicateRow(kind, *next(facts), *next(facts), bits) for kind, _, _, bits in triples]
    return sorted(lines, key=lambda line: line[:2])


def listing(lines: Sequence[DuplicateRow]) -> bytes:
    """The lines as CSV in UTF-8, with a header, safe to open in a spreadsheet.

    Keys and labels are names that strangers chose.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(DuplicateRow._fields)
    for line in lines:
        writer.writerow([escape_cell(str("" if cell is None else cell)) for cell in line])
    return text.getvalue().encode()


def _digests(index: pa.Table) -> NDArray[np.uint64]:
    """The column `id`, binary [N] of 32 bytes, as uint64 [N,4]."""
    chunks = [
        np.frombuffer(chunk.buffers()[1], np.uint64).reshape(-1, 4)[chunk.offset : chunk.offset + len(chunk)]
        for chunk in index["id"].chunks
        if len(chunk)
    ]
    return np.concatenate([np.empty((0, 4), np.uint64), *chunks])


def _equal(digests: NDArray[np.uint64]) -> list[Rows]:
    """The groups of at least two rows with the same digest."""
    order = np.lexsort(digests.T)
    same = (digests[order][1:] == digests[order][:-1]).all(axis=1)
    joined = np.concatenate([[False], same]), np.concatenate([same, [False]])
    members = joined[0] | joined[1]
    starts = np.flatnonzero(~joined[0][members])
    return np.split(order[members], starts[1:]) if len(starts) else []
