"""A guardian of the tests: a process that ends what they started once they have ended, however that was.

A conftest starts it with `guard`; the process runs this file. It knows processes by number and time of birth:
once a second it records what descends from pytest, and at the end it finds what was forked or went its own
way since by a variable with the name of a folder that is this run's alone. Stacks are taken down in order, by
the links to their folders that tests leave (`noted`). A worker of pytest-xdist that ends is cleared away at
once.
"""

import os
import select
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
from waiting import patience, wait_for

# Names a pytest process's own folder, with links to its stacks and the folders of its workers. Tests take
# NIGHTSHIFT_ variables away from what they start.
STACKS = "TESTED_STACKS"
LOOK_SECONDS = 1.0
GRACE_SECONDS = 0.5  # of patience, for what ends because its parent did
GUARDIAN = pytest.StashKey[subprocess.Popen[bytes]]()
Children = Mapping[int, Sequence[psutil.Process]]


def guard(config: pytest.Config) -> None:
    """Start the guardian when pytest is configured, or tell it of this worker."""
    if hasattr(config, "workerinput"):
        folder = Path(os.environ[STACKS], str(os.getpid()))
        folder.mkdir()
    else:
        folder = Path(tempfile.mkdtemp(prefix="ns-stacks-"))
        command = (sys.executable, __file__, str(os.getpid()), str(folder))
        # In a session of its own, so that it outlives a Ctrl-C.
        config.stash[GUARDIAN] = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        )
    os.environ[STACKS] = str(folder)


def dismiss(config: pytest.Config) -> None:
    """Let the guardian take down what stacks are left at an orderly end; the rest it ends after pytest."""
    guardian = config.stash.get(GUARDIAN, None)
    if guardian is None:
        return
    assert guardian.stdin
    assert guardian.stdout
    with suppress(BrokenPipeError):
        guardian.stdin.write(b"end")
        guardian.stdin.flush()
    select.select([guardian.stdout], [], [], patience(120))
    if guardian.poll() is not None or os.read(guardian.stdout.fileno(), 4) != b"done":
        raise RuntimeError("the guardian ended early or could not take a stack down: read what it said above")


@contextmanager
def noted(home: Path) -> Iterator[None]:
    """Leave a link to a stack's folder, by which the guardian finds it when this process ends in between."""
    link = Path(os.environ[STACKS], uuid.uuid4().hex)
    link.symlink_to(home)
    yield
    link.unlink()


def take_down(home: Path) -> None:
    """Take a stack down and insist that nothing of it lives, then remove its folder."""
    from nightshift.stack import lifecycle, processes  # the guardian needs them at the end, and hardly ever

    session = processes.load(home)
    if session is not None:
        seen = session.seen | frozenset(processes.living(session))
        session = processes.Session(session.leader, session.boot, session.roles, seen)
    lifecycle.down(home)
    left = processes.living(session) if session else {}
    shutil.rmtree(home, ignore_errors=True)
    assert not left, f"still running after down: {list(left.values())}"


