"""The stack's processes: found, measured and ended by what they are, never by their name.

The supervisor leads a session of its own, and its servers stay in it, so even after the supervisor was killed
its orphans are known by their session's number, which the kernel does not give away while one of them lives.
PostgreSQL's backends and what a task starts can have other sessions: they are found as descendants, and
recorded beforehand.
"""

import json
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from nightshift.stack.environment import run_folder
from nightshift.stack.private_files import write_private


@dataclass(frozen=True)
class Mark:
    """A process for good: its number can be given to another one later, its birth cannot."""

    pid: int
    birth: float


@dataclass(frozen=True)
class Session:
    """What `up` records: the supervisor, the roles it was told to run, and every process seen under it."""

    leader: Mark
    boot: str
    roles: tuple[str, ...] = ()
    seen: frozenset[Mark] = field(default_factory=frozenset)


def boot() -> str:
    """What differs after the machine was started anew, when all numbers begin again."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return str(round(psutil.boot_time()))


def _birth(pid: int) -> float:
    """When a process began: in ticks since boot where the kernel tells, as a corrected clock moves times."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return float(fields[19])
    except OSError:
        return psutil.Process(pid).create_time()


def mark(pid: int) -> Mark:
    """Raises psutil.NoSuchProcess when it has ended."""
    return Mark(pid, _birth(pid))


def find(known: Mark) -> psutil.Process | None:
    """The marked process while it lives; a zombie has ended."""
    try:
        process = psutil.Process(known.pid)
        same = _birth(known.pid) == known.birth
        return process if same and process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.NoSuchProcess:
        return None


def store(home: Path, session: Session) -> None:
    content = {
        "leader": [session.leader.pid, session.leader.birth],
        "boot": session.boot,
        "roles": session.roles,
        "seen": sorted([one.pid, one.birth] for one in session.seen),
    }
    write_private(run_folder(home) / "session.json", json.dumps(content))


def load(home: Path) -> Session | None:
    """The recorded session, unless the machine was started anew since."""
    try:
        stored = json.loads((run_folder(home) / "session.json").read_text())
        seen = frozenset(Mark(*one) for one in stored["seen"])
        session = Session(Mark(*stored["leader"]), stored["boot"], tuple(stored["roles"]), seen)
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    return session if session.boot == boot() else None


def forget(home: Path) -> None:
    (run_folder(home) / "session.json").unlink(missing_ok=True)


def _ended(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _in_session(leader: Mark) -> list[psutil.Process]:
    if find(leader) is None and not _ended(leader.pid):
        # The number was given to somebody else, which the kernel does only when none of ours is left.
        return []
    members = []
    for pid in psutil.pids():
        try:
            if os.getsid(pid) == leader.pid:
                members.append(psutil.Process(pid))
        except (ProcessLookupError, PermissionError, psutil.NoSuchProcess):
            continue
    return members


def tree(root: psutil.Process) -> list[psutil.Process]:
    """A process and all its descendants that live."""
    try:
        return [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def living(session: Session) -> dict[Mark, psutil.Process]:
    """Every living process of the session: members, those recorded earlier, the descendants of both."""
    roots = [*_in_session(session.leader), *filter(None, map(find, session.seen))]
    found: dict[Mark, psutil.Process] = {}
    for root in roots:
        for process in tree(root):
            try:
                if process.status() != psutil.STATUS_ZOMBIE and process.pid != os.getpid():
                    found[mark(process.pid)] = process
            except psutil.NoSuchProcess:
                continue
    return found


def _signal_all(processes: Iterable[psutil.Process], *, hard: bool) -> None:
    for process in processes:
        try:
            (process.kill if hard else process.terminate)()
        except psutil.NoSuchProcess:
            continue


def sweep(session: Session, patience: float = 3.0) -> int:
    """End whatever lives of the session: asked first, killed after `patience` seconds; returns how many."""
    first = living(session)
    _signal_all(first.values(), hard=False)
    deadline = time.monotonic() + patience
    while (left := living(session)) and time.monotonic() < deadline + 10:
        if time.monotonic() > deadline:
            _signal_all(left.values(), hard=True)
        time.sleep(0.1)
    return len(first)


def memory(root: psutil.Process) -> int:
    """Bytes of a process tree, pages shared by several processes counted once where the kernel tells."""
    total = 0
    for process in tree(root):
        try:
            total += process.memory_full_info().pss
        except (psutil.AccessDenied, AttributeError):
            total += process.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total
