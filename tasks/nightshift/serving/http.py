"""The endpoint's HTTP server, with limits on connections, headers and time."""

import asyncio
from typing import Any, Final

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

STOP_SECONDS: Final = 30  # for the requests that are under way when it is told to stop
HEADER_SECONDS: Final = 10.0  # from a connection's begin or its last answer to the end of headers
IDLE_SECONDS: Final = 5
READ_SECONDS: Final = 30.0  # for the client to go on reading answers
HEADER_BYTES: Final = 16 * 2**10
SPARE: Final = 128  # connections beside those whose images wait: for health, metrics, and who is told to wait


class Connection(H11Protocol):
    """A connection that is closed when headers do not come, answers are not read, or there are too many.

    uvicorn's own limits begin with a request that is complete.
    """

    _deadline: asyncio.TimerHandle | None = None  # for headers
    _unread: asyncio.TimerHandle | None = None  # for answers

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > 2 * (self.limit_concurrency or SPARE):
            transport.abort()  # from half of this on, requests are answered 503
        else:
            self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._unwatch()
        self._read()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unread = self.loop.call_later(READ_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._read()

    def _read(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _watch(self) -> None:
        """Whether the next request's headers are awaited, and since when."""
        if self.transport.is_closing() or not (self.cycle is None or self.cycle.response_complete):
            self._unwatch()
        elif self._deadline is None:
            self._deadline = self.loop.call_later(HEADER_SECONDS, self.transport.abort)

    def _unwatch(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


def server(app: Any, images: int) -> uvicorn.Server:
    """A server for an application in which so many images may wait."""
    config = uvicorn.Config(
        app,
        http=Connection,
        ws="none",
        log_level="error",
        access_log=False,
        limit_concurrency=images + SPARE,
        h11_max_incomplete_event_size=HEADER_BYTES,
        timeout_keep_alive=IDLE_SECONDS,
        timeout_graceful_shutdown=STOP_SECONDS,
    )
    return uvicorn.Server(config)
