"""In which upload a label was said: of equal images under several labels, the newest upload is right.

Times are those of the store. A batch has several uploads where `nightshift ingest` was run again, which notes
in `_READY` when the one before had ended, and where nothing was written for the time that a batch settles.
"""

import json
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from nightshift import storage
from nightshift.config.clutter import is_clutter
from nightshift.data.labels import MANIFESTS, READY
from nightshift.errors import InputError

LARGEST_READY: Final = 2**20  # bytes
ENDED: Final = "ended"  # in `_READY`: when earlier uploads had ended, seconds since 1970


class Said(NamedTuple):
    """When a label was said, seconds since 1970, and in which upload of the batch."""

    when: float
    upload: int


def ended(uri: str, there: Iterable[storage.Stored]) -> list[float]:
    """Ends of the uploads of the batch at `uri`, as far as its marker tells; its own time is the last."""
    for stored in there:
        if stored.key == READY:
            return sorted({*_noted(storage.join(uri, READY)), stored.modified})
    return []


def said(source: str, keys: Sequence[str], settle_seconds: float) -> dict[str, Said]:
    """When the label of each key `<batch>/<path>` was said; keys that are not there any more are left out."""
    batches: dict[str, set[str]] = {}
    for key in keys:
        batch, _, path = key.partition("/")
        batches.setdefault(batch, set()).add(path)
    return {
        f"{batch}/{path}": found
        for batch, paths in batches.items()
        for path, found in _of_batch(storage.join(source, batch), paths, settle_seconds)
    }


def newest(labels: Sequence[str], times: Sequence[Said | None], batches: Sequence[str]) -> str | None:
    """The label that the newest upload of one image says; None where that cannot be told."""
    known = [found for found in times if found is not None]
    if len(known) < len(times):
        return None
    latest = max(found.when for found in known)
    at = next(place for place, found in enumerate(known) if found.when == latest)
    together = {
        label
        for label, found, batch in zip(labels, known, batches, strict=True)
        if found.when == latest or (batch, found.upload) == (batches[at], known[at].upload)
    }
    return labels[at] if len(together) == 1 else None


def _of_batch(uri: str, paths: set[str], settle_seconds: float) -> list[tuple[str, Said]]:
    there = [stored for stored in storage.listing(uri, etags=False) if not is_clutter(stored.key)]
    marks = ended(uri, there)
    times = np.sort([stored.modified for stored in there if stored.key != READY])
    gaps = np.flatnonzero(np.diff(times) >= settle_seconds)
    # What has the very second of a marker may lie on either side of it, so it counts as before.
    ends = np.unique([*marks, *times[gaps]])
    labelled = max((stored.modified for stored in there if stored.key in MANIFESTS), default=0.0)
    found = []
    for stored in there:
        if stored.key in paths:
            when = max(stored.modified, labelled)
            found.append((stored.key, Said(when, int(np.searchsorted(ends, when)))))
    return found


def _noted(uri: str) -> list[float]:
    """Times in a marker; other clients write what they like into it."""
    try:
        marker: Any = json.loads(storage.read(uri, limit=LARGEST_READY))
        return [float(time) for time in marker[ENDED]]
    except (InputError, ValueError, KeyError, TypeError, OverflowError):
        return []
