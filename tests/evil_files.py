"""Files whose first bytes end, stop or surprise the process that decodes them; it can import this module."""

import os
import time

from tasks.config import PreprocessSettings
from tasks.decoders import Seen
from tasks.decoders import see as see_image

CRASH, HANG, SURPRISE = b"crash", b"hang", b"surprise"


def see(data: bytes, settings: PreprocessSettings) -> Seen:
    """As the decoders do with honest files."""
    if data.startswith(CRASH):
        os.abort()
    if data.startswith(HANG):
        time.sleep(600)
    if data.startswith(SURPRISE):
        raise RuntimeError("nobody foresaw this")
    return see_image(data, settings)
