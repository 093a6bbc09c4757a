"""Bring the stack up, tell how it is, take it down; a failed start and `down` leave nothing running."""

import contextlib
import fcntl
import os
import signal
import threading
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType

import psutil

from nightshift.errors import InputError, OutageError
from nightshift.stack import environment, external_services, folder_version, health, prepare, processes
from nightshift.stack import supervisor as supervise
from nightshift.stack.environment import Site, run_folder
from nightshift.stack.processes import Session
from nightshift.stack.roles import Role
from nightshift.stack.startup import InitialWeights
from nightshift.stack.supervisor import Supervisor

Say = Callable[[str], None]


@dataclass(frozen=True)
class RoleStatus:
    """How one role is. `health` is `healthy` or the reason why not; memory is in bytes, uptime in seconds."""

    name: str
    state: str
    health: str
    address: str
    pid: int | None
    uptime: float | None
    memory: int | None
    restarts: int

    @property
    def healthy(self) -> bool:
        return self.health == "healthy"


def silent(_: str) -> None:
    """Say nothing."""


@contextlib.contextmanager
def _alone(home: Path) -> Iterator[None]:
    """Only one `up` at a time works on a folder; the lock ends with its process."""
    with open(run_folder(home) / "up.lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(
                f"another `nightshift up` is at work in {home}: "
                "wait for it, or set NIGHTSHIFT_HOME to another folder"
            ) from error
        yield


