"""Images that look like those of a split that they must not be in, found from the index alone.

It takes two witnesses, since either alone is wrong too often: a perceptual hash within some bits, which can
be searched for among millions, and thumbnails that agree, which are read for the few that the hash names.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import combinations, pairwise
from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from nightshift.records import Split

Rows = NDArray[np.int64]
Thumbnails = Callable[[Rows], NDArray[np.uint8]]

BANDS: Final = 4  # a hash is cut into so many bands of 16 bits
CHUNK: Final = 1 << 20  # pairs of hashes looked at in one go
GATHERED: Final = 1 << 18  # pairs of rows whose thumbnails are read in one go
COMPARED: Final = 1 << 15  # pairs of thumbnails compared in one go: 64 MiB as float32
CROWD: Final = 16  # held-out images of one hash from which those with equal thumbnails count once
WORST_CELL: Final = 0.7  # standard deviations by which a cell of two thumbnails that agree may differ
BLANK: Final = 5.0  # levels of 255: the least standard deviation that counts as a picture
BRIGHTER: Final = 64.0  # levels of 255 by which the mean of copies may differ


class Pair(NamedTuple):
    """A row and the held-out row that it looks like; `bits` of their hashes differ."""

    row: int
    other: int
    bits: int


def near(index: pa.Table, thumbnails: Thumbnails, bits: int, keep: NDArray[np.bool_]) -> list[Pair]:
    """Training rows that look like a validation or test row, and validation rows that look like a test row.

    Each comes with one of them, in rising order: weights and recipes are chosen on validation images.
    `keep`, bool [N], holds for the rows to look at. `thumbnails` gives uint8 [n,256] for row indices, int64
    [n] rising, and is asked only for rows whose hashes are within `bits` of each other. Of several held-out
    rows the one with the nearest hash is named, then the one with the smallest key. FlipTTA and turned
    images are not found.
    """
    found = _against(index, thumbnails, bits, keep, ("train",), ("validation", "test"))
    return sorted(found + _against(index, thumbnails, bits, keep, ("validation",), ("test",)))


def _against(
    index: pa.Table,
    thumbnails: Thumbnails,
    bits: int,
    keep: NDArray[np.bool_],
    ours: Sequence[Split],
    theirs: Sequence[Split],
) -> list[Pair]:
    """Rows of some splits that look like rows of others."""
    first, second = (keep & _of(index, splits) for splits in (ours, theirs))
    search = _Search(index, thumbnails, first, second)
    waiting: list[tuple[Rows, Rows, Rows]] = []
    for chunk in search.candidates(bits):
        waiting.append(chunk)
        if sum(len(rows) for rows, _, _ in waiting) >= GATHERED:
            search.compare(waiting)
            waiting.clear()
    if waiting:
        search.compare(waiting)
    return search.pairs()


def alike(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Whether thumbnails, uint8 [n,256], agree pair by pair; bool [n].

    With brightness and contrast matched, none of the 256 cells may differ by more than 0.7 standard
    deviations. The worst cell tells copies from pictures that are merely simple: a recompressed photo differs
    a little everywhere, another person's handwritten 1 differs a lot at a few places along the stroke, and
    both correlate to 0.99. Within 4 bits it names 23 of CIFAR-10's training images, each of the same scene as
    its test image; of MNIST's 60,000 it names 24, all of them the digit 1 and hard to tell apart; and none of
    scikit-learn's 8x8 digits. Below 5 levels of contrast a picture counts as blank; noise is not compared.
    """
    ours, theirs = first.astype(np.float32), second.astype(np.float32)
    means = [pictures.mean(axis=1, keepdims=True) for pictures in (ours, theirs)]
    for pictures, mean in zip((ours, theirs), means, strict=True):
        pictures -= mean
        pictures /= np.maximum(pictures.std(axis=1, keepdims=True), BLANK)
    ours -= theirs
    agree: NDArray[np.bool_] = np.abs(ours, out=ours).max(axis=1) <= WORST_CELL
    agree &= np.abs(means[0] - means[1])[:, 0] <= BRIGHTER
    return agree


def _of(index: pa.Table, splits: Sequence[Split]) -> NDArray[np.bool_]:
    inside = pc.is_in(index["split"], value_set=pa.array(splits, pa.string()))
    return np.asarray(inside.to_numpy(zero_copy_only=False), np.bool_)


