"""A pool of processes that decode, so that a decoder's crash, hang or memory bomb costs one image.

    with Decoders(see, settings, processes=2) as decoders:
        for result in decoders.map(files):  # bytes in, Seen or Unreadable out, in order
            ...

Images travel in chunks. When a chunk's process dies or takes too long, its images are sent again one by one,
and only the guilty one is refused. Files go and pixels come back through memory that all share: a pipe takes
longer than decoding a small photo. The processes are fresh interpreters that import neither torch nor mlflow,
have a limit on memory while they decode, leave no core files, and die with their parent.
"""

import ctypes
import itertools
import os
import pickle
import resource
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from types import TracebackType
from typing import Any, Final, Generic, NamedTuple, Self, TypeVar

import cv2
import psutil
from pebble import ProcessExpired, ProcessFuture, ProcessPool

from nightshift import runner
from nightshift.config import PreprocessSettings
from nightshift.data.formats import UnreadableError
from nightshift.data.image_stats import Features, features
from nightshift.data.images import load
from nightshift.data.transforms import Pixels
from nightshift.errors import StageError

CHUNK_IMAGES: Final = 32
CHUNK_BYTES: Final = 8 * 2**20  # of files sent or of pixels sent back
AHEAD: Final = 3  # chunks in flight per process: one at work, one waiting, one coming back
START_SECONDS: Final = 120
LOOK_SECONDS: Final = 1
RESTARTS: Final = 10
SPAWN: Final = get_context("spawn")  # fresh interpreters


class Decoded(NamedTuple):
    """An image as a shard keeps it, and what is known about it."""

    pixels: Pixels  # uint8 [side,side,C]
    format: str
    width: int  # of the file's image, upright, in pixels
    height: int
    features: Features


Seeing = TypeVar("Seeing")
Look = Callable[[bytes, PreprocessSettings], Seeing]
BufferView = Callable[
    [memoryview], bytes | bytearray | memoryview
]  # what is left of a piece of shared memory


class Chunk(NamedTuple):
    files: list[bytes]
    pool: ProcessPool
    future: ProcessFuture  # of Packed, a list with one result per file
    slot: int | None  # of the shared memory, where its files lie and its results come back


class Slot(NamedTuple):
    """A piece of the shared memory, in bytes."""

    start: int
    size: int


class Packed(NamedTuple):
    """A pickled list whose buffers, of `sizes` in bytes, lie one after another in a room of the memory."""

    frame: bytes
    sizes: list[int]


def decode_for_shard(data: bytes, settings: PreprocessSettings) -> Decoded:
    """Decode one image here, in this process. Raises Unreadable."""
    pixels, kind, width, height = load(data, settings)
    return Decoded(pixels, kind, width, height, features(pixels))


