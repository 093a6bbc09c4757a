"""Stage 1: the images of one queue message become shards, content-addressed, pixels through S3.

Every file ends as a row of a shard or as a refusal with its reason. The part's manifest is written last:
where it exists, the part is done and is not done again.
"""

import csv
import hashlib
import io
import json
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePosixPath
from typing import NamedTuple

import numpy as np
from pydantic import BaseModel, TypeAdapter
from safetensors.numpy import save

from tasks import images, storage
from tasks.config import PreprocessSettings, store_root
from tasks.errors import InputError
from tasks.records import SPLITS, Part, PartResult, PreprocessSpec, Refusal, Shard, Split

SHARD_BYTES = 64 * 2**20  # S3 streams at full speed and a shuffle works shard by shard
READERS = 8  # threads that fetch ahead


class Label(NamedTuple):
    name: str
    split: Split | None = None  # the source's own
    group: str | None = None


class Row(NamedTuple):
    pixels: np.ndarray  # uint8 [side, side, 3]
    label: str
    split: Split
    id: bytes  # SHA-256 of the file
    key: str


class Preprocessed(BaseModel):
    """What one message did, in numbers; the shards are found by the parts' digests."""

    parts: int
    images: int
    refused: int
    seconds: float


def preprocess(spec: PreprocessSpec) -> Preprocessed:
    """Preprocess every part of the message that nobody has done yet."""
    started = time.monotonic()
    parts = TypeAdapter(list[Part]).validate_json(storage.read(spec.message.parts_uri))
    results = [_part(part, spec) for part in parts]
    kept = sum(shard.images for result in results for shard in result.shards)
    refused = sum(len(result.refusals) for result in results)
    print(f"preprocess: {kept} images kept, {refused} refused, {len(parts)} parts")
    return Preprocessed(parts=len(parts), images=kept, refused=refused, seconds=time.monotonic() - started)


def split_of(group: str, settings: PreprocessSettings) -> Split:
    """Where a group of images belongs: decided by its hash alone, so it never moves as data grows."""
    share = int.from_bytes(hashlib.sha256(f"split:{group}".encode()).digest()[:8]) / 2**64
    if share < settings.test_fraction:
        return "test"
    return "validation" if share < settings.test_fraction + settings.validation_fraction else "train"


def read_labels(text: str, where: str) -> dict[str, Label]:
    """Labels by path from a manifest: columns `path,label[,split,group]`."""
    rows = csv.DictReader(io.StringIO(text))
    if not {"path", "label"} <= set(rows.fieldnames or ()):
        raise InputError(
            f"{where} must have the columns path and label, got {', '.join(rows.fieldnames or ())}"
        )
    labels = {}
    for number, row in enumerate(rows, start=2):
        split = row.get("split") or None
        if split is not None and split not in SPLITS:
            raise InputError(
                f"{where}, line {number}: split must be one of {', '.join(SPLITS)}, got {split!r}"
            )
        labels[row["path"]] = Label(row["label"], split, row.get("group") or None)
    return labels


def _part(part: Part, spec: PreprocessSpec) -> PartResult:
    folder = storage.join(store_root(), "shards", part.digest)
    done = storage.join(folder, "part.json")
    if storage.exists(done):
        print(f"batch {part.batch}: part {part.digest[:12]} is already done")
        return storage.read_record(done, PartResult)
    started = time.monotonic()
    refusals: list[Refusal] = []
    shards: list[Shard] = []
    for split, rows in _buffered(_rows(part, spec, refusals), spec.settings):
        index = sum(shard.split == split for shard in shards)
        shards.append(_write_shard(folder, split, index, rows))
    _quarantine(part, spec, refusals)
    result = PartResult(
        part=part.digest,
        batch=part.batch,
        shards=tuple(shards),
        refusals=tuple(refusals),
        seconds=time.monotonic() - started,
    )
    storage.write_record(done, result)
    return result


