"""The append-only record of decisions.

One object each: `ledger/<pipeline>/<number>-<author>-<kind>-v<version>-<data>-<settings>.json`.
Entries are ordered by their numbers, each one more than the last that its writer saw, and never by a clock:
those of workers differ. Two that are written at once may have one number; then their names decide, for every
reader alike. The author in a name is who decided, so that neither is written over the other.
Digests are in the names, so that a night learns from one listing whether its work was decided before.
"""

import hashlib
import re
from collections.abc import Collection, Iterator
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple, get_args

from nightshift import storage
from nightshift.config import store_root
from nightshift.records import Dataset, Decision
from nightshift.records.evaluation import Moving

SHORT = 16  # hex digits of a digest in a name
ONCE = ("challenger", "refused")  # what registering a version decides
UNDECIDED = ("challenger", "superseded", "stale")
VOID = ("stale", "gone")  # what came before was said of another champion, of other images, or of a lost file
MOVES = get_args(Moving)  # what gave the pipeline a champion
ASIDE = ("rolled-back", "adopted", "put-back", "disputed", "removed")  # about an alias, not about a night
OFFERED: Final = timedelta(hours=6)  # by then the promotion that a night starts has ended
_NAME: Final = re.compile(r"(\d{8})-([0-9a-f]{8})-([a-z-]+)-v(\d+)-.*\.json")


class _Entry(NamedTuple):
    """What the name of an entry says."""

    key: str
    number: int
    author: str
    kind: str
    version: str


def append(decision: Decision) -> Decision:
    """Write one decision down with the next number, and return it as it is written.

    A task that runs again does not double its entry: a night registers a version once, a promotion decides
    once, and what nobody in particular decided is no news while it is the latest entry.
    """
    folder, entries = _folder(decision.pipeline), list(_entries(decision.pipeline))
    ending = _ending(decision)
    same = [entry for entry in entries if entry.key.endswith(ending)]
    if same and (decision.run or decision.kind in ONCE or same[-1] == entries[-1]):
        return _read(decision.pipeline, same[-1])
    numbered = decision.model_copy(update={"number": entries[-1].number + 1 if entries else 1})
    storage.write_record(storage.join(folder, f"{numbered.number:08d}{ending}"), numbered)
    return numbered


def decided(pipeline: str, data_digest: str, settings_digest: str, *, waiting: bool) -> Decision | None:
    """The latest decision on exactly this data and these settings, or None when the night has work.

    A challenger whose promotion has not ended yet is as good as decided: one that is young, or any where
    `waiting` says that it waits for a person.
    """
    ending = f"-{data_digest[:SHORT]}-{settings_digest[:SHORT]}.json"
    for entry in reversed(list(_entries(pipeline))):
        if entry.key.endswith(ending):
            decision = _read(pipeline, entry)
            if decision.kind in VOID:
                return None
            if _counts(decision, waiting):
                return decision
    return None


def latest(pipeline: str, *, waiting: bool) -> Decision | None:
    """The newest decision, whatever its data; `waiting` as for `decided`."""
    for entry in reversed(list(_entries(pipeline))):
        if _counts(decision := _read(pipeline, entry), waiting):
            return decision
    return None


def newest(pipeline: str, kinds: Collection[str] = ()) -> Decision | None:
    """The newest entry, or the newest of these kinds; one listing and one read, however long the record."""
    found = [entry for entry in _entries(pipeline) if not kinds or entry.kind in kinds]
    return _read(pipeline, found[-1]) if found else None


def registered(pipeline: str) -> Decision | None:
    """The newest version that a night registered, whatever became of it."""
    return newest(pipeline, ONCE)


def champion(pipeline: str) -> Decision | None:
    """What made the present champion one, as far as this record goes; None also when it is gone since."""
    gone = set()
    for entry in reversed(list(_entries(pipeline))):
        if entry.kind == "gone":
            gone.add(entry.version)
        elif entry.kind in MOVES:
            return None if entry.version in gone else _read(pipeline, entry)
    return None


def moved_by(pipeline: str, run: str) -> Decision | None:
    """The move that a promotion decided, if it came that far."""
    author = _author(run)
    mine = [entry for entry in _entries(pipeline) if entry.kind in MOVES and entry.author == author]
    return _read(pipeline, mine[-1]) if run and mine else None


def about(pipeline: str, version: str, sha256: str = "") -> list[Decision]:
    """What was decided about a version, oldest first; with a digest, about that file alone.

    When a model is deleted in MLflow and made anew, its versions begin again at 1.
    """
    found = [_read(pipeline, entry) for entry in _entries(pipeline) if entry.version == version]
    return [each for each in found if not sha256 or each.sha256 == sha256]


def moves(pipeline: str) -> list[Decision]:
    """Everything that made a version champion, oldest first."""
    return [_read(pipeline, entry) for entry in _entries(pipeline) if entry.kind in MOVES]


def reign(pipeline: str) -> list[Decision]:
    """The moves to champions that followed each other and were not taken back, the present one last."""
    line: list[Decision] = []
    for entry in _entries(pipeline):
        versions = [move.version for move in line]
        if entry.kind == "gone":
            line = [move for move in line if move.version != entry.version]
        elif entry.kind not in MOVES:
            continue
        elif entry.kind in ("rolled-back", "put-back") and entry.version in versions:
            del line[len(versions) - versions[::-1].index(entry.version) :]
        elif not line or versions[-1] != entry.version:
            line.append(_read(pipeline, entry))
    return line


def dataset(digest: str) -> Dataset | None:
    """A data set that was decided on, or None when it was cleaned away."""
    uri = storage.join(store_root(), "datasets", f"{digest}.json")
    try:
        return storage.read_record(uri, Dataset)
    except storage.MissingError:
        return None


def history(pipeline: str) -> list[Decision]:
    """All decisions, oldest first."""
    return [_read(pipeline, entry) for entry in _entries(pipeline)]


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _counts(decision: Decision, waiting: bool) -> bool:
    if decision.kind in ASIDE or decision.kind in VOID:
        return False
    if decision.kind == "challenger":
        return waiting or datetime.now(UTC) - datetime.fromisoformat(decision.at) < OFFERED
    return decision.kind not in UNDECIDED


def _entries(pipeline: str) -> Iterator[_Entry]:
    """All entries by their names, oldest first."""
    for stored in storage.listing(_folder(pipeline), etags=False):
        if found := _NAME.fullmatch(stored.key):
            number, author, kind, version = found.groups()
            yield _Entry(stored.key, int(number), author, kind, version)


def _read(pipeline: str, entry: _Entry) -> Decision:
    return storage.read_record(storage.join(_folder(pipeline), entry.key), Decision)


def _ending(decision: Decision) -> str:
    """What the name of an entry ends in after its number; the same when the same is decided again."""
    author = _author(decision.night if decision.kind in ONCE else decision.run)
    data, settings = decision.data_digest[:SHORT], decision.settings_digest[:SHORT]
    return f"-{author}-{decision.kind}-v{decision.version}-{data}-{settings}.json"


def _author(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:8]


def _folder(pipeline: str) -> str:
    return storage.join(store_root(), "ledger", pipeline)
