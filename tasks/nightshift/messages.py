"""Queue messages: they name parts by the address of a list, so that they stay small."""

from collections.abc import Mapping, Sequence
from typing import Final

from nightshift import storage
from nightshift.config import digest_of, store_root
from nightshift.records import BatchSeen, Message, Part, PartList

NAMED: Final = 3  # batches in a message, of which there may be thousands


def message(parts: Sequence[Part]) -> Message:
    """One message for these parts."""
    return Message(
        parts_uri=store({}, parts),
        parts=len(parts),
        images=sum(len(part.keys) for part in parts),
        seconds=sum(part.seconds for part in parts),
        batches=tuple(dict.fromkeys(part.batch for part in parts))[:NAMED],
    )


def store(batches: Mapping[str, BatchSeen], parts: Sequence[Part]) -> str:
    """Keep a list of parts under its own digest, and return where."""
    name = digest_of([part.digest for part in parts])
    record = PartList(batches=dict(batches), parts=tuple(parts))
    return storage.write_record(storage.join(store_root(), "plans", f"{name}.json"), record).uri