class DecoderPool(Generic[Seeing]):
    """The pool, to be entered in a thread that outlives it: Linux ends its processes with that thread.

    Raises StageError when its processes do not start, or keep dying without an image to blame.
    """

    def __init__(
        self, look: Look[Seeing], settings: PreprocessSettings, *, processes: int = 1, borrow: bool = False
    ) -> None:
        """`look` is what is done with each file; a function of a module, since it runs elsewhere.

        With `borrow`, a result's arrays stay in shared memory and hold until the next result is asked for:
        who copies them at once anyway saves the other copy.
        """
        self._settings = settings
        self._look = look
        self._processes = processes
        self._kept: BufferView = memoryview if borrow else bytearray
        self._images = max(1, min(CHUNK_IMAGES, CHUNK_BYTES // (settings.channels * settings.side**2)))
        self._restarts = 0
        self._slot_bytes = max(CHUNK_BYTES, settings.channels * settings.side**2)
        # A slot whose process ended out of turn is never used again: somebody might still write there.
        self._free = deque(range(AHEAD * processes))
        # It has no name, so nothing of it is left when this process is killed.
        self._memory = SPAWN.RawArray(ctypes.c_uint8, len(self._free) * self._slot_bytes)
        self._view = memoryview(self._memory).cast("B")

    def __enter__(self) -> Self:
        self._pool = self._started()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.stop()
        self._pool.join()

    def map(self, files: Iterable[bytes]) -> Iterator[Seeing | UnreadableError]:
        """One result per file, in order. Files are taken a few chunks ahead, so memory is bounded."""
        flying: deque[Chunk] = deque()
        try:
            for files_of_chunk in self._chunks(files):
                flying.append(self._send(files_of_chunk))
                if len(flying) == AHEAD * self._processes:
                    yield from self._collect(flying.popleft())
            while flying:
                yield from self._collect(flying.popleft())
        finally:  # when the caller stops early, what is left is not worth finishing
            for chunk in flying:
                chunk.future.cancel()

    def one(self, data: bytes, settings: PreprocessSettings) -> Seeing | UnreadableError:
        """The result of one file, by settings of its own: an endpoint's model changes while it answers."""
        self._settings = settings
        (result,) = self.map([data])
        return result

    def _chunks(self, files: Iterable[bytes]) -> Iterator[list[bytes]]:
        chunk: list[bytes] = []
        size = 0
        for data in files:
            if chunk and (len(chunk) == self._images or size + len(data) > CHUNK_BYTES):
                yield chunk
                chunk, size = [], 0
            chunk.append(data)
            size += len(data)
        if chunk:
            yield chunk

    def _started(self) -> ProcessPool:
        pool = ProcessPool(
            max_workers=self._processes,
            initializer=_start,
            initargs=(os.getpid(), self._memory),
            context=SPAWN,
        )
        try:
            pool.schedule(os.getpid).result(START_SECONDS)
        except (BrokenProcessPool, ProcessExpired, TimeoutError) as error:
            pool.stop()
            pool.join()
            raise StageError(f"the decoders' processes do not start: {error or 'no answer'}") from error
        return pool

    def _restart(self) -> None:
        """pebble gives its pool up when a process dies between two tasks; that is no image's fault."""
        self._restarts += 1
        if self._restarts > RESTARTS:
            raise StageError(f"the decoders' processes died {self._restarts} times between two images")
        self._pool.stop()
        self._pool.join()
        self._pool = self._started()

    def _send(self, files: list[bytes]) -> Chunk:
        slot = self._free.popleft() if self._free else None
        room = self._room(slot)
        sent = _packed([pickle.PickleBuffer(data) for data in files], self._view, room)
        # A chunk has the time of one image: one that needs longer is looked into image by image.
        work = {"args": (sent, self._settings, self._look, room), "timeout": self._settings.decode_seconds}
        try:
            future = self._pool.schedule(_see_all, **work)
        except RuntimeError:  # it broke since the last chunk
            self._restart()
            future = self._pool.schedule(_see_all, **work)
        return Chunk(files, self._pool, future, slot)

    def _room(self, slot: int | None) -> Slot:
        return Slot(0, 0) if slot is None else Slot(slot * self._slot_bytes, self._slot_bytes)

    def _results(self, packed: Packed, slot: int | None) -> Iterator[Seeing | UnreadableError]:
        """The results in the slot, which is free again after the last one."""
        try:
            yield from _unpacked(packed, self._view, self._room(slot), self._kept)
        finally:
            if slot is not None:
                self._free.append(slot)

    def _collect(self, chunk: Chunk) -> Iterator[Seeing | UnreadableError]:
        try:
            while not wait([chunk.future], timeout=LOOK_SECONDS).done:
                if not chunk.pool.active:  # what was not yet on its way when it broke gets no answer
                    raise BrokenProcessPool
            yield from self._results(chunk.future.result(), chunk.slot)
        except BrokenProcessPool:
            if chunk.pool is self._pool:
                self._restart()
            yield from self._collect(self._send(chunk.files))
        except (ProcessExpired, TimeoutError) as error:
            if len(chunk.files) == 1:
                yield self._refusal(error)
                return
            for single in [self._send([data]) for data in chunk.files]:
                yield from self._collect(single)

    def _refusal(self, error: Exception) -> UnreadableError:
        if isinstance(error, ProcessExpired):
            code = error.exitcode or 0
            if code == -signal.SIGKILL:
                return UnreadableError("killed", "its decoder was killed, by the kernel where memory ran out")
            how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
            return UnreadableError("crashed", f"its decoder ended with {how}; the file is damaged or hostile")
        return UnreadableError(
            "timeout",
            f"decoding took longer than {self._settings.decode_seconds:g} s; shrink it or raise "
            "preprocess.decode_seconds",
        )


_base = 0  # bytes of address space that a fresh decoder has
_memory = memoryview(bytearray())  # shared with the pool and all its processes


def _start(parent: int, memory: Any) -> None:
    """What each process does first."""
    global _base, _memory
    _memory = memoryview(memory).cast("B")
    os.environ[runner.PARENT] = str(parent)
    runner.die_with_parent()
    cv2.setNumThreads(1)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # C libraries complain about damage there, naming no file
    _base = psutil.Process().memory_info().vms


def _see_all(sent: Packed, settings: PreprocessSettings, look: Look[Seeing], room: Slot) -> Packed:
    """The limit on memory holds while images are decoded, so that messages always come through."""
    files: list[bytes] = _unpacked(sent, _memory, room, bytes)
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = _base + settings.decode_megabytes * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    try:
        results = [_see(data, settings, look) for data in files]
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
    return _packed(results, _memory, room)


def _packed(objects: list[Any], memory: memoryview, room: Slot) -> Packed:
    """The objects, their buffers in the room where they fit."""
    buffers: list[pickle.PickleBuffer] = []
    frame = pickle.dumps(objects, 5, buffer_callback=buffers.append)
    pieces = [buffer.raw() for buffer in buffers]
    if sum(piece.nbytes for piece in pieces) > room.size:
        return Packed(pickle.dumps(objects, 5), [])
    start = room.start
    for piece in pieces:
        memory[start : start + piece.nbytes] = piece
        start += piece.nbytes
    return Packed(frame, [piece.nbytes for piece in pieces])


def _unpacked(packed: Packed, memory: memoryview, room: Slot, kept: BufferView) -> list[Any]:
    """The objects, with what `kept` makes of their buffers in the room."""
    ends = list(itertools.accumulate(packed.sizes, initial=room.start))
    buffers = [kept(memory[start:end]) for start, end in itertools.pairwise(ends)]
    objects: list[Any] = pickle.loads(packed.frame, buffers=buffers)  # noqa: S301 (our own process's)
    return objects


def _see(data: bytes, settings: PreprocessSettings, look: Look[Seeing]) -> Seeing | UnreadableError:
    try:
        return look(data, settings)
    except UnreadableError as refusal:
        return UnreadableError(refusal.reason, refusal.detail)  # without the traceback and what it holds
    except Exception as error:  # what nobody foresaw costs one image too, and is seen by its reason
        return UnreadableError("crashed", f"its decoder raised {error!r:.200}")