def lives(process: psutil.Process) -> bool:
    """Whether it is the same process still; a zombie has ended."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def children() -> Children:
    """Every process that lives now but this one, by the number of its parent."""
    psutil.process_iter.cache_clear()  # it could still have the former owner of a number
    found: dict[int, list[psutil.Process]] = defaultdict(list)
    for process in psutil.process_iter(["ppid", "status"]):
        if process.info["status"] != psutil.STATUS_ZOMBIE and process.pid != os.getpid():
            found[process.info["ppid"]].append(process)
    return found


class Ward:
    """A process of pytest with its folder, and what was seen below it."""

    def __init__(self, process: psutil.Process | None, folder: Path) -> None:
        self.process, self.folder = process, folder  # no process: it had ended before it was looked at
        self.seen: set[psutil.Process] = set()

    def lives(self) -> bool:
        return self.process is not None and lives(self.process)

    def look(self, below: Children) -> None:
        """Record what descends from it, or from what was recorded, and forget what has ended."""
        roots = {self.process, *self.seen} if self.process else self.seen
        living = {process for process in roots if lives(process)}
        waiting = list(living)
        while waiting:
            fresh = [process for process in below.get(waiting.pop().pid, ()) if process not in living]
            living.update(fresh)
            waiting += fresh
        self.seen = living - {self.process}

    def marked(self) -> Iterator[psutil.Process]:
        """What inherited the name of the folder, whatever became of its parents."""
        psutil.process_iter.cache_clear()
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):
                mark = process.environ().get(STACKS)
                if mark and Path(mark).is_relative_to(self.folder) and process.pid != os.getpid():
                    yield process

    def find(self) -> None:
        """Look, and add what was forked since or went its own way."""
        self.look(children())
        self.seen |= {process for process in self.marked() if process != self.process}
        self.look(children())

    def stop(self) -> None:
        """Let nothing of it run any more, so that nothing new begins."""
        self.find()
        stopped: set[psutil.Process] = set()
        while fresh := self.seen - stopped:
            suspend(fresh)
            stopped |= fresh
            self.look(children())

    def end(self) -> None:
        """Kill what does not end on its own, now that the process has."""
        self.find()
        with suppress(AssertionError):
            wait_for(lambda: not any(map(lives, self.seen)), seconds=GRACE_SECONDS)
        self.stop()
        if self.seen:
            say(f"ended what the tests had left: {'; '.join(map(described, self.seen))}")
        for process in self.seen:
            with suppress(psutil.Error):  # it has ended, or its number is another's now
                process.kill()

    def take_stacks_down(self) -> bool:
        """Whether all went down."""
        done = True
        for link in links(self.folder):
            home = link.readlink()
            try:
                take_down(home)
                link.unlink()
            except Exception as error:
                say(f"the stack in {home} could not be taken down: {error!r}")
                done = False
        return done

    def clear_away(self) -> None:
        """Take its stacks down, end all else and remove its folder."""
        self.look(children())
        self.take_stacks_down()
        self.end()
        shutil.rmtree(self.folder, ignore_errors=True)


def links(folder: Path) -> Iterator[Path]:
    """The links in a folder and in the folders in it, none of which is followed."""
    for path in folder.iterdir():
        if path.is_symlink():
            yield path
        elif path.is_dir():
            yield from links(path)


def suspend(processes: Iterable[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.Error):
            process.suspend()


def described(process: psutil.Process) -> str:
    try:
        return f"{process.pid} {' '.join(process.cmdline())[:100]!r}"
    except psutil.Error:
        return str(process.pid)


def say(sentence: str) -> None:
    with suppress(OSError):  # who reads it may have ended as well
        print(f"guardian: {sentence}", file=sys.stderr, flush=True)


def told_to_end(pipe: list[int]) -> bool:
    """Wait a second at most for pytest to say that it ends, or to end."""
    if not select.select(pipe, [], [], LOOK_SECONDS)[0]:
        return False
    told = bool(os.read(pipe[0], 3))
    if not told:
        pipe.clear()  # closed: it has ended, or is about to
    return told


def ended_workers(workers: dict[Path, Ward], controller: Ward) -> Iterator[Ward]:
    """Look once at everything, newly noted workers among it; those that have ended leave `workers`."""
    paths = [path for path in controller.folder.iterdir() if path.is_dir() and not path.is_symlink()]
    below = children()  # after the folders, so that whoever made one and lives is among them
    controller.look(below)
    known = {process.pid: process for process in controller.seen}
    for path in paths:
        if path not in workers:
            workers[path] = Ward(known.get(int(path.name)), path)
        workers[path].look(below)
        if not workers[path].lives():
            yield workers.pop(path)


def parent(pid: int) -> psutil.Process | None:
    """The process with this number while it is this one's parent."""
    with suppress(psutil.NoSuchProcess):
        found = psutil.Process(pid)
        return found if os.getppid() == pid else None
    return None


def main(pytest_pid: int, folder: Path) -> None:
    """Look on until pytest has ended, then clear away what is left of it."""
    controller, workers = Ward(parent(pytest_pid), folder), dict[Path, Ward]()
    pipe = [sys.stdin.fileno()]
    while os.getppid() == pytest_pid:
        if told_to_end(pipe):
            os.write(sys.stdout.fileno(), b"done" if controller.take_stacks_down() else b"left")
        for worker in ended_workers(workers, controller):
            worker.clear_away()
    # Workers outlive a killed controller for some seconds, in which they would start more.
    left = [worker.process for worker in workers.values() if worker.process]
    suspend(left)
    controller.look(children())
    for process in left:
        with suppress(psutil.Error):
            process.kill()
    controller.clear_away()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
