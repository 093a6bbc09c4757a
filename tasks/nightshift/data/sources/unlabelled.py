"""Images without labels, as they lie: a file, a folder, an archive, or a prefix of a store."""

from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from nightshift.data.labels import MANIFESTS, READY
from nightshift.data.sources import archives, folders
from nightshift.data.sources.batch import Batch, Item, batch_name, check_key
from nightshift.data.sources.folders import Tree
from nightshift.errors import InputError

KINDS: Final = "an image file, a folder, a zip or tar archive, or s3://bucket/prefix"


def files_of(source: str, stack: ExitStack) -> Tree:
    """The visible files at a path or an address; an archive's lie on disk until `stack` is closed.

    Raises InputError when there are none.
    """
    if source.startswith("s3://"):
        tree = _stored(source)
    elif "://" in source and not source.startswith("file:///"):
        raise InputError(f"{source} has an address of no known kind; give {KINDS}")
    else:
        path = Path(source.removeprefix("file://")).expanduser()
        if path.is_dir():
            tree = folders.local(path)
        elif not path.exists():
            raise InputError(f"{path} does not exist; give {KINDS}")
        elif archives.is_archive(path.name):
            tree = archives.unpack(path, stack)
        else:
            tree = Tree(str(path.parent), {path.name: path})
    if not tree.files:
        kind = "folder" if Path(tree.where).is_dir() else "archive"
        raise InputError(f"{kind} {source} holds no files; give {KINDS} with images")
    return tree


def unlabelled(source: str, name: str | None = None) -> Batch:
    """All files at a path or an address as a batch without labels. Raises InputError."""
    with ExitStack() as stack:
        tree = files_of(source, stack)
        items, ignored = [], Counter(tree.ignored)
        for key, content in tree.files.items():
            if key.rpartition("/")[2] in (READY, *MANIFESTS):
                ignored["markers and manifests"] += 1
            else:
                items.append(Item(check_key(key), "", content))
        if not items:
            raise InputError(f"{source} holds no images; give {KINDS} with images")
        last = source.rstrip("/").rpartition("/")[2]
        derived = archives.stem(last) if archives.is_archive(last) else last.partition(".")[0]
        return Batch(
            batch_name(name, derived),
            tuple(items),
            ignored=ignored,
            notes=tuple(tree.notes),
            unpacked=stack.pop_all(),
        )


def _stored(uri: str) -> Tree:
    """Objects under a prefix, or the one object of that name."""
    parent, _, last = uri.rstrip("/").rpartition("/")
    try:
        return folders.stored(uri)
    except InputError:
        from nightshift import storage

        if not uri.endswith("/") and parent.count("/") > 1 and storage.exists(uri):
            found = next(each for each in storage.listing(parent) if each.key == last)
            return Tree(parent, {last: folders.Stored(uri, found.size, found.etag)})
        raise
