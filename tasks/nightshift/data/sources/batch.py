"""A batch as a source describes it: its images, where their bytes come from, and how they are called."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol, Self

from nightshift.config.clutter import LEFT_BEHIND, is_clutter
from nightshift.data import labels
from nightshift.data.labels import Label, check_name
from nightshift.errors import InputError
from nightshift.records import Split

LONGEST_KEY: Final = 800  # bytes; S3 allows 1,024 including what stands before the batch
LARGEST_FILE: Final = 512 * 2**20  # bytes; some are held in memory at once, and no photo is as large


class Content(Protocol):
    """A file that is fetched or made only when it is asked for, by any thread."""

    @property
    def size(self) -> int | None:
        """Bytes; None where only `read` tells."""
        ...

    @property
    def etag(self) -> str | None:
        """What a store's listing would say of the same bytes; None where only reading tells."""
        ...

    def read(self) -> bytes: ...


@dataclass(frozen=True)
class Item:
    """One image file; `key` is relative to its batch. Without a manifest the class is the first folder."""

    key: str
    label: str
    content: Path | bytes | Content
    split: Split | None = None  # the source's own

    @property
    def size(self) -> int | None:
        """Bytes; None where only `read` tells."""
        if isinstance(self.content, bytes):
            return len(self.content)
        return _file_size(self.content) if isinstance(self.content, Path) else self.content.size

    @property
    def etag(self) -> str | None:
        return None if isinstance(self.content, Path | bytes) else self.content.etag

    def read(self) -> bytes:
        """All bytes. Raises InputError when the file cannot be read or is too large to be an image."""
        size = self.size
        if size is not None and size > LARGEST_FILE:
            raise InputError(
                f"{self.key} has {size} bytes, an image file may have {LARGEST_FILE}; move it out of "
                "the source"
            )
        if isinstance(self.content, Path):
            try:
                return self.content.read_bytes()
            except OSError as error:
                raise _gone(self.content, error) from error
        return self.content if isinstance(self.content, bytes) else self.content.read()


@dataclass(frozen=True)
class Batch:
    """Images under a name. Use it in a `with` where it may come from an archive: leaving removes what was
    unpacked for it, after which its items cannot be read any more."""

    name: str
    items: tuple[Item, ...]
    manifest: bytes | None = None
    ignored: Mapping[str, int] = field(default_factory=dict)  # why, how many
    notes: tuple[str, ...] = ()  # how the source was understood where that is not obvious
    unpacked: ExitStack = field(default_factory=ExitStack, compare=False, repr=False)

    @property
    def classes(self) -> dict[str, int]:
        """Number of files in each class."""
        return dict(sorted(Counter(item.label for item in self.items).items()))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.unpacked.close()


def labelled(
    name: str,
    files: Sequence[tuple[str, Label, Path | bytes | Content]],
    where: str,
    *,
    ignored: Mapping[str, int] | None = None,
    notes: Iterable[str] = (),
) -> Batch:
    """A batch whose labels, splits, groups and metadata travel in a manifest; keys are below `images/`."""
    keyed = [(_check_kept(f"images/{path}"), label, content) for path, label, content in files]
    _check_classes({label.name for _, label, _ in keyed}, where)
    return Batch(
        name,
        tuple(Item(key, label.name, content, label.split) for key, label, content in keyed),
        manifest=labels.write([(key, label) for key, label, _ in keyed]),
        ignored=dict(ignored or {}),
        notes=tuple(notes),
    )


def in_folders(
    name: str, items: Sequence[Item], where: str, *, ignored: Mapping[str, int], notes: Iterable[str] = ()
) -> Batch:
    """A batch whose items lie in class folders."""
    for item in items:
        _check_kept(item.key)
    _check_classes({item.label for item in items}, where)
    return Batch(name, tuple(items), ignored=dict(ignored), notes=tuple(notes))


def batch_name(given: str | None, derived: str) -> str:
    """The name that was given, else the one derived from the path. Raises InputError when it is unsafe."""
    if given is not None:
        return check_name("batch name", given)
    try:
        return check_name("batch name", derived)
    except InputError as error:
        raise InputError(
            f"no batch name can be taken from the path ({error}); give one with --batch"
        ) from error


def check_key(key: str) -> str:
    """`key` when it is safe as a path and as an object's key. Raises InputError."""
    if not key.isprintable() or "\\" in key:
        raise InputError(
            f"file name {key[:LONGEST_KEY]!r} has control, undecodable or backslash characters; rename it"
        )
    if len(key.encode()) > LONGEST_KEY:
        raise InputError(f"path {key[:60]!r}… is longer than {LONGEST_KEY} bytes; shorten it")
    if long := next((part for part in key.split("/") if len(part.encode()) > labels.LONGEST_PART), None):
        raise InputError(
            f"name {long[:60]!r}… in a path has {len(long.encode())} bytes, a name on a disk may have "
            f"{labels.LONGEST_PART}; shorten it"
        )
    return key


def _check_kept(key: str) -> str:
    """`key` when it is safe and a night would see it: what systems leave in a batch is left out there."""
    if is_clutter(key):
        raise InputError(f"path {key!r} is {LEFT_BEHIND}, so that no night would see it; rename it")
    return check_key(key)


def _check_classes(classes: set[str], where: str) -> None:
    if found := labels.look_alike(classes):
        one, other = found
        raise InputError(
            f"classes {one!r} and {other!r} in {where} differ only in case or in zeros before a number; make "
            "them one"
        )


def _file_size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise _gone(path, error) from error


def _gone(path: Path, error: OSError) -> InputError:
    return InputError(f"{path} cannot be read ({error.strerror}); check that it is still there")
