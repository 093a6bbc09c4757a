"""PostgreSQL's data folder: whom it belongs to, how it is made, which databases are in it.

PostgreSQL refuses to run as root. Started by root it runs as the user `pgserver`, made when missing, which
has to reach both its binaries and its data; nothing else in the stack's folder is readable for that user.
"""

import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path

from tasks.errors import InputError, NightshiftError
from tasks.stack.environment import Site
from tasks.stack.roles import postgres_binary, postgres_user

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


def _first_closed(path: Path) -> Path:
    """The outermost folder on the way to a path that others may not pass."""
    for folder in [*reversed(path.parents), path]:
        if not folder.stat().st_mode & 0o001:
            return folder
    return path


def _reachable(path: Path, user: str, advice: str) -> None:
    test = ["/bin/sh", "-c", 'test -x "$1"', "sh", str(path)]
    if subprocess.run(test, user=user, group=user, extra_groups=[], cwd="/").returncode:
        closed = _first_closed(path)
        raise InputError(
            f"PostgreSQL may not run as root and its user {user} cannot reach {path}, because {closed} has mode "
            f"{closed.stat().st_mode & 0o777:o}: {advice}, or start as another user than root"
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
    _reachable(
        folder, user, "set NIGHTSHIFT_HOME to a folder that other users may pass, such as /var/lib/nightshift"
    )
    _reachable(Path(postgres_binary("postgres")), user, "install Nightshift where other users may read it")


def _create_cluster(data: Path, user: str | None, password: str) -> None:
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
        _check([postgres_binary("initdb"), "-D", str(data), "-U", "nightshift", *options], user, "initdb")


def prepare(site: Site) -> None:
    """Make the data folder with both databases, once. What a broken attempt left behind is made anew.

    Raises InputError when the server's user cannot reach the folder.
    """
    folder, user = site.home / "postgres", postgres_user()
    folder.mkdir(mode=0o700, exist_ok=True)
    if user:
        _claim(folder, user)
    data, complete = folder / "data", folder / "complete"
    if complete.exists():
        return
    if data.exists():
        shutil.rmtree(data)
    _create_cluster(data, user, site.secrets.postgres_password)
    create = "".join(f"CREATE DATABASE {name};\n" for name in DATABASES)
    _check(
        [postgres_binary("postgres"), "--single", "-D", str(data), "postgres"], user, "first start", create
    )
    complete.touch()
    os.sync()
