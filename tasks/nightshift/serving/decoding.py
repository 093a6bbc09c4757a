"""Decoders behind the endpoint, guarded as a night's are: processes with limits on memory and time.

A file that crashes, hangs or fills its decoder costs the answer to that file, and the moment until another
process has started. Each of a few threads has one process, so that one file holds up one of them.
"""

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Final, NamedTuple

from nightshift.config import PreprocessSettings
from nightshift.data.decoding.pool import DecoderPool
from nightshift.data.images import UnreadableError, prepare
from nightshift.data.transforms import Pixels
from nightshift.errors import StageError
from nightshift.serving.events import say

PAUSE_SECONDS: Final = 1.0  # until processes that did not start are started again


class File(NamedTuple):
    """What is to be decoded, and who is told: `done` is called in a thread of ours."""

    data: bytes
    settings: PreprocessSettings
    done: Callable[[Pixels | Exception], None]


class Decoding:
    """The threads and their processes, from `start` to `stop`."""

    def __init__(self, threads: int) -> None:
        self._files: SimpleQueue[File | None] = SimpleQueue()
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, name=f"decoder-{number}") for number in range(threads)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def submit(self, file: File) -> None:
        self._files.put(file)

    def stop(self) -> None:
        """Finish what was submitted and end the processes."""
        self._stopping.set()
        for _ in self._threads:
            self._files.put(None)
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while True:
            try:
                with DecoderPool(prepare, PreprocessSettings()) as decoders:
                    while file := self._files.get():
                        self._decode(decoders, file)
                return
            except StageError as error:  # its processes died or did not start, and no file is to blame
                say("decoders_failed", error=str(error))
                if self._stopping.wait(PAUSE_SECONDS):
                    return

    def _decode(self, decoders: DecoderPool[Pixels], file: File) -> None:
        try:
            file.done(decoders.one(file.data, file.settings))
        except StageError as error:
            file.done(error)
            raise
        except Exception as error:  # what nobody foresaw costs one image too
            file.done(UnreadableError("crashed", f"{error!r:.200}"))