@contextlib.contextmanager
def _signals(action: Callable[[int, FrameType | None], None] | signal.Handlers) -> Iterator[None]:
    """Within the block SIGINT, SIGTERM and SIGHUP do this. Only the main thread can decide that."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {
        number: signal.signal(number, action) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _launch(site: Site, names: tuple[str, ...], roles: tuple[Role, ...]) -> Supervisor:
    """Start the supervisor and record it, with signals held back: between the two nobody could find it."""
    configuration = supervise.write_configuration(roles, site.home)
    held: list[int] = []
    with _signals(lambda number, frame: held.append(number)):
        supervisor = supervise.launch(configuration, site.home, environment.inherited(os.environ))
        leader = processes.mark(supervisor.pid())
        processes.store(site.home, Session(leader, processes.boot(), names))
    if held:
        raise KeyboardInterrupt
    return supervisor


def _record(home: Path, names: Collection[str] = ()) -> None:
    """Note every process of the session, so that one that leaves it later is still known."""
    if (session := processes.load(home)) is not None:
        roles = tuple(dict.fromkeys([*session.roles, *names]))
        processes.store(home, replace(session, roles=roles, seen=frozenset(processes.living(session))))


def up(
    home: Path,
    *,
    random_ports: bool = False,
    only: Collection[str] = (),
    without: Collection[str] = (),
    also: Collection[str] = (),
    on_event: Say = silent,
) -> None:
    """Start the stack in this folder, or start what is missing of it, and return when everything is healthy.

    `only`, `without` and `also` name roles; those on request start when `also` names them. Instead of the
    data stores and the MLflow that `without` names, the caller's own are used, until `down`. Raises
    NightshiftError when a server does not come up (then nothing that this call began is left running),
    InputError when something given is wrong.
    """
    home = prepare.make_home(home)
    with _alone(home), _signals(_interrupt):
        folder_version.claim(home)
        supervisor = supervise.connect(home)
        fresh = supervisor is None
        if fresh:
            _sweep(home)
        try:
            site = prepare.make_site(home, running=not fresh, random_ports=random_ports)
            if fresh:
                asked_for = prepare.choose(prepare.make_roles(site), only, without, also)
                site = prepare.take_parts(site, without, asked_for)
            roles = prepare.make_roles(site)
            chosen = prepare.choose(roles, only, {*without, *site.own}, also)
            names = tuple(role.name for role in chosen if role.group != "once")
            prepare.make_data(site, chosen)
            if supervisor is None:
                supervisor = _launch(site, names, roles)
            if InitialWeights(site, supervisor, chosen, on_event).run() == 0:
                on_event("everything is up already")
            _record(home, names)
        except BaseException:
            if fresh:
                down(home)
            raise


def _stop(supervisor: Supervisor, names: Collection[str], patience: float) -> None:
    for name in names:
        supervisor.stop(name)
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        programs = supervisor.programs()
        if all(programs[name].state in supervise.GONE for name in names if name in programs):
            return
        time.sleep(0.1)


def _sweep(home: Path) -> int:
    session = processes.load(home)
    if session is None:
        return 0
    ended = processes.sweep(session)
    processes.forget(home)
    return ended


def down(home: Path, *, on_event: Say = silent) -> bool:
    """Stop everything: workers first, then the servers, then their data stores, then whatever still lives.

    True when something ran. Works with a supervisor that was killed, too: its orphans are known. Running
    tasks get 15 seconds. Ctrl-C is not heard meanwhile.
    """
    home = home.expanduser().resolve()
    with _signals(signal.SIG_IGN):
        supervisor = supervise.connect(home)
        if supervisor is not None:
            _stop_all(home, supervisor, on_event)
        swept = _sweep(home)
        if supervisor is None and swept:
            on_event(f"ended {swept} processes that had lost their supervisor")
        return supervisor is not None or swept > 0


def _stop_all(home: Path, supervisor: Supervisor, say: Say) -> None:
    with contextlib.suppress(OutageError, psutil.NoSuchProcess):
        leader = processes.mark(supervisor.pid())
        if processes.load(home) is None:
            processes.store(home, Session(leader, processes.boot()))
        _record(home)
        for names, patience in prepare.stop_order(supervisor.programs()):
            say(f"stopping {', '.join(names)}")
            _stop(supervisor, names, patience)
        supervisor.shutdown()
        deadline = time.monotonic() + 5
        while processes.find(leader) and time.monotonic() < deadline:
            time.sleep(0.05)


def status(home: Path) -> list[RoleStatus]:
    """How each role of the stack is, in the order they start. Empty when no stack was ever started here."""
    home = home.expanduser().resolve()
    site = prepare.find_site(home)
    if site is None:
        return []
    supervisor, session = supervise.connect(home), processes.load(home)
    programs = supervisor.programs() if supervisor else {}
    counts = supervise.restarts(home)
    wanted = session.roles if session else ()
    found = []
    for role in prepare.make_roles(site):
        if role.name in site.own:
            found.append(_own(role.name, site))
        elif role.group == "once" or (role.name not in wanted and (wanted or role.on_request)):
            continue
        else:
            found.append(_one(role, site, programs.get(role.name), counts.get(role.name, 0)))
    return found


def endpoint(home: Path) -> str | None:
    """The address of the endpoint, when the stack in this folder was started with it."""
    site, session = prepare.find_site(home), processes.load(home)
    return site.serve_url if site and session and "serve" in session.roles else None


def _own(name: str, site: Site) -> RoleStatus:
    """How a server is that is the caller's: it has no process here."""
    reason = health.ask_own(name, site)
    where = external_services.address(name, site.own[name])
    return RoleStatus(name, "your own", reason or "healthy", where, None, None, None, 0)


def _one(role: Role, site: Site, program: supervise.Program | None, restarts: int) -> RoleStatus:
    if program is None or program.state not in supervise.ACTIVE or not program.pid:
        state = program.state.lower() if program else "stopped"
        return RoleStatus(role.name, state, "not running", role.address, None, None, None, restarts)
    reason = health.ask(role.health, site, program.started)
    try:
        memory = processes.memory(psutil.Process(program.pid))
    except psutil.NoSuchProcess:
        memory = 0
    return RoleStatus(
        name=role.name,
        state=program.state.lower(),
        health=reason or "healthy",
        address=role.address,
        pid=program.pid,
        uptime=time.time() - program.started,
        memory=memory,
        restarts=restarts,
    )
