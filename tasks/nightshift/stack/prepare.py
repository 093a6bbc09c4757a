"""What is there before the servers start: folders, ports, secrets, configuration, databases, the bucket."""

import hashlib
import json
import os
from collections.abc import Collection, Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

from nightshift import storage
from nightshift.errors import InputError, NightshiftError, OutageError
from nightshift.hardware import processor
from nightshift.security import signing
from nightshift.stack import (
    environment,
    external_services,
    health,
    mlflow_settings,
    ports,
    postgres,
    private_files,
)
from nightshift.stack.environment import ADMIN, BUCKET, LOOPBACK, Site, run_folder
from nightshift.stack.private_files import write_private
from nightshift.stack.roles import Role, build_roles, postgres_user
from nightshift.stack.supervisor import GONE, Program

FOLDERS = ("run", "logs", "valkey", "s3", f"s3/{BUCKET}", "airflow", "airflow/logs")


def make_home(home: Path) -> Path:
    """The stack's folder, made when missing; private, but passable where PostgreSQL has a user of its own."""
    home = home.expanduser().resolve()
    try:
        home.mkdir(parents=True, exist_ok=True)
        home.chmod(0o711 if postgres_user() else 0o700)
        for name in FOLDERS:
            (home / name).mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"the stack's folder {home} cannot be made ({error.strerror}): "
            "set NIGHTSHIFT_HOME to a folder you may write"
        ) from error
    return home


def make_site(home: Path, *, running: bool, random_ports: bool) -> Site:
    """The stack's place with its ports chosen; those of a running stack are kept as they are.

    Secrets and the key pair that signs models are made at the first start.
    """
    dags = environment.dags_folder()
    secrets, chosen = private_files.ensure_secrets(home), private_files.stored_ports(home)
    signing.ensure_keys(environment.keys_folder(home))
    if not running or chosen is None:
        chosen = ports.choose_ports(chosen, random_ports=random_ports)
        private_files.store_ports(home, chosen)
    own = private_files.stored_own(home) if running else {}
    return Site(home, chosen, secrets, dags, cores(), own)


def take_parts(site: Site, without: Collection[str], roles: Collection[Role]) -> Site:
    """The place with the caller's own servers instead of those that are left out; each is asked once.

    Raises InputError for one that no variable names and OutageError for one that does not answer.
    """
    own = external_services.take(without, [role.name for role in roles], os.environ)
    site = replace(site, own=own)
    for name, variables in own.items():
        if (reason := health.ask_own(name, site)) is not None:
            where = external_services.address(name, variables)
            raise OutageError(
                f"your own {external_services.PARTS[name].title} at {where} does not work ({reason}): "
                f"start it, or correct {', '.join(sorted(variables))}"
            )
    if "s3" in own:
        storage.folders(own["s3"]["NIGHTSHIFT_STORE"])  # the bucket is there and the key fits
    private_files.store_own(site.home, own)
    return site


def find_site(home: Path) -> Site | None:
    """The stack that was started in this folder, as it was started; None when there never was one."""
    chosen, secrets = private_files.stored_ports(home), private_files.stored_secrets(home)
    if chosen is None or secrets is None:
        return None
    return Site(home, chosen, secrets, home, cores(), private_files.stored_own(home))


def cores() -> int:
    """The cores of a stack's stages together: NIGHTSHIFT_THREADS says fewer for a machine with other work."""
    return min(processor.cores(), processor.threads())


def _stamp(home: Path) -> Path:
    return home / "airflow" / "migrated"


def make_roles(site: Site) -> tuple[Role, ...]:
    """The roles; the migration is among them until it was done for the installed Airflow."""
    stamp = _stamp(site.home)
    done = stamp.exists() and stamp.read_text() == _migration(site)
    return build_roles(site, os.environ, migrate=not done)


def _migration(site: Site) -> str:
    """What was migrated: the version, and which database where it is the caller's own."""
    installed = version("apache-airflow-core")
    if "postgres" not in site.own:
        return installed
    return f"{installed} {hashlib.sha256(site.database_url('airflow').encode()).hexdigest()[:16]}"


def role_names(home: Path) -> list[str]:
    """The roles of the stack in this folder, whether they run or not."""
    site = find_site(home)
    return [role.name for role in build_roles(site, {})] if site else []


def note_migrated(site: Site) -> None:
    write_private(_stamp(site.home), _migration(site))


def choose(
    roles: tuple[Role, ...], only: Collection[str], without: Collection[str], also: Collection[str] = ()
) -> tuple[Role, ...]:
    """The roles that were asked for; the migration comes along with Airflow's servers.

    Those that start on request only have to be in `only` or `also`.

    Raises InputError for a name that no role has.
    """
    names = [role.name for role in roles if role.group != "once"]
    if unknown := sorted({*only, *without, *also} - set(names)):
        raise InputError(
            f"there is no role {', '.join(unknown)} in the stack: the roles are {', '.join(names)}"
        )
    usual = [role.name for role in roles if role.group != "once" and not role.on_request]
    wanted = {*(only or usual), *also} - {*without}
    needed = wanted | {
        name for role in roles if role.name in wanted for name in role.after if name == "migrate"
    }
    return tuple(role for role in roles if role.name in needed)


def make_data(site: Site, roles: tuple[Role, ...]) -> None:
    """Write the servers' own configuration files and make PostgreSQL's data folder."""
    valkey = [
        f"bind {LOOPBACK}",
        f"port {site.ports.valkey}",
        f"requirepass {site.secrets.valkey_password}",
        f'dir "{site.home / "valkey"}"',
        "appendonly yes",
        "appendfsync everysec",
        "maxmemory-policy noeviction",
        "daemonize no",
        'logfile ""',
    ]
    write_private(run_folder(site.home) / "valkey.conf", "\n".join(valkey) + "\n")
    write_private(
        site.home / "airflow" / "passwords.json", json.dumps({ADMIN: site.secrets.airflow_password})
    )
    write_private(mlflow_settings.login_file(site.home), mlflow_settings.login_settings(site))
    if any(role.name == "postgres" for role in roles):
        try:
            postgres.prepare(site)
        except OSError as error:
            raise NightshiftError(
                f"PostgreSQL's folder {site.home / 'postgres'} cannot be prepared ({error}): "
                "check who owns it and whether the disk is full"
            ) from error


def stop_order(programs: Mapping[str, Program]) -> list[tuple[list[str], float]]:
    """Which programs to stop together, and how long to wait: workers, then servers, then data stores."""
    data = ("s3", "valkey", "postgres")
    running = [name for name, program in programs.items() if program.state not in GONE]
    workers = [name for name in running if name.startswith("worker")]
    servers = [name for name in running if name not in data and name not in workers]
    stores = [name for name in running if name in data]
    return [
        (names, patience) for names, patience in ((workers, 18.0), (servers, 10.0), (stores, 10.0)) if names
    ]
