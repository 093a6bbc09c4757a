"""Arrays as sources: idx files as MNIST ships, and NumPy's npz. Each image becomes a PNG when it is read, or
a .npy array where it has other channels than grey or RGB.

The arrays stay on disk, unpacked into a temporary file where they are compressed: memory does not grow with
their number. Integer labels become decimal digits. Nothing is unpickled.
"""

import gzip
import io
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any, Final, cast

import numpy as np
from numpy.typing import NDArray

from nightshift.config.clutter import is_clutter
from nightshift.data.labels import SPLIT_WORDS, Label, check_name, spelled, split_named
from nightshift.data.sources import archives
from nightshift.data.sources.allowance import MOST_FILES, Allowance
from nightshift.data.sources.batch import LARGEST_FILE, Batch, Content, Item, in_folders, labelled
from nightshift.errors import InputError
from nightshift.records import Split

IDX_IMAGES: Final = re.compile(r"-images[-.]idx[34]-ubyte(\.gz)?$")
IDX_NAMES: Final = "<name>-images-idx3-ubyte[.gz] and <name>-labels-idx1-ubyte[.gz]"
PAIRS: Final = (("x", "y"), ("X", "y"), ("X", "Y"), ("images", "labels"))
NPZ_NAMES: Final = "x and y, images and labels, or those with a split: x_train and y_train, test_images and …"
MOST_CHANNELS: Final = 32  # as preprocess.channels
MOST_ARRAYS: Final = 100  # of an npz file
LONGEST_LABEL: Final = 1024  # bytes of a text in an array, four for each character
IDX_LABELS: Final = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4"}


@dataclass(frozen=True)
class Encoded:
    """Image `index` of uint8 or uint16 [N,H,W] or [N,H,W,C], as a PNG where that is grey or RGB."""

    images: NDArray[Any] = field(repr=False)
    index: int
    size: None = None
    etag: None = None

    def read(self) -> bytes:
        import cv2

        pixels = np.asarray(self.images[self.index])
        if _suffix(self.images) == ".npy":
            buffer = io.BytesIO()
            np.save(buffer, np.ascontiguousarray(pixels), allow_pickle=False)
            return buffer.getvalue()
        bgr = pixels[..., ::-1] if pixels.ndim == 3 else pixels
        native = np.ascontiguousarray(bgr, dtype=bgr.dtype.newbyteorder("="))
        return bytes(cv2.imencode(".png", native)[1])


@dataclass(frozen=True)
class Labelled:
    """One array with its labels, of one split or of none; `origin` tells it from the source's others."""

    origin: str
    images: NDArray[Any]
    labels: Sequence[str]
    split: Split | None


def is_idx(path: Path) -> bool:
    return IDX_IMAGES.search(path.name) is not None


def idx_in(folder: Path) -> list[Path]:
    """The idx files with images directly in a folder, each once: unpacked rather than packed."""
    found = {
        path.name.removesuffix(".gz"): path
        for path in sorted(folder.iterdir(), reverse=True)
        if is_idx(path) and not is_clutter(path.name)
    }
    return sorted(found.values())


def idx_batch(files: Sequence[Path], name: str, stack: ExitStack) -> Batch:
    """The images of idx files, with the labels that lie beside each. Raises InputError."""
    parts = []
    for path in files:
        stem = IDX_IMAGES.sub("", path.name)
        label_file = _beside(path, stem)
        images = _pixels(_idx(path, stack, {0x08: ">u1"}), str(path))
        labels = _names(_idx(label_file, stack, IDX_LABELS), str(label_file))
        parts.append(_paired(Labelled(stem, images, labels, _split_in(stem)), str(path)))
    return _batch(parts, name, str(files[0].parent), {}, [])


