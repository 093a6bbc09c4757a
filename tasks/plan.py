"""Stage 0: list the source, find what is new, and cut it into queue messages.

Planning reads listings, never objects, so that a million images are planned in seconds. When the same data
and settings were decided before, the night ends here.
"""

import itertools
import math
import time
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from tasks import ledger, storage
from tasks.config import STAGE_SETTINGS, Pipeline, digest_of, store_root
from tasks.errors import InputError
from tasks.records import Message, Part, Plan, PlanSpec

FORMAT = 1  # of the shards; raised when their content changes for the same settings
MAX_MESSAGES = 256  # Airflow maps at most 1,024 tasks by default
READY, MANIFEST = "_READY", "manifest.csv"


class Batch(NamedTuple):
    """A complete batch as the listing shows it; `files` holds (key relative to the batch, size, ETag)."""

    name: str
    files: tuple[tuple[str, int, str], ...]
    manifest: tuple[str, int, str] | None


def plan(spec: PlanSpec) -> Plan:
    """Decide what the night does. Raises InputError when the source holds no complete batch."""
    pipeline, source = spec.pipeline, source_of(spec.pipeline)
    waiting: list[str] = []
    parts = [
        part
        for batch in ready_batches(storage.listing(source), pipeline.settle_minutes * 60, waiting)
        for part in cut(batch, pipeline, source)
    ]
    for name in waiting:
        print(f"batch {name} is still changing and has no {READY} marker: it waits for a later night")
    if not parts:
        raise InputError(
            f"source {source} holds no complete batch ({len(waiting)} still arriving); "
            f"put one there with: nightshift ingest FOLDER --pipeline {pipeline.name}"
        )
    data_digest = digest_of(sorted(part.digest for part in parts))
    waits_for_person = pipeline.promotion.mode == "approve"
    decision = ledger.decided(
        pipeline.name, data_digest, pipeline.settings_digest(), waiting=waits_for_person
    )
    work = spec.force or decision is None
    todo = [part for part in parts if not storage.exists(part_result_uri(part))] if work else []
    known = f"{decision.kind} as version {decision.version} at {decision.at}" if decision else None
    reason = _reason(known, spec.force, todo)
    print(f"plan: {reason}")
    draft = Plan(
        pipeline=pipeline,
        night=spec.night,
        source=source,
        work=work,
        reason=reason,
        batches=len({part.batch for part in parts}),
        images=sum(len(part.keys) for part in parts),
        data_digest=data_digest,
        settings_digest=pipeline.settings_digest(),
        parts_uri=_write_parts(parts) if work else "",
        messages=tuple(messages(todo, pipeline.preprocess.part_images)) if work else (),
        salt=spec.night if spec.force else "",
    )
    return draft.model_copy(update={"mlflow_run_id": open_run(draft)}) if work else draft


def source_of(pipeline: Pipeline) -> str:
    return pipeline.source or storage.join(store_root(), "incoming", pipeline.name)


def part_result_uri(part: Part) -> str:
    """Where the part's manifest is written last: its presence means that the part is done."""
    return storage.join(store_root(), "shards", part.digest, "part.json")


def ready_batches(
    objects: Iterable[storage.Stored], settle_seconds: float, waiting: list[str]
) -> Iterator[Batch]:
    """Complete batches in a listing sorted by key; the names of incomplete ones are added to `waiting`."""
    inside = (stored for stored in objects if "/" in stored.key)
    for name, group in itertools.groupby(inside, key=lambda stored: stored.key.partition("/")[0]):
        files, manifest, ready, newest = [], None, False, 0.0
        for stored in group:
            key = stored.key.partition("/")[2]
            newest = max(newest, stored.modified)
            if key == READY:
                ready = True
            elif key == MANIFEST:
                manifest = (key, stored.size, stored.etag)
            else:
                files.append((key, stored.size, stored.etag))
        if files and (ready or time.time() - newest >= settle_seconds):
            yield Batch(name, tuple(sorted(files)), manifest)
        elif files:
            waiting.append(name)


def cut(batch: Batch, pipeline: Pipeline, source: str) -> Iterator[Part]:
    """Cut a batch into parts; a part's digest names its files, its labels and how they are preprocessed."""
    settings = pipeline.preprocess.digest()
    for files in _chunks(batch.files, pipeline.preprocess.part_images):
        digest = digest_of([FORMAT, source, batch.name, settings, batch.manifest, files])
        keys = tuple(key for key, _, _ in files)
        yield Part(batch=batch.name, keys=keys, manifest=batch.manifest is not None, digest=digest)


def messages(parts: list[Part], part_images: int) -> Iterator[Message]:
    """Group small parts and bound the number of messages."""
    total = sum(len(part.keys) for part in parts)
    capacity = max(part_images, math.ceil(total / (MAX_MESSAGES // 2)))
    group: list[Part] = []
    for part in parts:
        if group and sum(len(p.keys) for p in group) + len(part.keys) > capacity:
            yield _message(group)
            group = []
        group.append(part)
    # A night whose parts are all done still sends one message, an empty one: no messages mean no night.
    if group or not parts:
        yield _message(group)


def open_run(draft: Plan) -> str | None:
    """Open the night's MLflow run with every setting as a parameter."""
    from tasks import tracking

    params = {
        f"{stage}.{field}": value
        for stage in STAGE_SETTINGS
        for field, value in getattr(draft.pipeline, stage).model_dump(mode="json").items()
    }
    params |= {"data_digest": draft.data_digest, "settings_digest": draft.settings_digest}
    return tracking.open_night(draft.pipeline.name, draft.night, params=params)


def _message(parts: list[Part]) -> Message:
    return Message(
        parts_uri=_write_parts(parts), parts=len(parts), images=sum(len(part.keys) for part in parts)
    )


def _write_parts(parts: list[Part]) -> str:
    """Store a list of parts under its own digest."""
    name = digest_of([part.digest for part in parts])
    rows = ",\n".join(part.model_dump_json() for part in parts)
    return storage.write(storage.join(store_root(), "plans", f"{name}.json"), f"[{rows}]".encode()).uri


def _chunks(files: tuple[tuple[str, int, str], ...], size: int) -> Iterator[tuple[tuple[str, int, str], ...]]:
    """Cut into equal pieces of at most `size`, so that no tiny rest travels alone."""
    count = math.ceil(len(files) / size)
    for index in range(count):
        yield files[len(files) * index // count : len(files) * (index + 1) // count]


def _reason(decided: str | None, forced: bool, todo: list[Part]) -> str:
    new = f"{sum(len(part.keys) for part in todo)} images to preprocess in {len(todo)} parts"
    if decided and forced:
        return f"forced although the same data and settings were {decided}; {new}"
    if decided:
        return f"nothing to do: the same data and settings were {decided}"
    return f"new data or settings; {new}"
