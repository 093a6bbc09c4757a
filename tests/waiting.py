"""Waiting for what other threads and processes do."""

import socket
import time
from collections.abc import Callable


def wait_for(condition: Callable[[], object], what: str = "it to come true", seconds: float = 90) -> None:
    """Asks often at first, then five times a second."""
    deadline, pause = time.monotonic() + seconds, 0.005
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s in vain for {what}"
        time.sleep(pause)
        pause = min(0.2, 1.5 * pause)


def wait_for_port(port: int) -> None:
    """Until something listens there on 127.0.0.1."""

    def listens() -> bool:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            return False
        return True

    wait_for(listens, f"port {port} to be listened at", 30)
