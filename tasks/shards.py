"""Rows of pixels become shards: safetensors files of bounded size, one split in each."""

import json
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from tasks import storage
from tasks.config import PreprocessSettings
from tasks.records import SPLITS, Shard, Split

SHARD_BYTES: Final = 64 * 2**20  # S3 streams at full speed and a shuffle works shard by shard
EXACT: Final = 2**23  # pixels that OpenCV's float32 histograms count exactly
Moments = tuple[float, ...]  # one number per channel


class Row(NamedTuple):
    pixels: NDArray[np.uint8]  # [side, side, C]
    split: Split
    facts: dict[str, Any]  # a row of tasks.index without its place


def capacity(settings: PreprocessSettings) -> int:
    """How many images fill a shard."""
    return max(1, SHARD_BYTES // (settings.side**2 * settings.channels))


def buffered(rows: Iterator[Row], capacity: int) -> Iterator[tuple[Split, list[Row]]]:
    """Collect rows by split and let each collection go when it has `capacity` rows, so memory is bounded."""
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


def write(folder: str, split: Split, number: int, rows: list[Row]) -> Shard:
    """Store a shard: images uint8 [N,side,side,C], labels int64 [N], ids uint8 [N,32], keys in its header."""
    classes = tuple(sorted({row.facts["label"] for row in rows}))
    position = {name: at for at, name in enumerate(classes)}
    tensors: dict[str, NDArray[Any]] = {
        "images": np.stack([row.pixels for row in rows]),
        "labels": np.array([position[row.facts["label"]] for row in rows], np.int64),
        "ids": np.stack([np.frombuffer(row.facts["id"], np.uint8) for row in rows]),
    }
    data = save(dict(tensors), metadata={"keys": json.dumps([row.facts["key"] for row in rows])})
    mean, mean_square = moments(tensors["images"])
    return Shard(
        file=storage.write(storage.join(folder, f"{split}-{number:05d}.safetensors"), data),
        split=split,
        images=len(rows),
        classes=classes,
        mean=mean,
        mean_square=mean_square,
    )


def moments(pixels: NDArray[np.uint8]) -> tuple[Moments, Moments]:
    """Mean and mean square per channel of uint8 [N,H,W,C], on the scale 0 to 1, exact in integers."""
    channels = pixels.shape[3]
    lines = pixels.reshape(-1, pixels.shape[2], channels)
    step = max(1, EXACT // pixels.shape[2])
    histograms = [
        sum(
            cv2.calcHist([lines[start : start + step]], [channel], None, [256], [0, 256]).ravel().astype(int)
            for start in range(0, len(lines), step)
        )
        for channel in range(channels)
    ]
    levels, count = np.arange(256) / 255, pixels[..., 0].size
    first = tuple(float(histogram @ levels / count) for histogram in histograms)
    return first, tuple(float(histogram @ levels**2 / count) for histogram in histograms)
