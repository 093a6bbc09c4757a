"""What a person points at becomes a batch in the store.

`find` describes a batch: class folders, a CSV or Parquet manifest, a zip or tar archive of these, idx or npz
arrays, a prefix of a store, or a set that torchvision knows. `survey` looks into its files, `ingest` uploads
it.
"""

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Final

from nightshift.data.labels import MANIFESTS, check_name
from nightshift.data.sources import archives, arrays, folders, manifests
from nightshift.data.sources.batch import Batch, Item, batch_name
from nightshift.data.sources.torchvision_datasets import SCHEME, torchvision_batch
from nightshift.data.sources.upload import Ingested, ingest
from nightshift.errors import InputError

__all__ = ["Batch", "Ingested", "Item", "batch_name", "check_name", "find", "ingest"]

ALLOWED: Final = (
    "a folder of class folders, a .csv or .parquet manifest, a zip or tar archive of these, idx or npz "
    "arrays, s3://bucket/prefix or torchvision://NAME"
)


def find(source: Path | str, name: str | None = None) -> Batch:
    """The batch at a path or a URI, described without reading its images. Use it in a `with`: an archive's
    content lies in a temporary folder until then.

    Without `name` the batch is called like the folder, the archive, the set, or the manifest when that is not
    just manifest.csv: the same source is the same batch, so ingesting again adds what is new. Raises
    InputError.
    """
    text = str(source)
    if text.startswith(SCHEME):
        return torchvision_batch(text, name)
    if text.startswith("s3://"):
        return _in_store(text.rstrip("/"), name)
    if "://" in text and not text.startswith("file:///"):
        raise InputError(f"{text} has an address of no known kind; give {ALLOWED}")
    path = Path(text.removeprefix("file://")).expanduser().resolve()
    try:
        if not path.exists():
            raise InputError(f"{path} does not exist; give {ALLOWED}")
        with ExitStack() as stack:
            batch = _in_folder(path, name, stack) if path.is_dir() else _in_file(path, name, stack)
            return replace(batch, unpacked=stack.pop_all())
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); check its rights") from error


def _in_folder(path: Path, name: str | None, stack: ExitStack) -> Batch:
    name = batch_name(name, path.name)
    if files := arrays.idx_in(path):
        return arrays.idx_batch(files, name, stack)
    return _in_tree(folders.local(path), name)


def _in_file(path: Path, name: str | None, stack: ExitStack) -> Batch:
    if path.name in MANIFESTS:
        return manifests.file_batch(path, batch_name(name, path.parent.name))
    if path.suffix.lower() in (".csv", ".parquet"):
        return manifests.file_batch(path, batch_name(name, path.stem))
    if archives.is_archive(path.name):
        name = batch_name(name, archives.stem(path.name))
        return _in_tree(folders.unwrapped(archives.unpack(path, stack)), name)
    if path.suffix.lower() == ".npz":
        return arrays.npz_batch(path, batch_name(name, path.stem), stack)
    if arrays.is_idx(path):
        return arrays.idx_batch([path], batch_name(name, path.name.partition("-images")[0]), stack)
    raise InputError(f"{path} is none of what can be ingested; give {ALLOWED}")


def _in_store(uri: str, name: str | None) -> Batch:
    prefix, _, last = uri.rpartition("/")
    if archives.is_archive(last) or last.endswith((".npz", "-ubyte", "-ubyte.gz")):
        raise InputError(f"{uri} is a single file; download it and ingest the copy")
    if not last.endswith((".csv", ".parquet")):
        return _in_tree(folders.stored(uri), batch_name(name, last))
    tree = folders.stored(prefix)
    if last not in tree.files:
        raise InputError(f"{uri} does not exist; give a manifest or a prefix")
    stem = prefix.rpartition("/")[2] if last in MANIFESTS else last.rpartition(".")[0]
    return manifests.tree_batch(tree, last, batch_name(name, stem))


def _in_tree(tree: folders.Tree, name: str) -> Batch:
    manifest = manifests.manifest_in(tree)
    if manifest is not None:
        return manifests.tree_batch(tree, manifest, name)
    return folders.class_batch(tree, name)
