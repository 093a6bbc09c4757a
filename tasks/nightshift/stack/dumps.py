"""The databases of the stack as files, by PostgreSQL's own programs.

A dump is a snapshot: what is written while it is made is not in it, and nobody waits for it.
"""

import subprocess
from pathlib import Path

from nightshift.errors import NightshiftError
from nightshift.stack.environment import LOOPBACK, Site
from nightshift.stack.roles import postgres_binary


def dump(site: Site, database: str, file: Path) -> None:
    """Write a database, compressed. Raises NightshiftError with what PostgreSQL says."""
    options = ("--format=custom", "--no-owner", "--no-privileges", f"--file={file}")
    _run(site, "pg_dump", database, *options)


def load(site: Site, database: str, file: Path) -> None:
    """Fill an empty database, wholly or not at all."""
    options = ("--no-owner", "--no-privileges", "--exit-on-error", "--single-transaction", str(file))
    _run(site, "pg_restore", database, *options)


def _run(site: Site, program: str, database: str, *options: str) -> None:
    command = (
        *(postgres_binary(site.home, program), f"--host={LOOPBACK}", f"--port={site.ports.postgres}"),
        *("--username=nightshift", f"--dbname={database}", "--no-password", *options),
    )
    # In its environment, which only its owner can read, and not in its command line.
    secret = {"PGPASSWORD": site.secrets.postgres_password}
    done = subprocess.run(command, env=secret, capture_output=True, text=True)
    if done.returncode:
        said = " | ".join(done.stderr.strip().splitlines()[-3:])
        raise NightshiftError(
            f"{program} of the database {database} failed with exit status {done.returncode}: {said}"
        )
