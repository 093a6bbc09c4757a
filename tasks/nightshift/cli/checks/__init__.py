"""What `nightshift doctor` asks of each service: whether it answers, and does what it is there for."""

import time
from collections.abc import Callable, Iterator
from email.utils import parsedate_to_datetime
from typing import Final, NamedTuple, TypeVar

Result = TypeVar("Result")
APART: Final = 60.0  # seconds between two clocks that are worth a remark
WRONG: Final = 300.0  # and that are wrong: S3 refuses requests that are 15 minutes old


class Finding(NamedTuple):
    """One line. `good` is None for a remark, which never makes the verdict worse."""

    good: bool | None
    sentence: str


def timed(call: Callable[[], Result]) -> tuple[Result, str]:
    """What a call returns, and how long it took, for people."""
    began = time.perf_counter()
    result = call()
    return result, f"{(time.perf_counter() - began) * 1000:.0f} ms"


def clock(service: str, date: str) -> Iterator[Finding]:
    """How far a server's clock, as its header `Date` tells it, is from the one here."""
    if not date:
        return
    apart = parsedate_to_datetime(date).timestamp() - time.time()
    if abs(apart) < APART:
        yield Finding(True, f"{service} and this machine have the same time, within {abs(apart) + 1:.0f} s")
    else:
        side = "ahead of" if apart > 0 else "behind"
        yield Finding(
            False if abs(apart) >= WRONG else None,
            f"the clock of {service} is {abs(apart):.0f} s {side} this machine's; let both follow NTP",
        )
