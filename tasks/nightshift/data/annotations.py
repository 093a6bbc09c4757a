"""A manifest's labels for the files of a queue message, read in a process of its own.

A manifest is as foreign as an image, and may be as large as the data: one of millions of rows is read once
for each message, row by row, and only what it says of the message's files is kept.
"""

from functools import partial
from typing import Final

from nightshift import storage
from nightshift.config import PreprocessSettings
from nightshift.data import labels
from nightshift.data.decoding.pool import DecoderPool
from nightshift.data.formats import UnreadableError
from nightshift.data.labels import Labels
from nightshift.errors import InputError, NightshiftError

READ_SECONDS: Final = 600.0
READ_MEGABYTES: Final = 4096  # of address space; what is used of it is mostly the file


def annotations(where: str, keys: frozenset[str]) -> Labels:
    """What the manifest at `where` says of the files `keys`. Raises InputError, OutageError."""
    limits = PreprocessSettings(decode_seconds=READ_SECONDS, decode_megabytes=READ_MEGABYTES)
    with DecoderPool(partial(_read, keys=keys), limits) as reader:
        (found,) = reader.map([where.encode()])
    if isinstance(found, UnreadableError):
        raise InputError(
            f"{where} could not be read ({found.reason}) in {READ_SECONDS:g} s and "
            f"{READ_MEGABYTES} MiB; it is damaged, hostile or too large: write it again, or cut the batch"
        )
    if isinstance(found, NightshiftError):
        raise found
    return found


def _read(where: bytes, _: PreprocessSettings, *, keys: frozenset[str]) -> Labels | NightshiftError:
    try:
        uri = where.decode()
        return labels.of(storage.read(uri, limit=labels.MOST_BYTES), uri, keys)
    except MemoryError:
        raise UnreadableError("too-much-memory", "its rows take more memory than there is") from None
    except NightshiftError as error:
        return type(error)(*error.args)  # without the traceback and what it holds
