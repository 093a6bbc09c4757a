"""Trees of files - a local folder, a prefix in a store, what an archive held - and their class folders."""

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Final

from nightshift import storage
from nightshift.config.clutter import LEFT_BEHIND, is_clutter
from nightshift.data.labels import READY, check_name, spelled, split_named
from nightshift.data.sources.batch import Batch, Content, Item, check_key, in_folders, labelled
from nightshift.data.splits import FORMS, doubt, place, split_folders
from nightshift.errors import InputError
from nightshift.records import SplitFolders

LINKS: Final = "links to folders, broken links and devices"
OUTSIDE: Final = "outside the class folders"
UNLABELLED: Final = "directly in a split, where nothing says their class"


@dataclass(frozen=True)
class Stored:
    """An object of a store, known from its listing."""

    uri: str
    size: int
    etag: str

    def read(self) -> bytes:
        return storage.read(self.uri)


@dataclass
class Tree:
    """Files by their path below `where`, with slashes and sorted; clutter is counted in `ignored`."""

    where: str
    files: Mapping[str, Path | Content]
    ignored: Counter[str] = field(default_factory=Counter)
    folders: tuple[str, ...] = ()  # at the top, also empty ones
    notes: list[str] = field(default_factory=list)


def local(folder: Path) -> Tree:
    """The visible files below a folder; links to folders may be loops: counted, not followed."""
    ignored: Counter[str] = Counter()
    files = {path.relative_to(folder).as_posix(): path for path in _files(folder, ignored)}
    top = (entry.name for entry in _entries(folder, Counter()) if entry.is_dir() and not entry.is_symlink())
    return Tree(str(folder), files, ignored, tuple(sorted(top)))


def stored(uri: str) -> Tree:
    """The visible objects under a prefix. Raises InputError when there are none, OutageError."""
    found = {
        each.key: Stored(storage.join(uri, each.key), each.size, each.etag) for each in storage.listing(uri)
    }
    if not found:
        raise InputError(f"nothing is stored under {uri}; check the bucket and the prefix")
    return visible(uri, found)


def visible(where: str, found: Mapping[str, Path | Content]) -> Tree:
    """A tree of the files that no system left behind."""
    ignored: Counter[str] = Counter()
    files = {}
    for path in sorted(found):
        if is_clutter(path):
            ignored[LEFT_BEHIND] += 1
        else:
            files[path] = found[path]
    top = {path.partition("/")[0] for path in files if "/" in path}
    return Tree(where, files, ignored, tuple(sorted(top)))


def unwrapped(tree: Tree) -> Tree:
    """Without the folders that stand alone around everything, as archives have them.

    A single folder with files directly in it is a class.
    """
    top = tree.folders[0] if len(tree.folders) == 1 else ""
    inner = {path.removeprefix(f"{top}/"): content for path, content in tree.files.items()}
    if not top or split_named(top) or any("/" not in path for path in tree.files):
        return tree
    if any("/" not in path for path in inner) and not {"manifest.csv", "manifest.parquet"} & inner.keys():
        return tree
    note = f"the folder {top!r} around everything is left out of the names"
    folders = tuple(sorted({path.partition("/")[0] for path in inner if "/" in path}))
    return unwrapped(Tree(tree.where, inner, tree.ignored, folders, [*tree.notes, note]))


def class_batch(tree: Tree, name: str) -> Batch:
    """The class of a file is the first folder of its path, but for folders that are splits.

    Raises InputError.
    """
    if any(path.endswith(f"/{READY}") for path in tree.files):
        raise InputError(f"{tree.where} holds batches, not class folders; point at one of its folders")
    if found := split_folders(tree.folders, tree.files.keys()):
        return _split_batch(tree, name, found)
    ignored = tree.ignored.copy()
    items = []
    for path, content in tree.files.items():
        label, inside, _ = path.partition("/")
        if inside:
            items.append(Item(path, spelled(label), content))
        else:
            ignored[OUTSIDE] += 1
    for folder in tree.folders:
        check_name("class folder", folder)
    classes = {item.label for item in items}
    _check_full(tree, {item.key.partition("/")[0] for item in items}, "<class>/<image file>")
    notes = [*tree.notes, *filter(None, [doubt(tree.files.keys())])]
    if len(classes) == 1 and all(item.key.count("/") > 1 for item in items):
        notes.append(f"there is one class, {items[0].label!r}; point at that folder if the classes are in it")
    return in_folders(name, items, tree.where, ignored=ignored, notes=notes)


def _split_batch(tree: Tree, name: str, found: SplitFolders) -> Batch:
    """`train/cat/a.png` or `cat/train/a.png`: the source's own splits, kept in a manifest."""
    ignored = tree.ignored.copy()
    files, splits = [], {}
    for path, content in tree.files.items():
        label = place(path, found)
        if label is not None:
            splits[path.split("/")[found.around.count("/") + (0 if found.outer else 1)]] = label.split
        if label is not None and label.name:
            check_name("class folder", label.name)
            files.append((path, label, content))
        else:
            ignored[OUTSIDE if label is None else UNLABELLED] += 1
    _check_full(tree, {path.partition("/")[0] for path in tree.files if "/" in path}, FORMS)
    meaning = ", ".join(f"{folder} as {split}" for folder, split in sorted(splits.items()))
    notes = [*tree.notes, f"folders are taken as the source's own splits: {meaning}"]
    if len(only := {label.name for _, label, _ in files}) == 1:
        notes.append(
            f"there is one class, {only.pop()!r}, below the splits; the images must lie in class folders"
        )
    return labelled(name, files, tree.where, ignored=ignored, notes=notes)


def _check_full(tree: Tree, filled: set[str], form: str) -> None:
    empty = [folder for folder in tree.folders if folder not in filled]
    if not filled:
        found = f"only empty class folders ({', '.join(empty)})" if empty else "no class folders with files"
        last = PurePosixPath(tree.where).name
        raise InputError(f"{tree.where} holds {found}; it must look like {last}/{form}")
    if empty:
        raise InputError(f"class folder {empty[0]!r} of {tree.where} is empty; fill it or remove it")


def _files(folder: Path, ignored: Counter[str]) -> Iterator[Path]:
    """All visible files below a folder, sorted in each folder."""
    waiting = [iter(_entries(folder, ignored))]
    while waiting:
        entry = next(waiting[-1], None)
        if entry is None:
            waiting.pop()
        elif entry.is_file():
            yield Path(entry.path)
        elif entry.is_dir(follow_symlinks=False):
            waiting.append(iter(_entries(Path(entry.path), ignored)))
        else:
            ignored[LINKS] += 1


def _entries(folder: Path, ignored: Counter[str]) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        raise InputError(
            f"folder {str(folder)!r} cannot be read ({error.strerror}); check its rights"
        ) from error
    kept = [entry for entry in entries if not is_clutter(entry.name)]
    ignored.update({LEFT_BEHIND: len(entries) - len(kept)} if len(kept) < len(entries) else {})
    return kept


def checked_path(raw: str, where: str) -> str:
    """A path from outside, normalised, when it stays inside its folder. Raises InputError."""
    path = PurePosixPath(raw)
    shown = raw[:200]
    if not path.parts or path.is_absolute() or ".." in path.parts or raw[1:2] == ":":
        raise InputError(
            f"{where} holds {shown!r}, which is absolute or leads out of it; pack it again without"
        )
    return check_key(path.as_posix())
