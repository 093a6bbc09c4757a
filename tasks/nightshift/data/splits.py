"""Folders that name splits: `train/cat/a.png` or `cat/train/a.png`, also below one folder around everything.

What a folder means is decided for a whole source or batch, never for one file: either all folders of one
level are splits, or none is.
"""

from collections.abc import Collection, Iterator
from typing import Final

from nightshift.data.labels import Label, spelled, split_named
from nightshift.records import SplitFolders

FORMS: Final = "<split>/<class>/<image file> or <class>/<split>/<image file>"


def split_folders(folders: Collection[str], paths: Collection[str]) -> SplitFolders | None:
    """How the files of a source, by path, stand in splits; None where its folders are classes.

    `folders` are those at the top, also empty ones.
    """
    alone = [f"{top}/" for top in folders if len(folders) == 1 and not split_named(top)]
    for around in ("", *alone):
        outer = {parts[0] for parts in _folders(paths, around)} | (set() if around else set(folders))
        if (
            outer
            and all(map(split_named, outer))
            and any(len(parts) > 1 for parts in _folders(paths, around))
        ):
            return _seen(SplitFolders(around=around, outer=True, twice=_twice(paths, around)), paths)
    for around in ("", *alone):
        if len(_inner(paths, around)) > 1:
            return _seen(SplitFolders(around=around, outer=False), paths)
    return None


def place(path: str, found: SplitFolders) -> Label | None:
    """Label and split of a file by its folders; None for one outside the folders.

    Its name is empty where the file lies directly in a split, so that nothing says its class.
    """
    parts = path.removeprefix(found.around).split("/")
    if not path.startswith(found.around) or len(parts) < 2:
        return None
    if not found.outer:
        return Label(spelled(parts[0]), split_named(parts[1]))
    rest = parts[2:] if parts[0] in found.twice else parts[1:]
    return Label(spelled(rest[0]) if len(rest) > 1 else "", split_named(parts[0]))


def doubt(paths: Collection[str]) -> str:
    """What is said of folders that are called like splits where the folders are classes; empty if none is."""
    found = sorted({part for parts in _folders(paths, "") for part in parts[:2] if split_named(part)})
    if not found:
        return ""
    names = ", ".join(map(repr, found))
    return f"folders called {names} are not taken as splits: then all must be {FORMS}"


def _folders(paths: Collection[str], around: str) -> Iterator[list[str]]:
    """The folders of each file that lies in any, below `around`."""
    for path in paths:
        if path.startswith(around) and "/" in path[len(around) :]:
            yield path[len(around) :].split("/")[:-1]


def _inner(paths: Collection[str], around: str) -> set[str]:
    """The splits that the second folders name; none where any of them is something else."""
    found = set[str]()
    for parts in _folders(paths, around):
        split = split_named(parts[1]) if len(parts) > 1 else None
        if split is None:
            return set()
        found.add(split)
    return found


def _twice(paths: Collection[str], around: str) -> tuple[str, ...]:
    """Splits that hold nothing but a folder of the same split, as in seg_train/seg_train/street/a.png."""
    below: dict[str, set[str]] = {}
    for parts in _folders(paths, around):
        below.setdefault(parts[0], set()).add(parts[1] if len(parts) > 2 else "")
    return tuple(
        sorted(top for top, names in below.items() if {*map(split_named, names)} == {split_named(top)})
    )


def _seen(found: SplitFolders, paths: Collection[str]) -> SplitFolders:
    labels = (place(path, found) for path in paths)
    named = {label.split for label in labels if label is not None and label.split is not None}
    return found.model_copy(update={"named": tuple(sorted(named))})