def npz_batch(path: Path, name: str, stack: ExitStack) -> Batch:
    """The images of an npz file. Raises InputError."""
    arrays = _npz(path, stack)
    parts, used, notes = [], set(), []
    for x, y, split in _pairs():
        if x in arrays and y in arrays:
            images = _pixels(arrays[x], f"array {x!r} of {path}")
            labels = _names(arrays[y], f"array {y!r} of {path}")
            parts.append(_paired(Labelled(x, images, labels, split), f"array {x!r} of {path}"))
            used |= {x, y}
            if images.shape[1:] != arrays[x].shape[1:] and arrays[x].shape[-1] != 1:
                notes.append(f"array {x!r}, {list(arrays[x].shape)}, is taken as [N,C,H,W]")
    if not parts:
        raise InputError(f"{path} holds the arrays {', '.join(arrays) or 'none'}; it must hold {NPZ_NAMES}")
    others = sorted(arrays.keys() - used)
    ignored = {f"array {other!r}, whose name is not one of the known pairs": 1 for other in others}
    return _batch(parts, name, str(path), ignored, notes)


def _batch(
    parts: Sequence[Labelled], name: str, where: str, ignored: dict[str, int], notes: list[str]
) -> Batch:
    if not any(part.labels for part in parts):
        raise InputError(f"{where} holds no images")
    for channels in sorted({part.images.shape[3] for part in parts if _suffix(part.images) == ".npy"}):
        notes.append(
            f"images of {channels} channels need preprocess.channels = {channels} in the pipeline file"
        )
    if len(parts) == 1 and parts[0].split is None:
        items = [
            Item(f"{label}/{index:06d}{_suffix(parts[0].images)}", label, Encoded(parts[0].images, index))
            for index, label in enumerate(parts[0].labels)
        ]
        return in_folders(name, items, where, ignored=ignored, notes=notes)
    rows: list[tuple[str, Label, Path | bytes | Content]] = [
        (
            f"{part.origin}/{label}/{index:06d}{_suffix(part.images)}",
            Label(label, part.split),
            Encoded(part.images, index),
        )
        for part in parts
        for index, label in enumerate(part.labels)
    ]
    return labelled(name, rows, where, ignored=ignored, notes=notes)


def _pairs() -> Iterator[tuple[str, str, Split | None]]:
    for x, y in PAIRS:
        yield x, y, None
        for given, split in SPLIT_WORDS.items():
            yield f"{x}_{given}", f"{y}_{given}", split
            yield f"{given}_{x}", f"{given}_{y}", split


def _split_in(stem: str) -> Split | None:
    """`train`, `t10k` and `emnist-letters-test` say their split; other names say none."""
    last = re.split(r"[-_.]", stem)[-1]
    return "test" if last == "t10k" else split_named(last)


def _beside(images: Path, stem: str) -> Path:
    for name in (f"{stem}-labels-idx1-ubyte", f"{stem}-labels.idx1-ubyte"):
        for path in (images.with_name(name), images.with_name(f"{name}.gz")):
            if path.is_file():
                return path
    raise InputError(f"{images} has no labels beside it; two files belong together: {IDX_NAMES}")


def _pixels(array: NDArray[Any], where: str) -> NDArray[Any]:
    """[N,H,W] or [N,H,W,C] of bytes or 16-bit whole numbers, also from [N,C,H,W]. Raises InputError."""
    shape = array.shape
    if array.ndim == 4 and _channels_first(*shape[1:]):
        array = np.moveaxis(array, 1, 3)
    if array.ndim == 4 and array.shape[3] == 1:
        array = array[..., 0]
    if array.ndim not in (3, 4) or 0 in shape[1:] or (array.ndim == 4 and array.shape[3] > MOST_CHANNELS):
        raise InputError(
            f"{where} has the shape {list(shape)}; images must be [N,H,W], [N,H,W,C] or [N,C,H,W] with at "
            f"most {MOST_CHANNELS} channels; move or drop channels"
        )
    if array.dtype.kind != "u" or array.dtype.itemsize > 2:
        raise InputError(f"{where} holds {array.dtype}; pixels must be uint8 or uint16; convert them")
    if len(array) > MOST_FILES or array[:1].nbytes > LARGEST_FILE:
        raise InputError(
            f"{where} has {len(array)} images of {array[:1].nbytes} bytes; at most {MOST_FILES} of "
            f"{LARGEST_FILE} are read; cut it into several"
        )
    return array


