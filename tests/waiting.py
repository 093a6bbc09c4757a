"""Waiting for what other threads and processes do, for longer where the machine is slower.

A limit below tests/ is there so that a hang ends: it goes through `patience`, and says nothing of speed.
"""

import os
import socket
import time
from collections.abc import Callable
from functools import cache

SLOWNESS = "NIGHTSHIFT_TEST_SLOWNESS"  # what one process measured, for all of a run
WRITTEN_ON = 0.02, 2  # the machine of the limits: seconds for `_work`, and cores
MARGIN = 4  # for a disk that is slow, and for others at work


def _work() -> None:
    """A fixed piece of work for one core, half of it Python's and half NumPy's."""
    import numpy as np

    total = 0
    for number in range(400_000):
        total += number * number % 7
    values = np.random.default_rng(0).random(500_000)
    np.sort(values)
    np.sqrt(values).sum()


def _measured() -> float:
    import joblib

    tries = []
    for _ in range(6):
        begun = time.perf_counter()
        _work()
        tries.append(time.perf_counter() - begun)
    seconds, cores = WRITTEN_ON
    return max(1.0, min(tries) / seconds) * max(1.0, cores / int(joblib.cpu_count()))


@cache
def slowness() -> float:
    """How many times slower this machine is than the one of the limits, at least 1."""
    return float(os.environ.get(SLOWNESS) or _measured())


def patience(seconds: float) -> float:
    """Seconds to wait here before something counts as hanging, for the limit of the usual machine."""
    return MARGIN * slowness() * seconds


def wait_for(
    condition: Callable[[], object], what: str | Callable[[], str] = "it to come true", seconds: float = 90
) -> None:
    """Asks often at first, then five times a second, until the patience for these seconds is over."""
    deadline, pause = time.monotonic() + patience(seconds), 0.005
    while not condition():
        if time.monotonic() > deadline:
            told = what if isinstance(what, str) else what()
            raise AssertionError(f"waited {patience(seconds):.0f} s in vain for {told}")
        time.sleep(pause)
        pause = min(0.2, 1.5 * pause)


def listens(port: int) -> bool:
    """Whether something listens there on 127.0.0.1."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def wait_for_port(port: int) -> None:
    wait_for(lambda: listens(port), f"port {port} to be listened at", 30)
