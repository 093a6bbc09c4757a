"""Rows of pixels become shards: safetensors files of bounded size, one split in each."""

import json
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from nightshift import storage
from nightshift.config import PreprocessSettings, store_root
from nightshift.records import SPLITS, Artifact, PartResult, Shard, Split
from nightshift.storage import outputs

SHARD_BYTES: Final = 32 * 2**20  # S3 streams at full speed and a shuffle works shard by shard
TRANSIENT: Final = {"timeout", "killed", "gone"}  # reasons of refusals that another try may mend
MOST_TRIES: Final = 3  # nights that try such files, which may hang a decoder for ever
Moments = tuple[float, ...]  # one number per channel


class Row(NamedTuple):
    pixels: NDArray[np.uint8]  # [side, side, C]
    split: Split
    facts: dict[str, Any]  # a row of nightshift.data.index without its place


def capacity(settings: PreprocessSettings) -> int:
    """How many images fill a shard."""
    return max(1, SHARD_BYTES // (settings.side**2 * settings.channels))


class Filled(NamedTuple):
    """Rows of one split, at most as many as a shard holds. Their pixels are valid until they are released."""

    split: Split
    pixels: NDArray[np.uint8]  # [N,side,side,C]
    facts: list[dict[str, Any]]


class Buffers:
    """Collects rows by split, in memory that is bounded and used again.

    A page of memory that is touched for the first time takes longer than to copy what goes there.
    """

    def __init__(self, settings: PreprocessSettings) -> None:
        self._shape = (capacity(settings), settings.side, settings.side, settings.channels)
        self._free: list[NDArray[np.uint8]] = []

    def fill(self, rows: Iterator[Row]) -> Iterator[Filled]:
        """A collection as soon as it fills a shard; at the end of the rows the others."""
        filling: dict[Split, Filled] = {}
        for pixels, split, facts in rows:
            if split not in filling:
                filling[split] = Filled(split, self._free.pop() if self._free else self._empty(), [])
            filled = filling[split]
            filled.pixels[len(filled.facts)] = pixels
            filled.facts.append(facts)
            if len(filled.facts) == len(filled.pixels):
                yield filling.pop(split)
        for split in SPLITS:
            if split in filling:
                filled = filling[split]
                yield filled._replace(pixels=filled.pixels[: len(filled.facts)])

    def release(self, filled: Filled) -> None:
        """Use its memory again."""
        self._free.append(filled.pixels if filled.pixels.base is None else filled.pixels.base)

    def _empty(self) -> NDArray[np.uint8]:
        return np.empty(self._shape, np.uint8)


def write(folder: str, number: int, filled: Filled) -> Shard:
    """Store a shard: images uint8 [N,side,side,C], labels int64 [N], ids uint8 [N,32], keys in its header."""
    split, pixels, facts = filled
    classes = tuple(sorted({row["label"] for row in facts}))
    position = {name: at for at, name in enumerate(classes)}
    tensors: dict[str, NDArray[Any]] = {
        "labels": np.array([position[row["label"]] for row in facts], np.int64),
        "images": pixels,
        "ids": np.stack([np.frombuffer(row["id"], np.uint8) for row in facts]),
    }
    header = _header(tensors, {"keys": json.dumps([row["key"] for row in facts])})
    pieces = [tensor.reshape(-1).view(np.uint8).data for tensor in tensors.values()]
    mean, mean_square = moments(pixels)
    return Shard(
        file=outputs.write(folder, f"{split}-{number:05d}.safetensors", header, *pieces),
        split=split,
        images=len(facts),
        classes=classes,
        mean=mean,
        mean_square=mean_square,
    )


def found(part: str) -> PartResult | None:
    """The result of a part, by its digest, that is done, whole and as good as it gets.

    What a busy machine or a store that flaps refused is tried again by the next nights that read the part.
    """
    result = outputs.found(_done(part), PartResult, _files)
    if result is None or not _unsure(result):
        return result
    if result.tries < MOST_TRIES:
        print(
            f"part {part[:12]} is tried again: {_unsure(result)} files were refused for what may have passed"
        )
        return None
    print(f"part {part[:12]}: {_unsure(result)} files stay refused after {result.tries} tries")
    return result


def claim(result: PartResult) -> PartResult:
    """Mark a part as done; the result that counts."""
    where = _done(result.part)
    first = outputs.claim(where, result, _files)
    if first == result or not _unsure(first) or first.tries >= MOST_TRIES:
        return first
    later = result.model_copy(update={"tries": first.tries + 1})
    storage.write_record(where, later)
    return later


def _unsure(result: PartResult) -> int:
    """How many files were refused for what another try may mend."""
    return sum(refusal.reason in TRANSIENT for refusal in result.refusals)


def _done(part: str) -> str:
    return storage.join(store_root(), "shards", part, "part.json")


def _files(result: PartResult) -> list[Artifact]:
    return [*(shard.file for shard in result.shards), result.index]


def _header(tensors: dict[str, NDArray[Any]], metadata: dict[str, str]) -> bytes:
    """What a safetensors file has before its tensors; to write them, the library would copy them twice."""
    entries: dict[str, Any] = {"__metadata__": metadata}
    end = 0
    for name, tensor in tensors.items():
        start, end = end, end + tensor.nbytes
        kind = {"uint8": "U8", "int64": "I64"}[tensor.dtype.name]
        entries[name] = {"dtype": kind, "shape": tensor.shape, "data_offsets": (start, end)}
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # so that the tensors are aligned
    return len(text).to_bytes(8, "little") + text


def moments(pixels: NDArray[np.uint8]) -> tuple[Moments, Moments]:
    """Mean and mean square per channel of uint8 [N,H,W,C], on the scale 0 to 1; sums are whole numbers."""
    total, square = np.zeros(pixels.shape[3]), np.zeros(pixels.shape[3])
    for image in pixels:  # each while it is in the processor's cache
        channels = cv2.split(image)  # of one channel, OpenCV takes the sums in half of the time
        total += [cv2.sumElems(channel)[0] for channel in channels]
        square += [cv2.norm(channel, cv2.NORM_L2SQR) for channel in channels]
    count = pixels.size / pixels.shape[3]
    return tuple((total / count / 255).tolist()), tuple((square / count / 255**2).tolist())
