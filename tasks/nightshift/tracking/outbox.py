"""What is on its way to a service that may be away: sent in the background, kept until it has arrived."""

import threading
from collections.abc import Callable, Sequence
from typing import Final, Generic, TypeVar

from nightshift.errors import OutageError

Item = TypeVar("Item")
BATCH: Final = 1000  # items sent at once, MLflow's limit
PAUSE: Final = 2.0  # seconds between two batches


class Outbox(Generic[Item]):
    """Sends items in their order from a thread of its own, so that `add` never waits.

    When `send` raises OutageError the same batch is sent again later, so a batch that arrived though its
    answer was lost must do no harm. Any other error ends the sending and is raised by `close`.
    """

    def __init__(self, send: Callable[[Sequence[Item]], None], *, pause: float = PAUSE) -> None:
        self._send, self._pause = send, pause
        self._waiting: list[Item] = []
        self._closing, self._abandoned = threading.Event(), threading.Event()
        self._outage: OutageError | None = None
        self._refusal: Exception | None = None
        self._thread = threading.Thread(target=self._work, name="journal", daemon=True)
        self._thread.start()

    def add(self, items: Sequence[Item]) -> None:
        self._waiting.extend(items)

    def close(self, seconds: float) -> None:
        """Wait until everything has arrived; OutageError when it has not after `seconds`."""
        self._closing.set()
        self._thread.join(seconds)
        self._abandoned.set()
        if self._refusal:
            raise self._refusal
        if self._waiting:
            raise OutageError(
                f"{len(self._waiting)} values could not be sent within {seconds:g} s; "
                f"{self._outage or 'the service answers too slowly'}"
            )

    def _work(self) -> None:
        while not self._abandoned.is_set():
            closing = self._closing.is_set()  # read before the items, or the last ones could be missed
            batch = self._waiting[:BATCH]
            if closing and not batch:
                return
            if batch and not self._deliver(batch):
                return
            (self._abandoned if self._outage else self._closing).wait(self._pause)

    def _deliver(self, batch: Sequence[Item]) -> bool:
        """Try to send a batch; whether to go on."""
        try:
            self._send(batch)
        except OutageError as error:
            if not self._outage:
                print(f"{error}; meanwhile values wait here", flush=True)
            self._outage = error
        except Exception as error:
            self._refusal = error
            return False
        else:
            del self._waiting[: len(batch)]
            if self._outage:
                print("what had to wait is being sent", flush=True)
            self._outage = None
        return True
