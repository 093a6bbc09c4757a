"""Fetches files ahead of their turn: while some are decoded, the next ones are on their way."""

import hashlib
import itertools
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, NamedTuple

from nightshift import storage
from nightshift.data.formats import UnreadableError

READERS: Final = 8  # threads that fetch ahead
TOGETHER: Final = 4  # files that a thread fetches at a time, since handing over takes time too


class Fetched(NamedTuple):
    data: bytes
    sha256: str


def fetch(uris: Sequence[str], limit: int) -> Iterator[Fetched | UnreadableError]:
    """The files in order, a bounded number of them fetched ahead.

    A file is Unreadable when it has more than `limit` bytes, a name that no file may have, or is gone.
    """
    groups = [uris[start : start + TOGETHER] for start in range(0, len(uris), TOGETHER)]
    with ThreadPoolExecutor(READERS) as pool:
        pending = deque(pool.submit(_fetch_all, group, limit) for group in groups[:READERS])
        for following in itertools.chain(groups[READERS:], itertools.repeat(None, len(pending))):
            fetched = pending.popleft().result()
            if following is not None:
                pending.append(pool.submit(_fetch_all, following, limit))
            yield from fetched


def _fetch_all(uris: Sequence[str], limit: int) -> list[Fetched | UnreadableError]:
    return [_fetch(uri, limit) for uri in uris]


def _fetch(uri: str, limit: int) -> Fetched | UnreadableError:
    try:
        data = storage.read(uri, limit=limit)
        return Fetched(data, hashlib.sha256(data).hexdigest())
    except storage.TooLargeError as error:
        return UnreadableError("too-large", f"{error}; shrink it or raise preprocess.max_megabytes")
    except storage.UnsafeKeyError as error:
        return UnreadableError("unsafe-name", str(error))
    except storage.MissingError:
        return UnreadableError("gone", "it was there when the work was planned and is not there any more")