def _rows(part: Part, spec: PreprocessSpec, refusals: list[Refusal]) -> Iterator[Row]:
    """Fetch ahead with threads, decode in order, and turn what is unreadable into a refusal."""
    batch = storage.join(spec.source, part.batch)
    labels = None
    if part.manifest:
        where = storage.join(batch, "manifest.csv")
        labels = read_labels(storage.read(where).decode("utf-8-sig"), where)
    with ThreadPoolExecutor(READERS) as pool:
        for key, data in zip(part.keys, _ahead(pool, batch, part.keys), strict=True):
            label = labels.get(key) if labels is not None else _folder_label(key)
            if label is None:
                refusals.append(_refusal(part, key, "no-label", "in no class folder and in no manifest row"))
                continue
            try:
                pixels = images.stored(data, spec.settings)
            except images.Unreadable as error:
                refusals.append(_refusal(part, key, error.reason, error.detail))
                continue
            digest = hashlib.sha256(data)
            split = label.split or split_of(label.group or digest.hexdigest(), spec.settings)
            yield Row(pixels, label.name, split, digest.digest(), f"{part.batch}/{key}")


def _ahead(pool: ThreadPoolExecutor, batch: str, keys: tuple[str, ...]) -> Iterator[bytes]:
    """The files' bytes in order, a bounded number of them fetched ahead."""
    window = READERS * 4
    pending = [pool.submit(storage.read, storage.join(batch, key)) for key in keys[:window]]
    for position in range(len(keys)):
        data = pending.pop(0).result()
        if position + window < len(keys):
            pending.append(pool.submit(storage.read, storage.join(batch, keys[position + window])))
        yield data


def _buffered(rows: Iterator[Row], settings: PreprocessSettings) -> Iterator[tuple[Split, list[Row]]]:
    """Collect rows by split and let each collection go when it fills a shard, so memory is bounded."""
    capacity = max(1, SHARD_BYTES // (settings.side**2 * 3))
    buffers: dict[Split, list[Row]] = {split: [] for split in SPLITS}
    for row in rows:
        buffer = buffers[row.split]
        buffer.append(row)
        if len(buffer) == capacity:
            yield row.split, buffer
            buffers[row.split] = []
    for split, buffer in buffers.items():
        if buffer:
            yield split, buffer


def _write_shard(folder: str, split: Split, index: int, rows: list[Row]) -> Shard:
    classes = tuple(sorted({row.label for row in rows}))
    position = {name: number for number, name in enumerate(classes)}
    tensors = {
        "images": np.stack([row.pixels for row in rows]),
        "labels": np.array([position[row.label] for row in rows], np.int64),
        "ids": np.stack([np.frombuffer(row.id, np.uint8) for row in rows]),
    }
    data = save(tensors, metadata={"keys": json.dumps([row.key for row in rows])})
    mean, mean_square = moments(tensors["images"])
    return Shard(
        file=storage.write(storage.join(folder, f"{split}-{index:05d}.safetensors"), data),
        split=split,
        images=len(rows),
        classes=classes,
        counts=dict(Counter(row.label for row in rows)),
        mean=mean,
        mean_square=mean_square,
    )


def moments(pixels: np.ndarray) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Mean and mean square per channel of uint8 [N,H,W,3], on the scale 0 to 1, exact in integers."""
    histograms = [np.bincount(pixels[..., channel].ravel(), minlength=256) for channel in range(3)]
    levels, count = np.arange(256) / 255, pixels[..., 0].size
    first = [float(histogram @ levels / count) for histogram in histograms]
    second = [float(histogram @ levels**2 / count) for histogram in histograms]
    return (first[0], first[1], first[2]), (second[0], second[1], second[2])


def _quarantine(part: Part, spec: PreprocessSpec, refusals: list[Refusal]) -> None:
    """Keep the reasons where people look for them; the refused files stay in the source."""
    if refusals:
        folder = storage.join(store_root(), "quarantine", spec.pipeline, part.batch)
        lines = "".join(refusal.model_dump_json() + "\n" for refusal in refusals)
        storage.write(storage.join(folder, f"{part.digest[:16]}.reasons.jsonl"), lines.encode())


def _refusal(part: Part, key: str, reason: str, detail: str) -> Refusal:
    print(f"refused {part.batch}/{key}: {reason}: {detail}")
    return Refusal(key=f"{part.batch}/{key}", reason=reason, detail=detail)


def _folder_label(key: str) -> Label | None:
    parents = PurePosixPath(key).parts[:-1]
    return Label(parents[0]) if parents else None
