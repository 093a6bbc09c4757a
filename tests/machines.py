"""Machines of a test: a Celery worker with a network, a host name, processes and folders of its own.

Where Linux lets us, each has its own namespaces, in which the folder of the stack is not to be seen;
elsewhere only its own folders and an address of the loopback network. Either way it reaches the stack's
servers through a relay alone, so that it can be cut off.
"""

import asyncio
import contextlib
import ctypes
import fcntl
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
from waiting import patience

from nightshift.stack.environment import LOOPBACK, Site
from nightshift.stack.roles import build_roles

NAMESPACES = ("unshare", "--net", "--uts", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
CLONE_NEWNET, SIOCSIFFLAGS, IFF_UP = 0x40000000, 0x8914, 0x1
# Name of the host, folder to hide (none: the namespaces are missing), address of the broker, the command.
INIT = """
import ctypes, os, socket, sys, time
name, hidden, host, port, *command = sys.argv[1:]
if hidden:
    socket.sethostname(name)
    if ctypes.CDLL(None, use_errno=True).mount(b"none", hidden.encode(), b"tmpfs", 0, None):
        raise OSError(ctypes.get_errno(), "the stack's folder could not be hidden")
while True:
    try:
        socket.create_connection((host, int(port)), timeout=1).close()
        break
    except OSError:
        time.sleep(0.1)
os.execv(command[0], command)
"""


def isolated() -> bool:
    """Whether this process may make namespaces."""
    if shutil.which("unshare") is None:
        return False
    return subprocess.run((*NAMESPACES, "true"), capture_output=True, timeout=patience(20)).returncode == 0


class Machine:
    """One machine with a worker for one queue, which runs a task at a time."""

    def __init__(self, name: str, address: str, site: Site, queue: str, *, apart: bool) -> None:
        self.name = name
        self.folder = Path(tempfile.mkdtemp(prefix=f"ns-{name}-", dir="/tmp"))
        for part in ("airflow", "tmp"):
            (self.folder / part).mkdir()
        shutil.copytree(site.dags, self.folder / "dags")
        self.address = LOOPBACK if apart else address
        ports = [site.ports.airflow, site.ports.mlflow, site.ports.s3, site.ports.valkey]
        broker = (self.address, str(site.ports.valkey))
        worker = (
            sys.executable,
            "-m",
            "airflow",
            "celery",
            "worker",
            "--queues",
            queue,
            "--concurrency",
            "1",
        )
        options = ("--celery-hostname", name, "--skip-serve-logs", "--without-mingle", "--without-gossip")
        init = (sys.executable, "-c", INIT, name, str(site.home) if apart else "", *broker)
        with (self.folder / "worker.log").open("wb") as log:
            self.process = psutil.Popen(
                (*(NAMESPACES if apart else ()), *init, *worker, *options),
                env=self._environment(site),
                cwd=self.folder,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._relay = Relay(self.address, ports, self._first() if apart else None)

    def _first(self) -> int:
        """The number, outside, of the first process inside."""
        while not (children := self.process.children()):
            assert self.process.is_running(), "the machine did not start"
        return children[0].pid

    def _environment(self, site: Site) -> dict[str, str]:
        """A worker's variables, with this machine's folders and ways to the servers."""
        roles = {role.name: role for role in build_roles(site, os.environ)}
        kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
        given = kept | dict(roles["worker-train"].environment)
        own = {"HOME": str(self.folder), "TMPDIR": str(self.folder / "tmp"), "NIGHTSHIFT_THREADS": "1"}
        moved = {
            name: value.replace(str(site.home), str(self.folder)).replace(f"{LOOPBACK}:", f"{self.address}:")
            for name, value in given.items()
        }
        return moved | own

    def stages(self, stage: str) -> Iterator[psutil.Process]:
        """The processes of a stage that run here."""
        for process in self.process.children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                if process.cmdline()[1:4] == ["-m", "nightshift", stage]:
                    yield process

    def logs(self, dag: str, run_id: str, task: str) -> list[Path]:
        """Logs of the task's tries that were made here."""
        folder = self.folder / "airflow" / "logs" / f"dag_id={dag}" / f"run_id={run_id}"
        return sorted(path for path in (folder / f"task_id={task}").rglob("*.log"))

    def lose_power(self) -> None:
        """Nothing is sent any more, not even the end of a connection, and every process is gone."""
        self._relay.freeze()
        everything: list[psutil.Process] = [self.process]
        with contextlib.suppress(psutil.NoSuchProcess):
            everything += self.process.children(recursive=True)
        for process in everything:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(everything, timeout=patience(20))

    def remove(self) -> None:
        """End it, whatever its state, and leave nothing."""
        self.lose_power()
        self._relay.close()
        shutil.rmtree(self.folder, ignore_errors=True)


class Relay:
    """Passes connections on to the same ports of the stack. Listens in the network of `inside`."""

    def __init__(self, address: str, ports: Sequence[int], inside: int | None) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        listening: list[socket.socket] = []
        # A thread of its own, which may go to the other network and need not come back.
        opener = threading.Thread(target=_listen, args=(listening, address, ports, inside))
        opener.start()
        opener.join()
        assert len(listening) == len(ports), "the relay could not listen"
        self._frozen = False
        self._closing = asyncio.Event()
        self._connections: set[asyncio.Task[None]] = set()
        self._servers = [self._do(self._serve(each)) for each in listening]

    def _do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(patience(20))

    async def _serve(self, listening: socket.socket) -> asyncio.Server:
        port = listening.getsockname()[1]

        def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            connection = asyncio.ensure_future(self._pass_on(port, reader, writer))
            self._connections.add(connection)
            connection.add_done_callback(self._connections.discard)

        return await asyncio.start_server(begin, sock=listening)

    async def _pass_on(self, port: int, here: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        ends = [back]
        try:
            there, on = await asyncio.open_connection(LOOPBACK, port)
            ends.append(on)
            await asyncio.gather(_pump(here, on), _pump(there, back))
        except asyncio.CancelledError:
            await self._closing.wait()  # both ends hang until then
        except OSError:
            pass
        finally:
            for end in ends:
                end.transport.abort()

    def freeze(self) -> None:
        """Pass nothing on any more; the servers do not learn that nobody is there."""

        async def stop() -> None:
            for server in self._servers:
                server.close()
            for connection in () if self._frozen else self._connections:
                connection.cancel()

        self._do(stop())
        self._frozen = True

    def close(self) -> None:
        async def stop() -> None:
            self._closing.set()
            await asyncio.gather(*self._connections, return_exceptions=True)

        self._do(stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(patience(20))
        self._loop.close()


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    while data := await source.read(65536):
        sink.write(data)
        await sink.drain()
    if sink.can_write_eof():
        sink.write_eof()


def _listen(found: list[socket.socket], address: str, ports: Sequence[int], inside: int | None) -> None:
    if inside is not None:
        with open(f"/proc/{inside}/ns/net") as network:
            if ctypes.CDLL(None, use_errno=True).setns(network.fileno(), CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "the machine's network could not be entered")
        with socket.socket() as any_socket:
            fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP))
    found += [socket.create_server((address, port)) for port in ports]
