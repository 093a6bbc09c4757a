"""Stage 1: the images of one queue message become shards, content-addressed, pixels through S3.

Every file ends as a row of a shard or as a refusal with its reason. The part's manifest is written last:
where it exists, the part is done and is not done again.
"""

import hashlib
import time
from collections import Counter, deque
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final, NamedTuple

from pydantic import BaseModel

from nightshift import storage
from nightshift.config import PreprocessSettings, store_root
from nightshift.data import index, labels, quarantine, shards
from nightshift.data.annotations import annotations
from nightshift.data.decoding.pool import Decoded, DecoderPool, decode_for_shard
from nightshift.data.images import UnreadableError
from nightshift.data.labels import Label, Labels
from nightshift.data.prefetch import fetch
from nightshift.data.shards import Buffers, Filled, Row
from nightshift.data.splits import place
from nightshift.hardware.processor import threads
from nightshift.records import Part, PartList, PartResult, Refusal, Shard, Split, SplitFolders
from nightshift.records.specs import PreprocessSpec
from nightshift.runner.json_logs import one_line

WRITING: Final = 2  # full shards that wait for the store


class File(NamedTuple):
    """A file on its way through the decoders."""

    key: str  # <batch>/<path in the batch>
    sha256: str
    size: int
    label: Label
    split: Split


class Preprocessed(BaseModel):
    """What one message did, in numbers; the shards are found by the parts' digests."""

    parts: int
    images: int
    refused: int
    seconds: float


def preprocess(spec: PreprocessSpec) -> Preprocessed:
    """Preprocess every part of the message that nobody has done yet."""
    started = time.monotonic()
    parts = storage.read_record(spec.message.parts_uri, PartList).parts
    processes = threads()
    results, buffers = [], Buffers(spec.settings)
    if parts:
        with DecoderPool(decode_for_shard, spec.settings, processes=processes, borrow=True) as decoders:
            known = Known(spec.source, parts)
            results = [_part(part, spec, decoders, buffers, known) for part in parts]
    kept = sum(shard.images for result in results for shard in result.shards)
    refused = sum(len(result.refusals) for result in results)
    seconds = time.monotonic() - started
    print(f"preprocess: {kept} images kept, {refused} refused, {len(parts)} parts, {seconds:.1f} s")
    return Preprocessed(parts=len(parts), images=kept, refused=refused, seconds=seconds)


def split_of(label: Label, group: str, named: Collection[Split], settings: PreprocessSettings) -> Split:
    """The split that the source names, otherwise the hash of the group, so that none moves as data grows.

    Published sets seldom name all three: of those that a batch has, `named`, two are enough. Without
    validation images the hash makes a share of the training images those; without test images the
    validation images are the test images, since nobody trained on them, and the hash takes the others.
    """
    share = int.from_bytes(hashlib.sha256(f"split:{group}".encode()).digest()[:8]) / 2**64
    if label.split == "train" and not {"validation", "test"} <= set(named):
        return "validation" if share < settings.validation_fraction else "train"
    if label.split == "validation" and "train" in named and "test" not in named:
        return "test"
    if label.split:
        return label.split
    if share < settings.test_fraction:
        return "test"
    return "validation" if share < settings.test_fraction + settings.validation_fraction else "train"


class Known:
    """What manifests say of a message's files; each is read once, when the first part needs it."""

    def __init__(self, source: str, parts: Sequence[Part]) -> None:
        self._source, self._parts = source, parts
        self._read: dict[str, Labels] = {}

    def of(self, part: Part) -> Labels | None:
        """What the part's manifest says; None where it has none. Raises InputError, OutageError."""
        if not part.manifest:
            return None
        where = storage.join(self._source, part.batch, part.manifest)
        if where not in self._read:
            same = (
                each for each in self._parts if (each.batch, each.manifest) == (part.batch, part.manifest)
            )
            self._read[where] = annotations(
                where, frozenset(labels.composed(key) for each in same for key in each.keys)
            )
        return self._read[where]


