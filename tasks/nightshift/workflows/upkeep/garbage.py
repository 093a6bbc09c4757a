"""What nothing needs any more, found by listing the store: each object with the reason why it may go."""

import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from nightshift import storage
from nightshift.config import store_root
from nightshift.config.upkeep import DAY, Retention
from nightshift.errors import InputError
from nightshift.records.upkeep import GarbageItem, Tally
from nightshift.storage import Stored
from nightshift.tracking import inventory
from nightshift.tracking.inventory import Version
from nightshift.workflows.upkeep import retention
from nightshift.workflows.upkeep.reachable import DEPTHS, ReachableSet, unit_of

TEMPORARY: Final = "doctor"  # written, read and deleted at once
TEMPORARY_DAYS: Final = 1.0
LOGS: Final = "logs"  # of Airflow's tasks, where it is told to keep them in the store
UNTOUCHED: Final = {"incoming", "unlabelled", "ledger", "quarantine", "backups", "owners"}
KNOWN: Final = {*DEPTHS, *UNTOUCHED, TEMPORARY, LOGS, "mlflow"}
NAMING: Final = {"checkpoint.json", "candidate.json", "sweep.json"}  # records that name what they are made of
RUN: Final = re.compile(r"mlflow/[^/]+/([0-9a-f]{32})/")
MODEL: Final = re.compile(r"mlflow/[^/]+/models/(m-[0-9a-f]{32})/")


