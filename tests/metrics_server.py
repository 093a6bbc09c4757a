"""A StatsD server on loopback that keeps the names of what it was told."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from waiting import patience


class Heard(NamedTuple):
    names: set[str]
    variables: dict[str, str]  # by which Airflow sends there


@contextmanager
def statsd() -> Iterator[Heard]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
        variables = {"STATSD_ON": "True", "STATSD_HOST": "127.0.0.1", "STATSD_PORT": str(port)}
        heard = Heard(set(), {f"AIRFLOW__METRICS__{name}": value for name, value in variables.items()})
        ended = threading.Event()

        def listen() -> None:
            while not ended.is_set():
                for line in server.recv(65536).decode(errors="replace").splitlines():
                    heard.names.add(line.partition(":")[0])

        thread = threading.Thread(target=listen, daemon=True)
        thread.start()
        try:
            yield heard
        finally:
            ended.set()
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
                last.sendto(b"end", ("127.0.0.1", port))
            thread.join(patience(5))