def _channels_first(first: int, second: int, third: int) -> bool:
    """Whether images of three axes are [C,H,W], as PyTorch has them: by what is square, or grey, or RGB.

    Where nothing tells, they are [H,W,C].
    """
    if first == second or second != third:
        return first != second and first in (1, 3) and third not in (1, 3)
    return first <= MOST_CHANNELS


def _suffix(images: NDArray[Any]) -> str:
    return ".png" if images.ndim == 3 or images.shape[3] == 3 else ".npy"


def _names(array: NDArray[Any], where: str) -> list[str]:
    """Whole numbers or texts [N] or [N,1] as class names. Raises InputError."""
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1 or array.dtype.kind not in "uiU":
        raise InputError(
            f"{where} is {array.dtype} of shape {list(array.shape)}; labels must be whole numbers or "
            "texts [N]"
        )
    if len(array) > MOST_FILES or array.itemsize > LONGEST_LABEL:
        raise InputError(
            f"{where} has {len(array)} labels of {array.itemsize} bytes; at most {MOST_FILES} of "
            f"{LONGEST_LABEL} are read; cut it into several"
        )
    names = [spelled(str(value)) for value in array.tolist()]
    for name in sorted(set(names)):
        check_name(f"{where}: label", name)
    return names


def _paired(part: Labelled, where: str) -> Labelled:
    if len(part.images) != len(part.labels):
        raise InputError(
            f"{where} has {len(part.images)} images and {len(part.labels)} labels; each image must have one"
        )
    return part


def _idx(path: Path, stack: ExitStack, types: dict[int, str]) -> NDArray[Any]:
    """An idx file: two zero bytes, type, number of dimensions, the dimensions, then the values.

    The format is that of http://yann.lecun.com/exdb/mnist. Raises InputError.
    """
    try:
        if path.suffix == ".gz":
            with gzip.open(path) as packed:
                path = _unpacked(packed, Allowance(path), stack)
        with path.open("rb") as file:
            zero, kind, dimensions = struct.unpack(">HBB", file.read(4))
            shape = struct.unpack(f">{dimensions}I", file.read(4 * dimensions))
    except (struct.error, EOFError, zlib.error, OSError) as error:
        raise InputError(f"{path} is not a readable idx file ({error}); copy it again") from error
    if zero or kind not in types:
        raise InputError(
            f"{path} begins with {zero:04x} and type {kind:#x}; it is no idx file of the kind needed"
        )
    expected = 4 + 4 * dimensions + int(np.prod(shape, dtype=object)) * np.dtype(types[kind]).itemsize
    if path.stat().st_size != expected:
        raise InputError(f"{path} has {path.stat().st_size} bytes, its header says {expected}; copy it again")
    if 0 in shape:
        return np.zeros(shape, types[kind])
    return np.memmap(path, types[kind], "r", offset=4 + 4 * dimensions, shape=shape)


def _npz(path: Path, stack: ExitStack) -> dict[str, NDArray[Any]]:
    arrays, allowance = {}, Allowance(path)
    try:
        with zipfile.ZipFile(path) as pack:
            if len(pack.infolist()) > MOST_ARRAYS:
                raise InputError(f"{path} holds more than {MOST_ARRAYS} arrays; it must hold {NPZ_NAMES}")
            for info in pack.infolist():
                if is_clutter(info.filename):
                    continue
                with pack.open(info) as member:
                    file = _unpacked(member, allowance, stack)
                arrays[info.filename.removesuffix(".npy")] = np.load(file, mmap_mode="r", allow_pickle=False)
    except (*archives.DAMAGE, RuntimeError) as error:  # encrypted ones raise that
        raise InputError(
            f"{path} is not a readable npz file without pickled objects ({error}); save it with numpy.savez"
        ) from error
    return arrays


def _unpacked(packed: IO[bytes] | gzip.GzipFile, allowance: Allowance, stack: ExitStack) -> Path:
    """What a compressed file holds, as a temporary file until `stack` is closed. Raises InputError."""
    file = Path(stack.enter_context(TemporaryDirectory(prefix="nightshift-"))) / "array"
    allowance.unpack(cast(IO[bytes], packed), file)
    return file
