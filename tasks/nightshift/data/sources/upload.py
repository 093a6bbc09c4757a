"""A batch goes into the store by many threads; what is there already is not sent again.

One listing tells what is there, and equal size and MD5 mean equal. The `_READY` marker is written last; a
batch that changes loses it first, so that no night sees half a change. The manifest is written before the
images: what an interrupted upload leaves is then never taken for class folders.
"""

import hashlib
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, TypeVar

from nightshift import storage
from nightshift.config.clutter import is_clutter
from nightshift.data import uploads
from nightshift.data.labels import MANIFESTS, READY
from nightshift.data.sources.batch import Batch, Item
from nightshift.errors import InputError

MANIFEST: Final = MANIFESTS[0]  # what is written, whatever the source had
THREADS: Final = 16  # they wait for the network, not for a core
AHEAD: Final = 4  # results of a thread that may wait to be taken

Given = TypeVar("Given")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Ingested:
    """What became of a batch. `others` are objects that the store holds and the source does not."""

    batch: str
    uri: str
    classes: dict[str, int]
    bytes: int
    uploaded: int
    skipped: int
    others: int
    ignored: Mapping[str, int]


def ingest(batch: Batch, source: str, *, advance: Callable[[int], None] = lambda files: None) -> Ingested:
    """Upload what is not yet there to `<source>/<batch>/`; `advance` is called with the files done.

    Raises InputError when the batch in the store is of the other kind (with or without a manifest),
    OutageError when the store cannot be reached; running again then continues.
    """
    uri = storage.join(source, batch.name)
    there = {stored.key: stored for stored in storage.listing(uri)}
    others = _check_kind(batch, source, there)
    known = [item for item in batch.items if item.key in there]
    sizes = list(in_order(lambda item: _same(item, there[item.key]), known))
    same = {item.key for item, size in zip(known, sizes, strict=True) if size is not None}
    todo = [item for item in batch.items if item.key not in same]
    advance(len(same))
    manifest = Item(MANIFEST, "", batch.manifest) if batch.manifest is not None else None
    new_labels = manifest is not None and (MANIFEST not in there or _same(manifest, there[MANIFEST]) is None)
    before = uploads.ended(uri, there.values())
    if (todo or new_labels) and READY in there:
        storage.delete(storage.join(uri, READY))
    if manifest is not None and new_labels:
        storage.write(storage.join(uri, MANIFEST), manifest.read())
    total = sum(size for size in sizes if size is not None)
    for size in in_order(lambda item: storage.write(storage.join(uri, item.key), item.read()).size, todo):
        total += size
        advance(1)
    if todo or new_labels or READY not in there:
        marker = {"files": len(batch.items) + others, uploads.ENDED: before}
        storage.write(storage.join(uri, READY), json.dumps(marker).encode())
    return Ingested(
        batch=batch.name,
        uri=uri,
        classes=batch.classes,
        bytes=total,
        uploaded=len(todo),
        skipped=len(same),
        others=others,
        ignored=batch.ignored,
    )


def in_order(
    function: Callable[[Given], Result], given: Iterable[Given], threads: int = THREADS
) -> Iterator[Result]:
    """`map` by threads, results in order, few of them at a time; nothing more is begun after an error.

    Ctrl-C does not wait for what the threads are doing.
    """
    pool = ThreadPoolExecutor(threads)
    pending: deque[Future[Result]] = deque()
    try:
        for each in given:
            pending.append(pool.submit(function, each))
            if len(pending) == threads * AHEAD:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    except Exception:
        pool.shutdown(cancel_futures=True)
        raise
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _check_kind(batch: Batch, source: str, there: Mapping[str, storage.Stored]) -> int:
    """How many images of another source are there; InputError when the two cannot be one batch."""
    ours = {item.key for item in batch.items}
    others = {key for key in there if not is_clutter(key)} - ours - {READY, *MANIFESTS}
    found = [name for name in MANIFESTS if name in there]
    fits = found == ([MANIFEST] if batch.manifest is not None else [])
    if not fits and (found or others or ours & there.keys()):
        kind = f"a manifest ({found[0]})" if found else "class folders"
        raise InputError(
            f"batch {batch.name!r} in {source} already has {kind}; choose another name with --batch"
        )
    return len(others)


def _same(item: Item, stored: storage.Stored) -> int | None:
    """The item's size when the store has the same bytes, else None; it is read only where the sizes agree."""
    if item.size is not None and item.size != stored.size:
        return None
    if item.etag is not None and item.etag == stored.etag:
        return stored.size
    data = item.read()
    digest = hashlib.md5(data, usedforsecurity=False).hexdigest()
    return len(data) if digest == stored.etag else None
