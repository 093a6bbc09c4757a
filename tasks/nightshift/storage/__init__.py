"""Objects of an S3 server, through obstore. `nightshift.storage` is the way in."""

import contextlib
import hashlib
import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

from pydantic import BaseModel

from nightshift.errors import InputError, OutageError
from nightshift.records import Artifact
from nightshift.storage import multipart as parts
from nightshift.storage import s3
from nightshift.storage.failures import MissingError as MissingError
from nightshift.storage.failures import TooLargeError as TooLargeError
from nightshift.storage.failures import UnsafeKeyError as UnsafeKeyError
from nightshift.storage.failures import unsafe
from nightshift.storage.multipart import Upload as Upload
from nightshift.storage.s3 import Stored as Stored

Model = TypeVar("Model", bound=BaseModel)


class DamagedError(InputError):
    """The bytes of an object are not those that were written."""


PARTIAL: Final = ".partial-"  # what the name of a file begins with until it is whole


def join(uri: str, *parts: str) -> str:
    return "/".join((uri.rstrip("/"), *parts))


def read(uri: str, *, limit: int | None = None) -> bytes:
    """The object's bytes.

    Raises MissingError or, before anything is read, TooLargeError for more than `limit` bytes (both are
    InputErrors), UnsafeKeyError for a key on S3 that no object may have here, and OutageError when the store
    is away.
    """
    path = _local(uri)
    if path is None:
        return s3.read(uri, limit)
    try:
        s3.check_size(uri, path.stat().st_size, limit)
        return path.read_bytes()
    except (FileNotFoundError, IsADirectoryError) as error:
        raise MissingError(f"{uri} does not exist") from error


def write(uri: str, *pieces: bytes | memoryview) -> Artifact:
    """Store the pieces as one object, without joining them in memory, and say what was stored."""
    path = _local(uri)
    if path is None:
        s3.write(uri, pieces)
    else:
        _write_file(path, pieces)
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    return Artifact(uri=uri, sha256=digest.hexdigest(), size=sum(len(piece) for piece in pieces))


def create_record(uri: str, record: BaseModel) -> bool:
    """Write a record where there is none, and say whether there was none; of several writers one is first.

    A server of S3 that does not know `If-None-Match` writes in any case.
    """
    data, path = record.model_dump_json().encode(), _local(uri)
    if path is None:
        return s3.create(uri, data)
    return _write_file(path, (data,), instead=False)


def read_artifact(artifact: Artifact) -> bytes:
    """The artifact's bytes, checked against its digest. Raises MissingError and DamagedError."""
    data = read(artifact.uri)
    digest = hashlib.sha256(data).hexdigest()
    if digest != artifact.sha256:
        raise DamagedError(
            f"{artifact.uri} has SHA-256 {digest}, expected {artifact.sha256}: it was changed or damaged"
        )
    return data


def read_record(uri: str, kind: type[Model]) -> Model:
    return kind.model_validate_json(read(uri))


def write_record(uri: str, record: BaseModel) -> Artifact:
    return write(uri, record.model_dump_json().encode())


def read_json(uri: str) -> Any:
    return json.loads(read(uri))


def exists(uri: str) -> bool:
    path = _local(uri)
    return s3.exists(uri) if path is None else path.is_file()


def listing(uri: str, *, etags: bool = True) -> Iterator[Stored]:
    """All objects under a prefix, in the order of their keys; SeaweedFS goes through them folder by folder.

    What has a folder in common comes together in any case. Without `etags` they may be empty: to have those
    of a local store, every file is read.
    """
    path = _local(uri)
    return s3.listing(uri) if path is None else _walk(path, etags)


def folders(uri: str) -> list[str]:
    """What the keys under a prefix begin with, up to their next slash, sorted; found without listing them."""
    path = _local(uri)
    if path is None:
        return s3.folders(uri)
    return sorted(each.name for each in path.iterdir() if each.is_dir()) if path.is_dir() else []


def broken_off(uri: str) -> Iterator[Stored]:
    """Files under a prefix of a local store that were not written to their end, or not yet; no ETags."""
    path = _local(uri)
    if path is not None:
        for file in path.rglob(f"{PARTIAL}*"):
            with contextlib.suppress(FileNotFoundError):  # it is whole by now
                stat = file.stat()
                yield Stored(file.relative_to(path).as_posix(), stat.st_size, "", stat.st_mtime)


def uploads(uri: str) -> Iterator[Upload]:
    """Uploads in parts under a prefix that are not ended; a local store has none.

    Raises InputError where the server does not know the call.
    """
    return parts.uploads(uri) if _local(uri) is None else iter(())


def begin(uri: str) -> str:
    """Begin an upload in parts on S3; its identity. Raises InputError where the server refuses that."""
    return parts.begin(uri)


def abort(uri: str, upload: str) -> None:
    """Give up an upload in parts and what it takes; one that is ended is no error."""
    parts.abort(uri, upload)


def delete(uri: str) -> None:
    """Remove one object; what is not there is no error."""
    path = _local(uri)
    if path is None:
        s3.delete(uri)
    else:
        path.unlink(missing_ok=True)


def _local(uri: str) -> Path | None:
    """The path of a file:// address, taken literally: like a key on S3 it may hold `%`, `#` and `?`.

    Raises UnsafeKeyError for one that leads upwards: a batch of a bucket can be called `..`.
    """
    if not uri.startswith("file:///"):
        return None
    path = Path(uri.removeprefix("file://"))
    if ".." in path.parts:
        raise unsafe(repr(uri))
    return path


def _write_file(path: Path, pieces: Sequence[bytes | memoryview], *, instead: bool = True) -> bool:
    """Write a file whole or not at all; without `instead` only where there is none, which is answered."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=PARTIAL, delete=False) as file:
            try:
                file.writelines(pieces)
                file.flush()
                return _named(Path(file.name), path, instead)
            except BaseException:
                Path(file.name).unlink(missing_ok=True)
                raise
    except OSError as error:
        raise OutageError(
            f"{path} cannot be written ({error.strerror}); make room on its disk or correct its rights"
        ) from error


def _named(written: Path, path: Path, instead: bool) -> bool:
    """Give a file that is whole its name; False where the name is taken and stays with what is there."""
    if instead:
        written.replace(path)
        return True
    try:
        path.hardlink_to(written)
    except FileExistsError:
        return False
    finally:
        written.unlink()
    return True


def _walk(root: Path, etags: bool) -> Iterator[Stored]:
    files = (path for path in root.rglob("*") if path.is_file() and not path.name.startswith(PARTIAL))
    for key in sorted(
        path.relative_to(root).as_posix() for path in files
    ):  # as S3 sorts: by key, not by folder
        path = root / key
        with contextlib.suppress(FileNotFoundError):  # it was deleted meanwhile
            stat = path.stat()
            etag = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest() if etags else ""
            yield Stored(key, stat.st_size, etag, stat.st_mtime)
