"""What stages made and marked as done by a record: found again only where it is whole, made again otherwise.

A file's name has its digest, so that a worker that was cut off and comes late with other bytes overwrites
nothing; of two records the first stays.
"""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Final, TypeVar

from pydantic import BaseModel, ValidationError

from nightshift import storage
from nightshift.errors import InputError
from nightshift.records import Artifact

Model = TypeVar("Model", bound=BaseModel)
MARKS: Final = ("part.json", "checkpoint.json", "candidate.json")  # records whose presence means done


def write(folder: str, name: str, *pieces: bytes | memoryview) -> Artifact:
    """Store the pieces in the folder under `name` with the beginning of their SHA-256 before its suffix."""
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    stem, dot, suffix = name.partition(".")
    return storage.write(storage.join(folder, f"{stem}-{digest.hexdigest()[:12]}{dot}{suffix}"), *pieces)


def found(uri: str, kind: type[Model], files: Callable[[Model], Iterable[Artifact]]) -> Model | None:
    """The record of what is done, or None where it is not, or not whole any more: then it is made again."""
    try:
        record = storage.read_record(uri, kind)
    except storage.MissingError:
        return None
    except ValidationError as error:
        print(f"made again: {uri} is no {kind.__name__} ({error.error_count()} errors)", flush=True)
        return None
    lacking = missing(files(record))
    if lacking:
        more = f" and {len(lacking) - 1:,} more are" if len(lacking) > 1 else " is"
        print(f"made again: {lacking[0]}{more} not there, or not whole, though {uri} names it", flush=True)
        return None
    return record


def claim(uri: str, record: Model, files: Callable[[Model], Iterable[Artifact]]) -> Model:
    """Mark as done what another may have marked meanwhile, and return the record that counts."""
    first = found(uri, type(record), files)
    if first is None and not storage.create_record(uri, record):
        first = found(uri, type(record), files)  # of one who was quicker, or what lost its files
        if first is None:
            storage.write_record(uri, record)
    return first or record


def missing(files: Iterable[Artifact]) -> list[str]:
    """Addresses of those that are not in the store with their size; one listing for each folder."""
    folders: dict[str, list[Artifact]] = defaultdict(list)
    for file in files:
        folders[file.uri.rpartition("/")[0]].append(file)
    lacking = []
    for folder, wanted in folders.items():
        sizes = {stored.key: stored.size for stored in storage.listing(f"{folder}/", etags=False)}
        lacking += [file.uri for file in wanted if sizes.get(file.uri.rpartition("/")[2]) != file.size]
    return lacking


def read(artifact: Artifact) -> bytes:
    """The bytes of a file that a stage made, checked against its digest.

    Raises InputError. Where it is missing or damaged, the mark beside it is gone then, so that the next
    night makes it again; the mark of what may not be read stays.
    """
    try:
        return storage.read_artifact(artifact)
    except (storage.MissingError, storage.DamagedError) as error:
        folder = artifact.uri.rpartition("/")[0]
        for mark in MARKS:
            storage.delete(storage.join(folder, mark))
        raise InputError(f"{error}; the next night makes it again") from error
