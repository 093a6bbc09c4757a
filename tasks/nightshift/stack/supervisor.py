"""The process supervisor: its configuration, its start, and what is asked and ordered over its socket.

Each program starts through a one-line shell that reads its environment from a file of its owner, so that no
secret is in a command line or in the supervisor's configuration, and no role sees another one's secrets.
"""

import hashlib
import http.client
import os
import shlex
import socket
import subprocess
import sys
import tempfile
import time
import xmlrpc.client
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nightshift.errors import InputError, NightshiftError, OutageError
from nightshift.stack.environment import run_folder
from nightshift.stack.private_files import write_private
from nightshift.stack.roles import Role

# 107 characters on Linux, 103 on macOS, and the supervisor binds a name with its process number at the end
# first.
LONGEST_SOCKET = 90
# What a killed server left of its process group would hold its port: it ends before the next one begins.
PRELUDE = "; ".join(
    (
        'if read -r before < "$0.pid"; then kill -KILL "-$before"; fi 2>/dev/null',
        'echo $$ > "$0.pid"',
        'set -a; . "$0.env"; set +a',
        'exec "$@"',
    )
)
# The supervisor's own log, which tells how often a role was started again; 200 bytes a start.
LOG_SIZE, LOG_BACKUPS = 1_000_000, 2
ACTIVE = ("RUNNING", "STARTING", "BACKOFF")
GONE = ("STOPPED", "EXITED", "FATAL")


@dataclass(frozen=True)
class Program:
    """What the supervisor knows of one role."""

    name: str
    state: str
    pid: int
    started: float
    exit_status: int


def socket_path(home: Path) -> Path:
    """The supervisor's socket: in the run folder, or where that is too long in a private folder."""
    usual = run_folder(home) / "supervisor.sock"
    if len(os.fsencode(usual)) <= LONGEST_SOCKET:
        return usual
    digest = hashlib.sha256(os.fsencode(home)).hexdigest()[:12]
    return Path(tempfile.gettempdir()) / f"nightshift-{os.geteuid()}-{digest}" / "supervisor.sock"


def _private_folder(folder: Path) -> None:
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise InputError(
            f"{folder} belongs to somebody else or is open to others: remove it, or set TMPDIR elsewhere"
        )


def _section(role: Role, home: Path) -> str:
    command = role.command
    if role.user is None:
        # A user without access to the run folder gets no variables beyond the common ones.
        command = ("/bin/sh", "-c", PRELUDE, str(run_folder(home) / role.name), *command)
    lines = {
        "command": shlex.join(command).replace("%", "%%"),
        "autostart": "false",
        "autorestart": "false" if role.group == "once" else "true",
        "startsecs": "0" if role.group == "once" else "2",
        "startretries": "3",
        "stopsignal": role.stop_signal,
        "stopwaitsecs": str(role.stop_seconds),
        "killasgroup": "true",
        "redirect_stderr": "true",
        "stdout_logfile": str(log_path(home, role.name)).replace("%", "%%"),
        "stdout_logfile_maxbytes": "10MB",
        "stdout_logfile_backups": "2",
    }
    if role.user:
        lines["user"] = role.user
    return f"[program:{role.name}]\n" + "".join(f"{key}={value}\n" for key, value in lines.items())


def write_configuration(roles: Iterable[Role], home: Path) -> Path:
    """Write the supervisor's configuration and each role's environment file."""
    run = run_folder(home)
    head: dict[str, dict[str, object]] = {
        "unix_http_server": {"file": socket_path(home), "chmod": "0700"},
        "supervisord": {
            **{"logfile": run / "supervisord.log", "pidfile": run / "supervisord.pid"},
            **{"logfile_maxbytes": LOG_SIZE, "logfile_backups": LOG_BACKUPS},
            **{"directory": home, "umask": "077", "loglevel": "info", "identifier": "nightshift"},
            **({"user": "root"} if os.geteuid() == 0 else {}),
        },
        "rpcinterface:supervisor": {
            "supervisor.rpcinterface_factory": "supervisor.rpcinterface:make_main_rpcinterface"
        },
    }
    sections = [
        f"[{name}]\n" + "".join(f"{key}={str(value).replace('%', '%%')}\n" for key, value in lines.items())
        for name, lines in head.items()
    ]
    for role in roles:
        sections.append(_section(role, home))
        variables = "".join(f"{name}={shlex.quote(value)}\n" for name, value in role.environment.items())
        write_private(run / f"{role.name}.env", variables)
        (run / f"{role.name}.pid").unlink(missing_ok=True)
    write_private(run / "supervisord.conf", "\n".join(sections))
    return run / "supervisord.conf"