class _Search:
    """Training rows, held-out rows, and for each training row the best pair so far."""

    def __init__(
        self,
        index: pa.Table,
        thumbnails: Thumbnails,
        training: NDArray[np.bool_],
        held_out: NDArray[np.bool_],
    ) -> None:
        self._thumbnails = thumbnails
        hashes = index["phash"].to_numpy()
        held = np.flatnonzero(held_out)
        held = held[pc.sort_indices(index["key"].take(pa.array(held))).to_numpy()]
        self._training = _ByHash(np.flatnonzero(training), hashes)
        self._held = _ByHash(_without_crowds(held, hashes, thumbnails), hashes)
        self._best = np.full(len(self._training.rows), np.iinfo(np.int64).max)  # bits, then place of the key

    def candidates(self, bits: int) -> Iterator[tuple[Rows, Rows, Rows]]:
        """Places among the training and the held-out rows with close hashes, and the scores of the pairs."""
        ours, theirs = self._training, self._held
        for first, second, distance in close(ours.hashes, theirs.hashes, bits):
            sizes = ours.counts[first]
            for which, turn in _spread(sizes * theirs.counts[second], COMPARED):
                # All training rows meet the first held-out row of the hash, then those still alone the next.
                row = ours.starts[first[which]] + turn % sizes[which]
                other = theirs.starts[second[which]] + turn // sizes[which]
                score = distance[which] * len(theirs.rows) + theirs.order[other]
                better = score < self._best[row]
                if better.any():
                    yield row[better], other[better], score[better]

    def compare(self, chunks: Sequence[tuple[Rows, Rows, Rows]]) -> None:
        row, other, score = (np.concatenate(parts) for parts in zip(*chunks, strict=True))
        wanted, places = np.unique(
            np.concatenate([self._training.rows[row], self._held.rows[other]]), return_inverse=True
        )
        pictures = self._thumbnails(wanted)
        for start in range(0, len(row), COMPARED):
            part = slice(start, start + COMPARED)
            good = alike(pictures[places[: len(row)][part]], pictures[places[len(row) :][part]])
            np.minimum.at(self._best, row[part][good], score[part][good])

    def pairs(self) -> list[Pair]:
        """The best pair of every training row that has one, in the order of the index."""
        found = np.flatnonzero(self._best < np.iinfo(np.int64).max)
        distance, place = np.divmod(self._best[found], max(1, len(self._held.rows)))
        others = self._held.rows[np.argsort(self._held.order)][place]
        return sorted(
            Pair(*triple)
            for triple in zip(
                self._training.rows[found].tolist(), others.tolist(), distance.tolist(), strict=True
            )
        )


class _ByHash:
    """Rows sorted by their hash, with the distinct hashes and where the rows of each begin."""

    def __init__(self, rows: Rows, hashes: NDArray[np.uint64]) -> None:
        self.order = np.argsort(hashes[rows], kind="stable")  # place among the rows as they were given
        self.rows = rows[self.order]
        self.hashes, self.starts, self.counts = np.unique(
            hashes[self.rows], return_index=True, return_counts=True
        )


def close(
    first: NDArray[np.uint64], second: NDArray[np.uint64], bits: int
) -> Iterator[tuple[Rows, Rows, Rows]]:
    """Indices into two lists of distinct hashes that differ in at most `bits` bits, and in how many they do.

    Multi-index hashing (Norouzi, Punjani and Fleet, Fast exact search in Hamming space with multi-index
    hashing, IEEE TPAMI 36(6), 2014): of hashes that differ in 4 r + a bits, one of the first a + 1 bands
    differs in at most r bits or one of the others in at most r - 1. Looking up these few variants of a band
    takes a table of 65,536 places. A pair may come more than once.
    """
    ours, theirs = (hashes.view(np.uint16).reshape(-1, BANDS) for hashes in (first, second))
    radius, rest = divmod(bits, BANDS)
    for band in range(BANDS):
        order = np.argsort(ours[:, band], kind="stable")
        sorted_first = first[order]
        places = np.searchsorted(ours[order, band], np.arange((1 << 16) + 1))
        for change in _changes(radius if band <= rest else radius - 1):
            bucket = (theirs[:, band] ^ change).astype(np.int64)
            starts = places[bucket]
            for other, turn in _spread(places[bucket + 1] - starts, CHUNK):
                turn += starts[other]
                distance = np.bitwise_count(sorted_first[turn] ^ second[other])
                within = np.flatnonzero(distance <= bits)
                if len(within):
                    yield order[turn[within]], other[within], distance[within].astype(np.int64)


def _changes(most: int) -> Iterator[np.uint16]:
    """All patterns of 16 bits with at most so many ones; none when `most` is below zero."""
    for ones in range(most + 1):
        for places in combinations(range(16), ones):
            yield np.uint16(sum(1 << place for place in places))


def _spread(counts: Rows, chunk: int) -> Iterator[tuple[Rows, Rows]]:
    """(i, 0), (i, 1), … up to counts[i] for every i, as two arrays of at most `chunk` at a time."""
    ends = np.cumsum(counts)
    total = int(ends[-1]) if len(ends) else 0
    for start, stop in pairwise([*range(0, total, chunk), total]):
        low, high = np.searchsorted(ends, start, "right"), np.searchsorted(ends, stop, "left") + 1
        begins = ends[low:high] - counts[low:high]
        here = np.minimum(ends[low:high], stop) - np.maximum(begins, start)
        which = np.repeat(np.arange(low, high), here)
        yield which, np.arange(start, stop) - np.repeat(begins, here)


def _without_crowds(held: Rows, hashes: NDArray[np.uint64], thumbnails: Thumbnails) -> Rows:
    """Where many rows share one hash (blank images), one row for every different thumbnail, the first."""
    _, inverse, counts = np.unique(hashes[held], return_inverse=True, return_counts=True)
    places = np.flatnonzero(counts[inverse] > CROWD)
    if not len(places):
        return held
    rising = places[np.argsort(held[places])]
    pictures = np.column_stack([hashes[held[rising]].view(np.uint8).reshape(-1, 8), thumbnails(held[rising])])
    first: dict[bytes, int] = {}
    for picture, place in zip(pictures, rising.tolist(), strict=True):
        seen = picture.tobytes()
        first[seen] = min(place, first.get(seen, place))
    spare = np.setdiff1d(places, np.array(list(first.values())))
    return np.delete(held, spare)
