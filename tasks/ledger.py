"""The append-only record of decisions: `ledger/<pipeline>/<time>-<kind>-v<version>-<data>-<settings>.json`.

Digests are in the names, so that a night learns from one listing whether its work was decided before.
"""

from collections.abc import Collection
from datetime import UTC, datetime
from typing import get_args

from tasks import storage
from tasks.config import store_root
from tasks.records import Dataset, Decision
from tasks.records.judgement import Moving

SHORT = 16  # hex digits of a digest in a name
ONCE = ("challenger", "refused")  # what registering a version decides
UNDECIDED = ("challenger", "superseded", "stale")
MOVES = get_args(Moving)  # what gave the pipeline a champion
ASIDE = ("rolled-back", "adopted", "put-back", "disputed")  # about an alias, not about what a night made


def append(decision: Decision) -> str:
    """Write one decision down and return its URI.

    A task that runs again does not double its entry: a version is registered once, and a move that is the
    latest entry already was written before its task was cut off.
    """
    suffix = _suffix(decision.kind, decision.version, decision.data_digest, decision.settings_digest)
    folder = _folder(decision.pipeline)
    entries = [entry.key for entry in storage.listing(folder)]
    same = [key for key in entries if key.endswith(suffix)]
    if same and (decision.kind in ONCE or same[-1] == entries[-1]):
        return storage.join(folder, same[-1])
    uri = storage.join(folder, f"{decision.at.replace(':', '')}{suffix}")
    storage.write_record(uri, decision)
    return uri


def decided(pipeline: str, data_digest: str, settings_digest: str, *, waiting: bool) -> Decision | None:
    """The latest decision on exactly this data and these settings, or None when the night has work.

    A challenger that waits for a person counts only when `waiting` says that the policy asks for one.
    """
    ending = f"-{data_digest[:SHORT]}-{settings_digest[:SHORT]}.json"
    entries = [entry.key for entry in storage.listing(_folder(pipeline)) if entry.key.endswith(ending)]
    for key in reversed(entries):
        decision = storage.read_record(storage.join(_folder(pipeline), key), Decision)
        if decision.kind == "stale":  # what came before was said of another champion or of other images
            return None
        if _counts(decision, waiting):
            return decision
    return None


def latest(pipeline: str, *, waiting: bool) -> Decision | None:
    """The newest decision, whatever its data; `waiting` as for `decided`."""
    for entry in reversed(list(storage.listing(_folder(pipeline)))):
        decision = storage.read_record(storage.join(_folder(pipeline), entry.key), Decision)
        if _counts(decision, waiting):
            return decision
    return None


def newest(pipeline: str, kinds: Collection[str] = ()) -> Decision | None:
    """The newest entry, or the newest of these kinds; one listing and one read, however long the record."""
    names = [
        entry.key
        for entry in storage.listing(_folder(pipeline))
        if not kinds or any(f"-{kind}-v" in entry.key for kind in kinds)
    ]
    return storage.read_record(storage.join(_folder(pipeline), names[-1]), Decision) if names else None


def registered(pipeline: str) -> Decision | None:
    """The newest version that a night registered, whatever became of it."""
    return newest(pipeline, ONCE)


def champion(pipeline: str) -> Decision | None:
    """What made the present champion one, as far as this record goes."""
    return newest(pipeline, MOVES)


def moves(pipeline: str) -> list[Decision]:
    """Everything that made a version champion, oldest first."""
    folder = _folder(pipeline)
    names = [
        entry.key for entry in storage.listing(folder) if any(f"-{kind}-v" in entry.key for kind in MOVES)
    ]
    return [storage.read_record(storage.join(folder, name), Decision) for name in names]


def reign(pipeline: str) -> list[str]:
    """Versions that followed each other as champion and were not rolled back, the present one last."""
    versions: list[str] = []
    for move in moves(pipeline):
        if move.kind in ("rolled-back", "put-back") and move.version in versions:
            del versions[len(versions) - versions[::-1].index(move.version) :]
        elif not versions or versions[-1] != move.version:
            versions.append(move.version)
    return versions


def dataset(digest: str) -> Dataset | None:
    """A data set that was decided on, or None when it was cleaned away."""
    uri = storage.join(store_root(), "datasets", f"{digest}.json")
    try:
        return storage.read_record(uri, Dataset)
    except storage.MissingError:
        return None


def history(pipeline: str) -> list[Decision]:
    """All decisions, oldest first."""
    folder = _folder(pipeline)
    return [
        storage.read_record(storage.join(folder, entry.key), Decision) for entry in storage.listing(folder)
    ]


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _counts(decision: Decision, waiting: bool) -> bool:
    if decision.kind in ASIDE:
        return False
    return decision.kind not in UNDECIDED or (waiting and decision.kind == "challenger")


def _suffix(kind: str, version: str, data_digest: str, settings_digest: str) -> str:
    return f"-{kind}-v{version}-{data_digest[:SHORT]}-{settings_digest[:SHORT]}.json"


def _folder(pipeline: str) -> str:
    return storage.join(store_root(), "ledger", pipeline)
