"""What a person points at becomes a batch in the store: a folder of class folders, or a CSV manifest.

`find` describes a batch without reading its files; `ingest` uploads it. Ingesting twice uploads
nothing twice: one listing tells what is there, and equal size and MD5 mean equal. The `_READY` marker is
written last; a batch that changes loses it first, so that no night sees half a change.
"""

import csv
import hashlib
import io
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Final, TypeVar

from tasks import storage
from tasks.errors import InputError
from tasks.records import SPLITS

READY: Final = "_READY"
MANIFEST: Final = "manifest.csv"
COLUMNS: Final = ("path", "label", "split", "group")
UPLOADERS: Final = 16  # threads; they wait for the network, not for a core
LONGEST_NAME: Final = 100
LONGEST_KEY: Final = 800  # bytes; S3 allows 1,024 including what stands before the batch
CLUTTER: Final = ("Thumbs.db", "desktop.ini", "__MACOSX")  # what other systems hide, beside names with a dot

Result = TypeVar("Result")


@dataclass(frozen=True)
class Item:
    """One image file; `key` is relative to its batch."""

    key: str
    label: str
    content: Path | bytes

    @property
    def size(self) -> int:
        return len(self.content) if isinstance(self.content, bytes) else _reading(self.content, _file_size)

    def read(self) -> bytes:
        return self.content if isinstance(self.content, bytes) else _reading(self.content, Path.read_bytes)


@dataclass(frozen=True)
class Batch:
    name: str
    items: tuple[Item, ...]
    manifest: bytes | None = None
    ignored: Mapping[str, int] = field(default_factory=dict)  # why, how many

    @property
    def classes(self) -> dict[str, int]:
        """Number of files in each class."""
        return dict(sorted(Counter(item.label for item in self.items).items()))


@dataclass(frozen=True)
class Ingested:
    """What became of a batch. `others` are objects that the store holds and the source does not."""

    batch: str
    uri: str
    classes: dict[str, int]
    bytes: int
    uploaded: int
    skipped: int
    others: int
    ignored: Mapping[str, int]


def find(path: Path, name: str | None = None) -> Batch:
    """The batch at `path`: a folder of class folders, a CSV manifest, or a folder with a manifest.csv.

    Without `name` the batch is called like the folder, or like the CSV when that is not just manifest.csv:
    the same folder is the same batch, so ingesting again adds what is new. Raises InputError.
    """
    path = path.expanduser().resolve()
    if path.is_dir() and (path / MANIFEST).is_file():
        path = path / MANIFEST
    if path.is_dir():
        return _folder_batch(path, batch_name(name, path.name))
    if path.is_file() and path.suffix.lower() == ".csv":
        stem = path.stem if path.name != MANIFEST else path.parent.name
        return _manifest_batch(path, batch_name(name, stem))
    if path.exists():
        raise InputError(f"{path} is neither a folder of class folders nor a .csv manifest; give one of them")
    raise InputError(f"{path} does not exist; give a folder of class folders or a .csv manifest")


def ingest(batch: Batch, source: str, *, advance: Callable[[int], None] = lambda files: None) -> Ingested:
    """Upload what is not yet there to `<source>/<batch>/`; `advance` is called with the files done.

    Raises InputError when the batch in the store is of the other kind (with or without a manifest),
    OutageError when the store cannot be reached; running again then continues.
    """
    uri = storage.join(source, batch.name)
    there = {stored.key: stored for stored in storage.listing(uri)}
    ours = {item.key for item in batch.items}
    others = there.keys() - ours - {READY, MANIFEST}
    if (MANIFEST in there) != (batch.manifest is not None) and (
        MANIFEST in there or others or ours & there.keys()
    ):
        kind = "a manifest" if MANIFEST in there else "class folders"
        raise InputError(
            f"batch {batch.name!r} in {source} already has {kind}; choose another name with --batch"
        )
    with ThreadPoolExecutor(UPLOADERS) as pool:
        same = list(pool.map(lambda item: _same(item, there.get(item.key)), batch.items))
        todo = [item for item, known in zip(batch.items, same, strict=True) if not known]
        advance(len(batch.items) - len(todo))
        manifest = Item(MANIFEST, "", batch.manifest) if batch.manifest is not None else None
        new_labels = manifest is not None and not _same(manifest, there.get(MANIFEST))
        if (todo or new_labels) and READY in there:
            storage.delete(storage.join(uri, READY))
        for _ in pool.map(lambda item: storage.write(storage.join(uri, item.key), item.read()), todo):
            advance(1)
    if manifest is not None and new_labels:
        storage.write(storage.join(uri, MANIFEST), manifest.read())
    if todo or new_labels or READY not in there:
        storage.write(storage.join(uri, READY), json.dumps({"files": len(ours | others)}).encode())
    return Ingested(
        batch=batch.name,
        uri=uri,
        classes=batch.classes,
        bytes=sum(item.size for item in batch.items),
        uploaded=len(todo),
        skipped=len(batch.items) - len(todo),
        others=len(others),
        ignored=batch.ignored,
    )


def check_name(kind: str, name: str) -> str:
    """`name` when it is safe as a part of a key and a path; InputError says which rule it breaks."""
    rules = {
        "must not be empty": not name.strip(),
        f"must have at most {LONGEST_NAME} characters": len(name) > LONGEST_NAME,
        "must not begin with a dot": name.startswith("."),
        "must not contain '..', a slash or a backslash": any(part in name for part in ("..", "/", "\\")),
        "must not contain control or undecodable characters": not name.isprintable(),
        "must not begin or end with a space": name != name.strip(),
        f"must not be {READY} or {MANIFEST}": name in (READY, MANIFEST),
    }
    if broken := next((rule for rule, is_broken in rules.items() if is_broken), None):
        raise InputError(f"{kind} {broken}, got {name[:LONGEST_NAME]!r}; rename it")
    return name