def _part(
    part: Part, spec: PreprocessSpec, decoders: DecoderPool[Decoded], buffers: Buffers, known: Known
) -> PartResult:
    folder = storage.join(store_root(), "shards", part.digest)
    if again := shards.found(part.digest):
        print(f"batch {one_line(part.batch)}: part {part.digest[:12]} is already done")
        return again
    started = time.monotonic()
    refusals: list[Refusal] = []
    written: list[Shard] = []
    table: list[dict[str, Any]] = []
    rows = _rows(part, spec, decoders, refusals, known.of(part))
    for filled, shard in _written(folder, buffers, rows):
        table += [{**facts, "shard": len(written), "row": row} for row, facts in enumerate(filled.facts)]
        written.append(shard)
    result = PartResult(
        part=part.digest,
        batch=part.batch,
        shards=tuple(written),
        index=index.write(folder, table),
        # Files are fetched ahead of their turn: only sorted are the reasons the same in every run.
        refusals=tuple(sorted(refusals, key=lambda refusal: refusal.key)),
        seconds=time.monotonic() - started,
    )
    return shards.claim(result)


def _written(folder: str, buffers: Buffers, rows: Iterator[Row]) -> Iterator[tuple[Filled, Shard]]:
    """Write shards while the next ones fill; those of two splits may be full at the same time."""
    numbers: Counter[Split] = Counter()
    writing: deque[tuple[Filled, Future[Shard]]] = deque()

    def finished() -> tuple[Filled, Shard]:
        filled, shard = writing.popleft()
        result = shard.result()
        buffers.release(filled)
        return filled, result

    with ThreadPoolExecutor(1) as writer:
        for filled in buffers.fill(rows):
            if len(writing) == WRITING:
                yield finished()
            writing.append((filled, writer.submit(shards.write, folder, numbers[filled.split], filled)))
            numbers[filled.split] += 1
        while writing:
            yield finished()


def _rows(
    part: Part,
    spec: PreprocessSpec,
    decoders: DecoderPool[Decoded],
    refusals: list[Refusal],
    known: Labels | None,
) -> Iterator[Row]:
    """Fetch ahead with threads, decode in order, and turn what is unreadable into a refusal."""
    files: deque[File] = deque()
    for seen in decoders.map(_contents(part, spec, files, refusals, known)):
        file = files.popleft()
        if isinstance(seen, UnreadableError):
            refusals.append(quarantine.refusal(file.key, seen, file.sha256))
            continue
        label = file.label
        facts = {
            "key": file.key,
            "id": bytes.fromhex(file.sha256),
            "label": label.name,
            "split": file.split,
            "group": label.group or "",
            "bytes": file.size,
            "extra": label.extra,
            "format": seen.format,
            "width": seen.width,
            "height": seen.height,
            **seen.features._asdict(),
        }
        yield Row(seen.pixels, file.split, facts)  # lent until the next one


def _contents(
    part: Part,
    spec: PreprocessSpec,
    files: deque[File],
    refusals: list[Refusal],
    known: Labels | None,
) -> Iterator[bytes]:
    """The bytes of every file that has a label, in order; the file itself is added to `files`."""
    batch = storage.join(spec.source, part.batch)
    named = known.splits if known is not None else part.splits.named if part.splits else ()
    limit = int(spec.settings.max_megabytes * 2**20)
    uris = [storage.join(batch, key) for key in part.keys]
    for key, fetched in zip(part.keys, fetch(uris, limit), strict=True):
        name = f"{part.batch}/{key}"
        composed = labels.composed(key)
        label = known.by_path.get(composed) if known is not None else _folder_label(key, part.splits)
        if isinstance(fetched, UnreadableError):
            refusals.append(quarantine.refusal(name, fetched))
        elif label is None:
            nowhere = UnreadableError("no-label", "in no class folder and in no manifest row")
            refusals.append(quarantine.refusal(name, nowhere, fetched.sha256))
        else:
            # Whose name is only written in another way stays on the same side.
            group = labels.form(label.group) if label.group else fetched.sha256
            split = split_of(label, group, named, spec.settings)
            files.append(File(name, fetched.sha256, len(fetched.data), label, split))
            yield fetched.data


def _folder_label(key: str, splits: SplitFolders | None) -> Label | None:
    folder, slash, _ = key.partition("/")
    label = Label(labels.spelled(folder)) if splits is None else place(key, splits)
    return label if slash and label and label.name else None
