"""Free ports for the servers of the stack: the usual ones, or others where those are taken."""

import secrets as entropy
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import asdict
from socket import AF_INET, SO_REUSEADDR, SOCK_STREAM, SOL_SOCKET, socket

from nightshift.errors import NightshiftError
from nightshift.stack.environment import LOOPBACK
from nightshift.stack.private_files import Ports

# Below Linux' range for outgoing connections (32768 and up), so that no client takes a port between choice
# and use.
RANDOM_PORTS = range(20_000, 32_000)


def _listener(candidates: Iterable[int]) -> socket:
    """A socket bound to the first free candidate; bound, so that the next choice differs."""
    for port in candidates:
        probe = socket(AF_INET, SOCK_STREAM)
        probe.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
            probe.listen()
            return probe
        except OSError:
            probe.close()
    raise NightshiftError(
        f"no free TCP port was found on {LOOPBACK}: end some of the servers that listen there"
    )


def choose_ports(wanted: Ports | None, *, random_ports: bool) -> Ports:
    """The wanted ports (stored, else the usual ones) where they are free, others where not."""
    chosen: dict[str, int] = {}
    with ExitStack() as bound:
        for name, port in asdict(wanted or Ports()).items():
            first = [port] if wanted is not None or not random_ports else []
            others = entropy.SystemRandom().sample(RANDOM_PORTS, 50)
            probe = bound.enter_context(_listener([*first, *others]))
            chosen[name] = probe.getsockname()[1]
    return Ports(**chosen)