def batch_name(given: str | None, derived: str) -> str:
    if given is not None:
        return check_name("batch name", given)
    try:
        return check_name("batch name", derived)
    except InputError as error:
        raise InputError(
            f"no batch name can be taken from the path ({error}); give one with --batch"
        ) from error


def _folder_batch(folder: Path, name: str) -> Batch:
    """The class of a file is the first folder of its path."""
    ignored: Counter[str] = Counter()
    items: list[Item] = []
    empty: list[str] = []
    for entry in _visible(folder, sorted(folder.iterdir()), ignored):
        if not entry.is_dir():
            ignored["outside the class folders"] += 1
            continue
        label = check_name("class folder", entry.name)
        files = [Item(_key(path.relative_to(folder)), label, path) for path in _files(entry, ignored)]
        items += files
        if not files:
            empty.append(label)
    if not items:
        found = f"only empty class folders ({', '.join(empty)})" if empty else "no class folders with files"
        raise InputError(f"{folder} holds {found}; it must look like {folder.name}/<class>/<image file>")
    if empty:
        raise InputError(f"class folder {empty[0]!r} of {folder} is empty; fill it or remove it")
    _check_classes({item.label for item in items}, str(folder))
    return Batch(name, tuple(items), ignored=dict(ignored))


def _manifest_batch(path: Path, name: str) -> Batch:
    lines: dict[str, int] = {}
    items: list[Item] = []
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for number, row in _rows(path):
        where = f"{path}, line {number}"
        file = row["path"]
        if not file or PurePosixPath(file).is_absolute() or ".." in PurePosixPath(file).parts:
            raise InputError(
                f"{where}: path must be relative to the manifest and inside its folder, got {file!r}"
            )
        if row["split"] not in ("", *SPLITS):
            raise InputError(
                f"{where}: split must be empty or one of {', '.join(SPLITS)}, got {row['split']!r}"
            )
        label = check_name(f"{where}: label", row["label"])
        key = f"images/{_key(Path(file))}"
        if key in lines:
            raise InputError(
                f"{where}: path {file!r} stands already in line {lines[key]}; keep one of the two"
            )
        if not (path.parent / file).is_file():
            raise InputError(
                f"{where}: {file!r} does not exist in {path.parent}; correct the path or drop the line"
            )
        lines[key] = number
        items.append(Item(key, label, path.parent / file))
        writer.writerow((key, label, row["split"], row["group"]))
    if not items:
        raise InputError(f"{path} has no rows; each names a file: {','.join(COLUMNS)}")
    _check_classes({item.label for item in items}, str(path))
    return Batch(name, tuple(items), manifest=text.getvalue().encode())


def _rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """The manifest's rows with their line numbers; every column is there, absent ones are empty."""
    try:
        reader = csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig"), newline=""), strict=True)
        header = tuple(reader.fieldnames or ())
        if len(set(header)) != len(header) or not {"path", "label"} <= set(header) <= set(COLUMNS):
            raise InputError(
                f"{path}, line 1: columns must be path,label[,split,group], got {','.join(header)!r}"
            )
        for row in reader:
            if None in row or None in row.values():
                raise InputError(
                    f"{path}, line {reader.line_num}: it must have {len(header)} cells like the first line"
                )
            yield reader.line_num, {column: row.get(column, "").strip() for column in COLUMNS}
    except (csv.Error, UnicodeDecodeError, OSError) as error:
        raise InputError(f"{path} is not a readable UTF-8 CSV file ({error}); save it as one") from error


def _files(folder: Path, ignored: Counter[str]) -> Iterator[Path]:
    """All visible files below a folder, sorted; links to folders may be loops: counted, not followed."""
    for entry in _visible(folder, sorted(folder.iterdir()), ignored):
        if entry.is_file():
            yield entry
        elif entry.is_symlink() or not entry.is_dir():
            ignored["links to folders, broken links and devices"] += 1
        else:
            yield from _files(entry, ignored)


def _visible(folder: Path, entries: Iterable[Path], ignored: Counter[str]) -> Iterator[Path]:
    for entry in entries:
        if entry.name.startswith(".") or entry.name in CLUTTER:
            ignored["hidden"] += 1
        else:
            yield entry


def _key(path: Path) -> str:
    key = path.as_posix()
    if not key.isprintable() or "\\" in key:
        raise InputError(f"file name {key!r} has control, undecodable or backslash characters; rename it")
    if len(os.fsencode(key)) > LONGEST_KEY:
        raise InputError(f"path {key[:60]!r}… is longer than {LONGEST_KEY} bytes; shorten it")
    return key


def _check_classes(classes: set[str], where: str) -> None:
    seen: dict[str, str] = {}
    for name in sorted(classes):
        other = seen.setdefault(name.casefold(), name)
        if other != name:
            raise InputError(f"classes {other!r} and {name!r} in {where} differ only in case; make them one")


def _file_size(path: Path) -> int:
    return path.stat().st_size


def _reading(path: Path, how: Callable[[Path], Result]) -> Result:
    try:
        return how(path)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); check that it is still there") from error


def _same(item: Item, stored: storage.Stored | None) -> bool:
    if stored is None or stored.size != item.size:
        return False
    return hashlib.md5(item.read(), usedforsecurity=False).hexdigest() == stored.etag