def log_path(home: Path, name: str) -> Path:
    return home / "logs" / f"{name}.log"


def last_lines(path: Path, count: int) -> list[str]:
    """The end of a log, without reading all of it; nothing when it was never written."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, path.stat().st_size - 64_000))
            lines = file.read().decode(errors="replace").splitlines()
    except FileNotFoundError:
        return []
    return lines[max(0, len(lines) - count) :]


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class _UnixTransport(xmlrpc.client.Transport):
    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = str(path)

    def make_connection(self, host: tuple[str, dict[str, str]] | str) -> http.client.HTTPConnection:
        # Kept where the base class looks for what it has to close.
        connection = _UnixConnection(self.path, timeout=30)
        self._connection = host, connection
        return connection


class Supervisor:
    """A running supervisor. Its methods raise OutageError when it no longer answers."""

    def __init__(self, home: Path) -> None:
        self._socket = socket_path(home)

    def _call(self, method: str, *arguments: object) -> Any:
        try:
            with xmlrpc.client.ServerProxy("http://localhost", _UnixTransport(self._socket)) as server:
                return getattr(server.supervisor, method)(*arguments)
        except (OSError, http.client.HTTPException) as error:
            raise OutageError(
                f"the supervisor of the stack does not answer at {self._socket} ({error}): "
                "run `nightshift down`, then `nightshift up`"
            ) from error

    def pid(self) -> int:
        return int(self._call("getPID"))

    def programs(self) -> Mapping[str, Program]:
        return {
            one["name"]: Program(
                one["name"], one["statename"], one["pid"], float(one["start"]), one["exitstatus"]
            )
            for one in self._call("getAllProcessInfo")
        }

    def start(self, name: str) -> None:
        """Start a program unless it runs already."""
        self._order("startProcess", name)

    def stop(self, name: str) -> None:
        """Tell a program to stop, without waiting for it."""
        self._order("stopProcess", name)

    def _order(self, method: str, name: str) -> None:
        try:
            self._call(method, name, False)
        except xmlrpc.client.Fault as fault:
            # ALREADY_STARTED and NOT_RUNNING: somebody else was quicker, and the wish is granted.
            if not fault.faultString.startswith(("ALREADY_STARTED", "NOT_RUNNING")):
                raise NightshiftError(
                    f"the supervisor refused {method} of {name}: {fault.faultString}"
                ) from fault

    def shutdown(self) -> None:
        self._call("shutdown")


def connect(home: Path) -> Supervisor | None:
    """The running supervisor of the stack in this folder, if there is one."""
    supervisor = Supervisor(home)
    try:
        supervisor.pid()
    except OutageError:
        return None
    return supervisor


def launch(configuration: Path, home: Path, environment: Mapping[str, str]) -> Supervisor:
    """Start the supervisor in the background and wait until it answers."""
    _private_folder(socket_path(home).parent)
    for path in _own_logs(home):
        path.unlink(missing_ok=True)
    command = [sys.executable, "-m", "supervisor.supervisord", "-c", str(configuration)]
    done = subprocess.run(command, env=dict(environment), cwd=home, capture_output=True, text=True)
    if done.returncode:
        raise NightshiftError(f"the supervisor did not start: {(done.stderr or done.stdout).strip()}")
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        if (supervisor := connect(home)) is not None:
            return supervisor
        time.sleep(0.05)
    raise NightshiftError(
        f"the supervisor did not answer within 15 s: read {run_folder(home) / 'supervisord.log'}"
    )


def restarts(home: Path) -> dict[str, int]:
    """How often each program was started again since the supervisor began, as far as its logs go back."""
    counts: dict[str, int] = {}
    for path in _own_logs(home):
        try:
            lines = path.read_text(errors="replace").splitlines()
        except FileNotFoundError:
            continue
        for line in lines:
            _, found, rest = line.partition("spawned: '")
            if found:
                name = rest.partition("'")[0]
                counts[name] = counts.get(name, -1) + 1
    return counts


def _own_logs(home: Path) -> list[Path]:
    """The log of the supervisor and what was rotated away of it, whether they are there or not."""
    path = run_folder(home) / "supervisord.log"
    return [path, *(path.with_name(f"{path.name}.{number}") for number in range(1, LOG_BACKUPS + 1))]
