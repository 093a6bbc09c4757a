"""Refused files: their reasons, where people look for them. The files themselves stay in the source.

`quarantine/<pipeline>/<batch>/reasons.jsonl` holds one JSON object for each refused file of a batch; those of
batches without labels are under `quarantine/<pipeline>.unlabelled`, which no pipeline can be called.
"""

from collections import Counter
from collections.abc import Iterable, Mapping

from nightshift import storage
from nightshift.config import store_root
from nightshift.data.formats import UnreadableError
from nightshift.records import Refusal
from nightshift.runner import json_logs

REASONS = "reasons.jsonl"


def unlabelled(pipeline: str) -> str:
    """What the folder of a pipeline's batches without labels is called."""
    return f"{pipeline}.unlabelled"


def refusal(key: str, why: UnreadableError, sha256: str = "") -> Refusal:
    """The record of a refused file, which the log names too."""
    print(json_logs.one_line(f"refused {key}: {why.reason}: {why.detail}"))
    return Refusal(key=key, sha256=sha256, reason=why.reason, detail=why.detail)


def write_batch(pipeline: str, batch: str, refused: Iterable[Refusal]) -> None:
    """Write the reasons of one batch, or remove them when it has none any more."""
    uri = storage.join(store_root(), "quarantine", pipeline, batch, REASONS)
    text = "".join(refusal.model_dump_json() + "\n" for refusal in refused)
    if text:
        storage.write(uri, text.encode())
    else:
        storage.delete(uri)


def write(pipeline: str, refusals: Mapping[str, Iterable[Refusal]]) -> None:
    """Write each batch's reasons and remove those of batches that have none any more."""
    folder = storage.join(store_root(), "quarantine", pipeline)
    for batch, refused in refusals.items():
        write_batch(pipeline, batch, refused)
    for stored in list(storage.listing(folder)):
        if stored.key.rpartition("/")[0] not in refusals:
            storage.delete(storage.join(folder, stored.key))


def read(pipeline: str) -> dict[str, list[Refusal]]:
    """The refused files of each batch, as the last data set version found them."""
    folder = storage.join(store_root(), "quarantine", pipeline)
    return {
        stored.key.rpartition("/")[0]: [
            Refusal.model_validate_json(line)
            for line in storage.read(storage.join(folder, stored.key)).splitlines()
        ]
        for stored in storage.listing(folder)
    }


def commonest(refusals: Iterable[Refusal]) -> str:
    """The three commonest reasons in words, such as `12 truncated, 3 empty`."""
    counts = Counter(refusal.reason for refusal in refusals)
    return ", ".join(f"{count:,} {reason}" for reason, count in counts.most_common(3))
