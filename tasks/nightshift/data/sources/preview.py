"""What a batch holds, from the first bytes of its files not from their names: counts, sizes, suspects."""

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Final, NamedTuple

import numpy as np

from nightshift.data import images
from nightshift.data.sources.batch import Batch, Item
from nightshift.data.sources.upload import in_order
from nightshift.errors import InputError

EXAMPLES: Final = 5  # of each kind of suspect
PERCENTILES: Final = (0, 5, 50, 95, 100)
DUPLICATE: Final = "exact duplicates of another file"
TWO_LABELS: Final = "the same image under two labels"
CONTRADICTION: Final = "the extension contradicts the content"
CUT: Final = "truncated"  # the word of images.Unreadable
IMPOSSIBLE: Final = "a size that no photo has"
MOST_PIXELS: Final = 10**9
EXTENSIONS: Final[dict[str, str]] = {
    **dict.fromkeys((".jpg", ".jpeg", ".jpe", ".jfif"), "JPEG"),
    **dict.fromkeys((".tif", ".tiff"), "TIFF"),
    **dict.fromkeys((".bmp", ".dib"), "BMP"),
    **dict.fromkeys((".ppm", ".pgm", ".pbm", ".pnm"), "PPM"),
    ".png": "PNG",
    ".webp": "WebP",
    ".gif": "GIF",
    ".avif": "AVIF",
    **dict.fromkeys((".heic", ".heif", ".hif"), "HEIC"),
    ".dcm": "DICOM",
}


@dataclass(frozen=True)
class Class:
    """One class: number of files, their bytes, and how many of them the source gives to each split."""

    files: int
    bytes: int
    splits: Mapping[str, int]


@dataclass
class Suspects:
    """Files with one kind of trouble: how many, and the first of them in words."""

    count: int = 0
    examples: list[str] = field(default_factory=list)

    def add(self, example: str) -> None:
        self.count += 1
        if len(self.examples) < EXAMPLES:
            self.examples.append(example)


@dataclass(frozen=True)
class Survey:
    """Formats by content; `bytes_at` and `pixels_at` are percentiles of a file's bytes and width x height."""

    files: int
    bytes: int
    classes: Mapping[str, Class]
    formats: Mapping[str, int]
    bytes_at: Mapping[int, int]
    pixels_at: Mapping[int, int]
    suspects: Mapping[str, Suspects]


class _Seen(NamedTuple):
    size: int
    digest: bytes
    format: str
    pixels: int | None  # None where the header does not say it
    trouble: str  # empty when there is none
    detail: str


def survey(batch: Batch, *, advance: Callable[[int], None] = lambda files: None) -> Survey:
    """Read every file of a batch once, a few at a time, and decode none; `advance` is called with the files
    done."""
    seen = []
    for each in in_order(_look, batch.items):
        seen.append(each)
        advance(1)
    sizes = [each.size for each in seen]
    return Survey(
        files=len(seen),
        bytes=sum(sizes),
        classes=_classes(batch.items, sizes),
        formats=dict(Counter(each.format for each in seen).most_common()),
        bytes_at=_percentiles(sizes),
        pixels_at=_percentiles([each.pixels for each in seen if each.pixels is not None]),
        suspects=_suspects(batch.items, seen),
    )


def _look(item: Item) -> _Seen:
    try:
        data = item.read()
    except InputError as error:
        return _Seen(0, b"", "(unreadable)", None, "cannot be read", str(error))
    digest = hashlib.sha256(data).digest()
    try:
        header = images.inspect(data)
    except images.UnreadableError as error:
        return _Seen(len(data), digest, f"({error.reason})", None, error.reason, error.detail)
    trouble = detail = ""
    pixels = header.width * header.height
    if min(header.width, header.height) < 1 or pixels > MOST_PIXELS:
        detail = f"{header.format} of {header.width}x{header.height} pixels"
        return _Seen(len(data), digest, header.format, None, IMPOSSIBLE, detail)
    if not header.complete:
        trouble, detail = CUT, f"{header.format} ends early after {len(data)} bytes"
    elif EXTENSIONS.get(PurePosixPath(item.key).suffix.lower(), header.format) != header.format:
        trouble, detail = CONTRADICTION, f"it is {header.format}"
    return _Seen(len(data), digest, header.format, pixels, trouble, detail)


def _classes(items: Sequence[Item], sizes: Sequence[int]) -> dict[str, Class]:
    files = Counter(item.label for item in items)
    total: Counter[str] = Counter()
    splits: dict[str, Counter[str]] = {label: Counter() for label in files}
    for item, size in zip(items, sizes, strict=True):
        total[item.label] += size
        if item.split is not None:
            splits[item.label][item.split] += 1
    return {label: Class(files[label], total[label], splits[label]) for label in sorted(files)}


def _percentiles(values: Sequence[int]) -> dict[int, int]:
    if not values:
        return {}
    found = np.percentile(np.array(values, np.int64), PERCENTILES, method="nearest")
    return {percent: int(value) for percent, value in zip(PERCENTILES, found, strict=True)}


def _suspects(items: Sequence[Item], seen: Sequence[_Seen]) -> dict[str, Suspects]:
    found: dict[str, Suspects] = {}
    first: dict[bytes, Item] = {}
    for item, each in zip(items, seen, strict=True):
        if each.trouble:
            found.setdefault(each.trouble, Suspects()).add(f"{item.key}: {each.detail}")
        if not each.size or not each.digest:
            continue
        other = first.setdefault(each.digest, item)
        if other is not item:
            same = other.label == item.label
            example = f"{item.key} is {other.key}"
            if not same:
                example = f"{item.key} ({item.label}) is {other.key} ({other.label})"
            found.setdefault(DUPLICATE if same else TWO_LABELS, Suspects()).add(example)
    return dict(sorted(found.items()))
