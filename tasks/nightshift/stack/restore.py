"""Make a stack of a backup.

Everything is fetched and checked beside the stack's folder first. Then that takes the folder's place, and the
databases are filled; when that fails, what was there before is put back. The next `nightshift up` brings the
databases to the installed versions.
"""

import base64
import binascii
import hashlib
import hmac
import json
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Final

from nightshift import storage
from nightshift.errors import InputError
from nightshift.security import encryption
from nightshift.stack import folder_version, lifecycle, postgres, prepare, supervisor
from nightshift.stack.backup import COPIES, FORMAT, MANIFEST, PRIVATE, SECRETS, Manifest, Saved, Say
from nightshift.stack.environment import BUCKET, run_folder
from nightshift.stack.postgres import DATABASES
from nightshift.stack.private_files import write_private
from nightshift.stack.roles import postgres_folder

DUMPS: Final = {f"{name}.dump": name for name in DATABASES}


def restore(home: Path, uri: str, key: bytes, *, force: bool, say: Say = lifecycle.silent) -> Manifest:
    """Restore the backup at `uri` into a folder where no stack is; with `force`, the one there is put aside.

    Raises InputError, before anything is touched, for a backup that is not whole, that another key sealed or
    that newer versions made, and for a folder that is in use.
    """
    home = home.expanduser().resolve()
    manifest = read_manifest(uri, key)
    if supervisor.connect(home) is not None:
        raise InputError(f"the stack in {home} runs: run `nightshift down` first")
    if _holds_something(home) and not force:
        raise InputError(
            f"{home} is not empty: set NIGHTSHIFT_HOME to another folder, or give --force, which puts aside "
            "what is there"
        )
    home.parent.mkdir(parents=True, exist_ok=True)
    fetched = Path(tempfile.mkdtemp(prefix=f"{home.name}.restoring-", dir=home.parent))
    try:
        _fetch(manifest, uri, key, fetched)
        say(f"{len(manifest.files) + len(manifest.objects):,} files are fetched and are as they were kept")
        with _replaced(home, say):
            fetched.rename(home)
            _fill(home, manifest, say)
    finally:
        shutil.rmtree(fetched, ignore_errors=True)
    return manifest


def read_manifest(uri: str, key: bytes) -> Manifest:
    """What is in a backup. Raises InputError when it is none, or none that may be restored here."""
    try:
        data = storage.read(storage.join(uri, MANIFEST))
    except storage.MissingError as error:
        known = [name for name in storage.folders(uri) if storage.exists(storage.join(uri, name, MANIFEST))]
        found = f"whole ones are {', '.join(known)} below it" if known else "none is below it either"
        raise InputError(f"{uri} is not a backup that was made to its end; {found}: name one") from error
    try:
        kind = json.loads(data)["format"]
        if isinstance(kind, int) and kind > FORMAT:
            raise InputError(
                f"the backup {uri} has format {kind}, this Nightshift reads formats up to {FORMAT}: "
                "update Nightshift"
            )
        manifest = Manifest.model_validate_json(data)
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{uri}/{MANIFEST} is no manifest of a backup: it was changed or damaged") from error
    folder_version.check(manifest.state, f"the backup {uri}")
    if not hmac.compare_digest(manifest.seal, manifest.sealed(key).seal):
        raise InputError(
            f"the backup {uri} was made with another key, or its manifest was changed: give the key that "
            "it was made with"
        )
    return manifest


def _holds_something(home: Path) -> bool:
    return home.exists() and (not home.is_dir() or any(home.iterdir()))


def _fetch(manifest: Manifest, uri: str, key: bytes, folder: Path) -> None:
    """Write a stack's folder, every file checked against the manifest."""
    (folder / "run").mkdir(mode=0o700)
    for saved in manifest.files:
        data = _checked(storage.join(uri, saved.name), saved)
        if saved.name == PRIVATE:
            _unseal(data, uri, key, folder)
        elif saved.name in DUMPS:
            (folder / "run" / saved.name).write_bytes(data)
    bucket = folder / "s3" / BUCKET
    bucket.mkdir(mode=0o700, parents=True)
    bucket.parent.chmod(0o700)

    def fetch(saved: Saved) -> None:
        path = PurePosixPath(saved.name)
        if path.is_absolute() or ".." in path.parts:
            raise InputError(f"the backup {uri} names an object {saved.name!r} that no bucket can have")
        data = _checked(storage.join(uri, "objects", saved.sha256), saved)
        storage.write(f"file://{bucket}/{saved.name}", data)

    with ThreadPoolExecutor(COPIES) as pool:
        for _ in pool.map(fetch, manifest.objects):
            pass
    folder_version.claim(folder)  # its databases will be of the PostgreSQL that is installed here


def _checked(uri: str, saved: Saved) -> bytes:
    """The bytes that were kept."""
    data = storage.read(uri)
    if hashlib.sha256(data).hexdigest() != saved.sha256:
        raise InputError(f"{uri} is not what was kept, it was changed or damaged: restore another backup")
    return data


def _unseal(data: bytes, uri: str, key: bytes, folder: Path) -> None:
    """Write the secrets and keys."""
    try:
        content = json.loads(encryption.unseal(data, key))
    except InputError as error:
        raise InputError(f"{uri}/{PRIVATE} is not opened: {error}") from error
    for name, text in content.items():
        path = PurePosixPath(name)
        if not any(path.match(pattern) for pattern in SECRETS) or ".." in path.parts or path.is_absolute():
            raise InputError(
                f"{uri}/{PRIVATE} holds a file {name!r} that no stack has: restore another backup"
            )
        (folder / path).parent.mkdir(mode=0o700, exist_ok=True)
        try:
            write_private(folder / path, base64.b64decode(text, validate=True).decode())
        except binascii.Error as error:
            raise InputError(f"{uri}/{PRIVATE} holds a damaged {name}: restore another backup") from error


@contextmanager
def _replaced(home: Path, say: Say) -> Iterator[None]:
    """What is there is put aside for the block, and comes back when that fails."""
    stamp = f"before-{datetime.now(UTC):%Y-%m-%dT%H%M%SZ}"
    aside = {}
    # Where PostgreSQL cannot enter the stack's folder, its data outlive that.
    for place in (home, postgres_folder(home)):
        if _holds_something(place):
            aside[place] = place.with_name(f"{place.name}.{stamp}")
            place.rename(aside[place])
            say(f"what was in {place} is now in {aside[place]}: remove it when it is not needed")
    try:
        yield
    except BaseException:
        lifecycle.down(home)
        for place in (home, postgres_folder(home)):
            shutil.rmtree(place, ignore_errors=True)
        for place, there in aside.items():
            there.rename(place)
        raise


def _fill(home: Path, manifest: Manifest, say: Say) -> None:
    """Fill the databases, with PostgreSQL alone."""
    kept = [saved.name for saved in manifest.files if saved.name in DUMPS]
    if not kept:
        return
    lifecycle.up(home, only=["postgres"])
    try:
        site = prepare.find_site(home)
        for name in kept:
            file = run_folder(home) / name
            if site is not None:
                postgres.load(site, DUMPS[name], file)
            file.unlink()
            say(f"database {DUMPS[name]} is restored")
    finally:
        lifecycle.down(home)