class GarbageFinder:
    """What is found, counted on the way; `since` is the time after which everything is kept."""

    def __init__(self, settings: Retention, now: float) -> None:
        self.settings, self.now = settings, now
        self.since = now - settings.grace_days * DAY
        self.doomed: list[GarbageItem] = []
        self.tallies: dict[str, Tally] = {}
        self.remarks: list[str] = []

    def versions(self, gone: Iterable[Version]) -> None:
        """Versions in MLflow."""
        for version in gone:
            days = (self.now - version.created) / DAY
            reason = f"{days:.0f} days old, never champion, named by nothing that stays"
            self._doom(GarbageItem(kind="versions", uri=version.uri, size=0, reason=reason))

    def add_young(self, reach: ReachableSet) -> None:
        """What records name that may belong to a night that goes on, or to one that is to go on."""
        for kind in ("plans", "datasets", "sweeps", "checkpoints", "candidates"):
            for _, objects in self._units(kind, unit_of):
                if self._is_young(objects):
                    records = [each for each in objects if DEPTHS[kind] == 0 or _name(each) in NAMING]
                    reach.add([_uri(each.key) for each in records])

    def units(self, reach: ReachableSet) -> None:
        """Units that nothing names."""
        for kind in (each for each in DEPTHS if each != "predictions"):
            for unit, objects in self._units(kind, unit_of):
                wanted = unit in reach.units or self._is_young(objects)
                self._count(kind, objects, "" if wanted else self._why(kind, objects, reach))

    def predictions(self, versions: Iterable[Version]) -> None:
        """Of versions that are gone, and old ones."""
        newest = {
            unit: max(each.modified for each in found) for unit, found in self._units("predictions", unit_of)
        }
        stale = retention.stale_predictions(newest, versions, self.settings, self.now)
        for unit, objects in self._units("predictions", unit_of):
            self._count("predictions", objects, "" if self._is_young(objects) else stale.get(unit, ""))

    def temporary(self) -> None:
        """What a crash left behind: files that were not written to their end, and what `doctor` tried."""
        before = self.now - TEMPORARY_DAYS * DAY
        for each in self._listing(TEMPORARY):
            self._count("temporary", [each], "tried by nightshift doctor" if each.modified < before else "")
        for folder in self.folders() & KNOWN - UNTOUCHED:
            for each in storage.broken_off(_uri(folder)):
                old = each.modified < before
                found = each._replace(key=f"{folder}/{each.key}")
                self._count("temporary", [found], "it was not written to its end" if old else "")

    def logs(self) -> None:
        """Logs of Airflow's tasks, one object each."""
        for each in self._listing(LOGS):
            days = (self.now - each.modified) / DAY
            old = days > max(self.settings.log_days, self.settings.grace_days)
            self._count(LOGS, [each], f"a log, {days:.0f} days old" if old else "")

    def uploads(self) -> None:
        """Uploads in parts that nobody ended; also of what people upload, since they are no objects yet."""
        try:
            for each in storage.uploads(store_root()):
                if each.begun < self.now - TEMPORARY_DAYS * DAY:
                    uri, reason = _uri(each.key), "an upload in parts that was begun and not ended"
                    self._doom(
                        GarbageItem(kind="uploads", uri=uri, size=0, reason=reason, upload=each.identity)
                    )
        except InputError as error:
            self.remarks.append(f"uploads in parts are not looked at: {error}")

    def artifacts(self, gone: Sequence[Version], kept: Iterable[Version]) -> None:
        """Of runs and logged models that MLflow does not know, and of versions that are removed."""
        removed = {version.model_id: version for version in gone if version.model_id}
        for version in kept:
            removed.pop(version.model_id, None)  # a copy has the same file
        known: set[str] | None = None
        orphans: list[tuple[str, list[Stored]]] = []
        met = False
        for unit, objects in self._units("mlflow", _artifacts_of):
            if known is None:
                known = inventory.runs() | inventory.logged_models()
            identity = unit.rpartition("/")[2]
            if identity in removed:
                self._count("mlflow", objects, f"the file of {removed[identity].uri}, which is removed")
                continue
            met = met or identity in known
            if identity in known or self._is_young(objects) or not _is_orphan(identity):
                self._count("mlflow", objects, "")
            else:
                orphans.append((unit, objects))
        if orphans and not met:
            self.remarks.append(
                f"MLflow knows nothing of what lies in {_uri('mlflow')}, so it is another server's and stays"
            )
        for _, objects in orphans:
            self._count("mlflow", objects, "MLflow does not know its run or model" if met else "")

    def folders(self) -> set[str]:
        return set(storage.folders(store_root()))

    def _units(self, kind: str, name: Callable[[str], str | None]) -> Iterator[tuple[str, list[Stored]]]:
        """The objects of each unit, with keys below the root; what belongs to none is left out."""
        for unit, objects in itertools.groupby(self._listing(kind), key=lambda each: name(each.key)):
            if unit is not None:
                yield unit, list(objects)

    def _listing(self, kind: str) -> Iterator[Stored]:
        for each in storage.listing(_uri(kind), etags=False):
            yield each._replace(key=f"{kind}/{each.key}")

    def _is_young(self, objects: Iterable[Stored]) -> bool:
        return max(each.modified for each in objects) > self.since

    def _why(self, kind: str, objects: Sequence[Stored], reach: ReachableSet) -> str:
        """Why a unit that nothing names may go; empty when it may not."""
        days = (self.now - max(each.modified for each in objects)) / DAY
        names = {_name(each) for each in objects}
        if kind == "upkeep":  # says for a while what became of things
            return f"{days:.0f} days old" if days > self.settings.version_days else ""
        if kind == "candidates" and "candidate.json" in names:
            uri = next(_uri(each.key) for each in objects if _name(each) == "candidate.json")
            if storage.read_json(uri).get("model", {}).get("sha256") in reach.models:
                return ""
        if kind == "checkpoints" and "checkpoint.json" not in names:
            return f"a training that did not end, for {days:.0f} days"
        return f"no version, decision or young record names it, {days:.0f} days old"

    def _count(self, kind: str, objects: Sequence[Stored], reason: str) -> None:
        """Objects that go for a reason, or stay without one."""
        if reason:
            for each in objects:
                self._doom(GarbageItem(kind=kind, uri=_uri(each.key), size=each.size, reason=reason))
            return
        tally, size = self.tallies.get(kind, Tally()), sum(each.size for each in objects)
        change = {"kept": tally.kept + len(objects), "kept_size": tally.kept_size + size}
        self.tallies[kind] = tally.model_copy(update=change)

    def _doom(self, doomed: GarbageItem) -> None:
        self.doomed.append(doomed)
        tally = self.tallies.get(doomed.kind, Tally())
        change = {"doomed": tally.doomed + 1, "doomed_size": tally.doomed_size + doomed.size}
        self.tallies[doomed.kind] = tally.model_copy(update=change)


def _artifacts_of(key: str) -> str | None:
    """The folder of a run or of a logged model; None for what else MLflow keeps, which is not touched."""
    found = RUN.match(key) or MODEL.match(key)
    return found[0].rstrip("/") if found else None


def _is_orphan(identity: str) -> bool:
    """Whether MLflow does not know an id that is not among those that it lists; deleted models are not."""
    return not identity.startswith("m-") or inventory.is_given_up(identity)


def _uri(key: str) -> str:
    return storage.join(store_root(), key)


def _name(stored: Stored) -> str:
    return stored.key.rpartition("/")[2]
