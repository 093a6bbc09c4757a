"""Files whose first bytes end, stop or surprise the process that decodes them; it can import this module."""

import contextlib
import os
import resource
import time

from nightshift.config import PreprocessSettings
from nightshift.data.decoding.pool import Decoded
from nightshift.data.decoding.pool import decode_for_shard as see_image
from nightshift.data.formats import UnreadableError

CRASH, HANG, SURPRISE = b"crash", b"hang", b"surprise"


def see(data: bytes, settings: PreprocessSettings) -> Decoded:
    """As the decoders do with honest files."""
    if data.startswith(CRASH):
        os.abort()
    if data.startswith(HANG):
        time.sleep(600)
    if data.startswith(SURPRISE):
        raise RuntimeError("nobody foresaw this")
    return see_image(data, settings)


def growth(data: bytes, settings: PreprocessSettings) -> int:
    """By how many bytes the process grew at the most to refuse a file."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with contextlib.suppress(UnreadableError):
        see_image(data, settings)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
