"""Batches whose labels stand in a manifest, CSV or Parquet, beside the images."""

import unicodedata
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from nightshift.config.clutter import LEFT_BEHIND, is_clutter
from nightshift.data import labels
from nightshift.data.labels import MANIFESTS
from nightshift.data.sources.batch import Batch, Content, labelled
from nightshift.data.sources.folders import Tree
from nightshift.errors import InputError

UNNAMED = "not named in the manifest"


def manifest_in(tree: Tree) -> str | None:
    """The manifest at the top of a tree. Raises InputError when there are two."""
    found = [name for name in MANIFESTS if name in tree.files]
    if len(found) > 1:
        raise InputError(f"{tree.where} has both {' and '.join(found)}; keep one of them")
    return found[0] if found else None


def tree_batch(tree: Tree, manifest: str, name: str) -> Batch:
    """The batch of a tree with its manifest; files that no row names are counted as left out."""
    content = tree.files[manifest]
    data = read_manifest(content) if isinstance(content, Path) else content.read()
    others = {labels.composed(path): content for path, content in tree.files.items() if path != manifest}
    batch = _batch(data, f"{tree.where}/{manifest}", others.get, name, tree.ignored, tree.notes)
    unnamed = len(tree.files) - 1 - len(batch.items)
    return replace(batch, ignored={**batch.ignored, UNNAMED: unnamed}) if unnamed else batch


def file_batch(manifest: Path, name: str) -> Batch:
    """The batch of a local manifest; only the files that it names are looked at. Raises InputError."""

    def find(path: str) -> Path | None:
        forms = (path, unicodedata.normalize("NFD", path))  # as macOS writes names
        try:
            return next((file for form in forms if (file := manifest.parent / form).is_file()), None)
        except OSError:  # a name that is longer than any file's
            return None

    return _batch(read_manifest(manifest), str(manifest), find, name, {}, ())


def read_manifest(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); check its rights") from error


def _batch(
    data: bytes,
    where: str,
    find: Callable[[str], Path | Content | None],
    name: str,
    ignored: Mapping[str, int],
    notes: Iterable[str],
) -> Batch:
    folder = where.rpartition("/")[0]
    files: list[tuple[str, labels.Label, Path | Content]] = []
    for row in labels.rows(data, where):
        if is_clutter(row.path):
            raise InputError(
                f"{where}, {row.place}: {row.path!r} is {LEFT_BEHIND}, so that no night would see it; rename "
                "it or drop the line"
            )
        content = find(row.path)
        if content is None:
            raise InputError(
                f"{where}, {row.place}: {row.path!r} does not exist in {folder}; correct the path or "
                "drop the line"
            )
        files.append((row.path, row.label, content))
    return labelled(name, files, where, ignored=ignored, notes=notes)
