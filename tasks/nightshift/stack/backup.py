"""Keep what a stack knows somewhere else: its databases, its secrets and keys, and the objects of its S3.

A backup is a folder of its own, `<time>` below the address that was given:

    airflow.dump, mlflow.dump   the databases
    private.sealed              secrets and keys, AES-256-GCM
    objects/<sha256>            the objects of the bucket
    manifest.json               what is what, with the SHA-256 of everything; written last

Airflow's database is copied before MLflow's and both before the objects, because a night writes them in the
opposite order: so what one of them names is there, also while nights run.
"""

import base64
import contextlib
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from nightshift import storage
from nightshift.errors import InputError
from nightshift.records import Record
from nightshift.security import encryption
from nightshift.stack import folder_version, lifecycle, postgres, prepare, processes, supervisor
from nightshift.stack.environment import BUCKET, Site
from nightshift.stack.folder_version import State
from nightshift.stack.postgres import DATABASES
from nightshift.stack.roles import postgres_folder
from nightshift.storage.connection import endpoint

FORMAT: Final = 1
MANIFEST: Final = "manifest.json"
PRIVATE: Final = "private.sealed"
SECRETS: Final = ("secrets.json", "ports.json", "keys/*")
REMADE: Final = {"shards", "candidates"}  # folders of the store: the next night makes them again
NEVER: Final = {"backups", "doctor"}
LEDGER: Final = "ledger"
UNFINISHED: Final = re.compile(r"\.[0-9a-f]{8}\.partial$")  # what rclone writes and then renames
COPIES: Final = 4  # at a time, each of them in memory
Say = Callable[[str], None]


class Saved(Record):
    """A file of the backup, or an object by its key."""

    name: str
    sha256: str
    size: int


class Manifest(Record):
    """What is in a backup; `seal` is what only a holder of its key can say of the rest."""

    format: int
    at: str
    state: State
    everything: bool  # what can be made again is there too
    files: tuple[Saved, ...]
    objects: tuple[Saved, ...]
    seal: str = ""

    def sealed(self, key: bytes) -> "Manifest":
        text = self.model_copy(update={"seal": ""}).model_dump_json()
        return self.model_copy(update={"seal": encryption.mark(text.encode(), key)})

    @property
    def size(self) -> int:
        return sum(each.size for each in (*self.files, *self.objects))


def backup(
    home: Path, root: str, key: bytes, *, everything: bool, say: Say = lifecycle.silent
) -> tuple[str, Manifest]:
    """Write a backup below `root` and return its address; the stack may run, with its nights, or not.

    Raises InputError for a stack or a place that cannot be, OutageError when the place is away.
    """
    home = home.expanduser().resolve()
    site = prepare.find_site(home)
    if site is None:
        raise InputError(f"there is no stack in {home} to back up: start one, or set NIGHTSHIFT_HOME to one")
    _check_place(site, root)
    at = datetime.now(UTC)
    uri = storage.join(root, f"{at:%Y-%m-%dT%H%M%SZ}")
    bucket, left_out = home / "s3" / BUCKET, NEVER if everything else NEVER | REMADE
    # Before MLflow's dump, so that no decision is kept about a version that is not.
    decisions = _objects(bucket, uri, lambda kind: kind == LEDGER)
    files = [*_databases(site, uri, say), _private(home, uri, key)]
    objects = [*decisions, *_objects(bucket, uri, lambda kind: kind not in left_out | {LEDGER})]
    size = sum(each.size for each in objects) / 1e6
    say(f"{len(objects):,} objects are kept, {size:,.1f} MB")
    if not objects:
        say("objects in an S3 server of your own are not in this backup: use its versions or its replication")
    manifest = Manifest(
        format=FORMAT,
        at=at.isoformat(timespec="seconds"),
        state=folder_version.read(home) or folder_version.installed(),
        everything=everything,
        files=tuple(files),
        objects=tuple(objects),
    ).sealed(key)
    if uri.startswith("file://"):
        os.sync()
    storage.write_record(storage.join(uri, MANIFEST), manifest)
    return uri, manifest


def _check_place(site: Site, root: str) -> None:
    if root.startswith("s3://") and endpoint().rstrip("/") == site.s3_url:
        raise InputError(
            f"{root} lies in the S3 server of this stack and would be lost with it: set AWS_ENDPOINT_URL_S3 "
            "and the keys of another server, or name a folder"
        )
    if root.startswith("file://") and Path(root.removeprefix("file://")).is_relative_to(site.home):
        raise InputError(f"{root} lies in the stack's own folder and would be lost with it: name another one")


def _databases(site: Site, uri: str, say: Say) -> Iterator[Saved]:
    """The dumps, in the order that keeps them consistent; of a PostgreSQL of its own only."""
    session = processes.load(site.home) if supervisor.connect(site.home) else None
    absent = session is not None and "postgres" not in session.roles
    if absent or not (postgres_folder(site.home) / "complete").exists():
        say("no PostgreSQL runs in this stack, so no database is in this backup: use its server's own")
        return
    with _served(site.home), tempfile.TemporaryDirectory() as folder:
        site = prepare.find_site(site.home) or site  # its ports may be others by now
        for name in DATABASES:
            file = Path(folder, f"{name}.dump")
            postgres.dump(site, name, file)
            kept = storage.write(storage.join(uri, file.name), file.read_bytes())
            say(f"database {name} is kept, {kept.size / 1e6:,.1f} MB")
            yield Saved(name=file.name, sha256=kept.sha256, size=kept.size)


@contextlib.contextmanager
def _served(home: Path) -> Iterator[None]:
    """PostgreSQL runs within the block, as it did before or for this alone."""
    if supervisor.connect(home):
        yield
        return
    lifecycle.up(home, only=["postgres"])
    try:
        yield
    finally:
        lifecycle.down(home)


def _private(home: Path, uri: str, key: bytes) -> Saved:
    """Secrets and keys, sealed."""
    found = [path for pattern in SECRETS for path in sorted(home.glob(pattern)) if path.is_file()]
    content = {
        path.relative_to(home).as_posix(): base64.b64encode(path.read_bytes()).decode() for path in found
    }
    kept = storage.write(storage.join(uri, PRIVATE), encryption.seal(json.dumps(content).encode(), key))
    return Saved(name=PRIVATE, sha256=kept.sha256, size=kept.size)


def _objects(bucket: Path, uri: str, wants: Callable[[str], bool]) -> list[Saved]:
    """Objects of the bucket's folder by what their keys begin with; equal ones are kept once."""
    keys = [each.key for each in storage.listing(f"file://{bucket}", etags=False)]
    wanted = [key for key in keys if wants(key.partition("/")[0]) and not UNFINISHED.search(key)]

    def keep(key: str) -> Saved | None:
        try:
            data = storage.read(f"file://{bucket}/{key}")
        except storage.MissingError:  # it was deleted since
            return None
        sha256 = hashlib.sha256(data).hexdigest()
        storage.write(storage.join(uri, "objects", sha256), data)
        return Saved(name=key, sha256=sha256, size=len(data))

    with ThreadPoolExecutor(COPIES) as pool:
        return [saved for saved in pool.map(keep, wanted) if saved]
