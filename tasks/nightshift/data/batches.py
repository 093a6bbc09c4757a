"""Batches as a listing shows them, cut into parts and grouped into queue messages.

Only keys, sizes and ETags are looked at, so that a million images are cut in seconds and in bounded memory.
"""

import hashlib
import itertools
import math
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from nightshift import storage
from nightshift.config import PreprocessSettings, digest_of, store_root
from nightshift.config.clutter import LEFT_BEHIND, is_clutter
from nightshift.data.labels import MANIFESTS, READY
from nightshift.data.splits import split_folders
from nightshift.records import BatchSeen, Message, Part, PartList, SplitFolders
from nightshift.storage import Stored

FORMAT: Final = 5  # of the shards; raised when their content changes for the same settings
MAX_MESSAGES: Final = 256  # Airflow maps at most 1,024 tasks by default
# What one file costs one core, rather more than measured on photos and PNG of 2 kB to 4 MB: reading,
# decoding, resizing, writing.
FILE_SECONDS: Final = 0.001
BYTES_PER_SECOND: Final = 80e6
# And what each pixel that is stored costs where noise is taken out; measured on 36 to 256 pixels a side, on
# one core of an EPYC with AVX-512.
DENOISE_SECONDS: Final = {"none": 0.0, "median": 0.1e-6, "bilateral": 0.02e-6, "nlmeans": 5e-6}

File = tuple[str, int, str]  # key relative to the batch, size in bytes, ETag


class Batch(NamedTuple):
    """A complete batch; `files` is sorted by key."""

    name: str
    files: tuple[File, ...]
    manifest: File | None
    newest: float = 0.0  # when the last of them was written, seconds since 1970
    splits: SplitFolders | None = None  # where its folders name splits

    def seen(self) -> BatchSeen:
        digest = hashlib.sha256(repr(self.manifest).encode())
        for file in self.files:
            digest.update(repr(file).encode())
        return BatchSeen(files=len(self.files), digest=digest.hexdigest())


def complete(
    objects: Iterable[Stored], settle_seconds: float, waiting: list[str], clutter: Counter[str]
) -> Iterator[Batch]:
    """Complete batches in a listing sorted by key; the names of incomplete ones are added to `waiting`.

    What systems left among the files belongs to no batch; `clutter` counts it by the batch's name.
    """
    inside = (stored for stored in objects if "/" in stored.key)
    for name, group in itertools.groupby(inside, key=lambda stored: stored.key.partition("/")[0]):
        files: list[File] = []
        manifest, ready, newest = None, False, 0.0
        for stored in group:
            key = stored.key.partition("/")[2]
            if is_clutter(stored.key):
                clutter[name] += 1
                continue
            newest = max(newest, stored.modified)
            if key == READY:
                ready = True
            elif key in MANIFESTS:
                manifest = (key, stored.size, stored.etag)
            else:
                files.append((key, stored.size, stored.etag))
        if files and (ready or time.time() - newest >= settle_seconds):
            files.sort()
            yield Batch(name, tuple(files), manifest, newest, None if manifest else _splits(files))
        elif files:
            waiting.append(name)


def left_out(clutter: Counter[str]) -> Iterator[str]:
    """What `complete` counted, in words."""
    for name, count in clutter.items():
        yield f"batch {name}: {count:,} left out: {LEFT_BEHIND}"


def cut(batch: Batch, settings: PreprocessSettings, source: str) -> Iterator[Part]:
    """Cut a batch into parts of about equal work.

    A part's digest names its files, its labels and how they are preprocessed.
    """
    for files in _pieces(batch.files, settings):
        yield Part(
            batch=batch.name,
            keys=tuple(key for key, _, _ in files),
            manifest=batch.manifest[0] if batch.manifest else None,
            splits=batch.splits,
            seconds=work(files, settings),
            digest=part_digest(batch._replace(files=files), settings, source),
        )


def part_digest(batch: Batch, settings: PreprocessSettings, source: str) -> str:
    """Digest of the part that holds these files of a batch."""
    splits = batch.splits.model_dump() if batch.splits else None
    described = (batch.manifest, splits, batch.files)
    return digest_of([FORMAT, source, batch.name, settings.shards_digest(), *described])


def work(files: Iterable[File], settings: PreprocessSettings) -> float:
    """Estimated seconds of one core."""
    each = FILE_SECONDS + DENOISE_SECONDS[settings.denoise] * settings.side**2
    return sum(each + size / BYTES_PER_SECOND for _, size, _ in files)


def grouped(parts: list[Part], part_seconds: float) -> Iterator[list[Part]]:
    """Parts that travel in one message: about `part_seconds` of work, more only to bound the messages."""
    total = sum(part.seconds for part in parts)
    # Two neighbours together exceed the capacity, so there are at most two messages for each of it.
    capacity = max(part_seconds, total / (MAX_MESSAGES // 2 - 1))
    group: list[Part] = []
    seconds = 0.0
    for part in parts:
        if group and seconds + part.seconds > capacity:
            yield group
            group, seconds = [], 0.0
        group.append(part)
        seconds += part.seconds
    if group:
        yield group


def _splits(files: Iterable[File]) -> SplitFolders | None:
    paths = [key for key, _, _ in files]
    return split_folders({path.partition("/")[0] for path in paths if "/" in path}, paths)


def _pieces(files: tuple[File, ...], settings: PreprocessSettings) -> Iterator[tuple[File, ...]]:
    """Pieces of equal work, each of about `part_seconds` at most, so that no tiny rest travels alone."""
    total = work(files, settings)
    share = total / max(1, math.ceil(total / settings.part_seconds - 1e-9))
    start, done, due = 0, 0.0, share
    for index, file in enumerate(files):
        cost = work((file,), settings)
        if index > start and done + cost / 2 > due:
            yield files[start:index]
            start, due = index, due + share
        done += cost
    if start < len(files):
        yield files[start:]


NAMED: Final = 3  # batches in a message, of which there may be thousands


def message(parts: Sequence[Part]) -> Message:
    """One message for these parts."""
    return Message(
        parts_uri=store({}, parts),
        parts=len(parts),
        images=sum(len(part.keys) for part in parts),
        seconds=sum(part.seconds for part in parts),
        batches=tuple(dict.fromkeys(part.batch for part in parts))[:NAMED],
    )


def store(batches: Mapping[str, BatchSeen], parts: Sequence[Part]) -> str:
    """Keep a list of parts under its own digest, and return where."""
    name = digest_of([part.digest for part in parts])
    record = PartList(batches=dict(batches), parts=tuple(parts))
    return storage.write_record(storage.join(store_root(), "plans", f"{name}.json"), record).uri
