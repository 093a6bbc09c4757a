"""What may not be deleted: everything that a registered version, the ledger or a young record names.

A thing is named by an address anywhere in a tag or a record. What lies together in one folder of the store
is one unit, kept or deleted as a whole: a part's shards, a checkpoint, a report.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from nightshift import storage
from nightshift.config import store_root
from nightshift.errors import InputError
from nightshift.tracking import ledger, registry
from nightshift.tracking.inventory import Version

# How many names after the first make a unit; with 0, each object is one by itself.
DEPTHS: Final = {
    "datasets": 0,
    "plans": 0,
    "upkeep": 0,
    "shards": 1,
    "checkpoints": 1,
    "candidates": 1,
    "reports": 1,
    "made": 1,
    "sweeps": 2,
    "predictions": 3,
}
RECORDS: Final = {"datasets", "plans", "made", "checkpoints", "candidates", "sweeps"}  # read further


def unit_of(key: str) -> str | None:
    """The unit that an object belongs to, by its key below the store's root; None when it is in none."""
    kind, *names = key.split("/")
    depth = DEPTHS.get(kind, -1)
    if depth == 0:
        return key if len(names) == 1 else None
    return "/".join([kind, *names[:depth]]) if 0 < depth < len(names) else None


def uris(value: Any) -> Iterator[str]:
    """Every address below the store's root in a JSON value, also in texts that are JSON themselves."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from uris(item)
    elif isinstance(value, str) and value.startswith(store_root() + "/"):
        yield value
    elif isinstance(value, str) and value[:1] in ("{", "["):
        try:
            inside = json.loads(value)
        except ValueError:  # some text that only begins like JSON
            return
        yield from uris(inside)


class ReachableSet:
    """Units that are named so far, and the SHA-256 of the registered models."""

    def __init__(self) -> None:
        self.units: set[str] = set()
        self.models: set[str] = set()
        self._read: set[str] = set()

    def add_versions(self, versions: Iterable[Version]) -> None:
        for version in versions:
            self.add(version.tags)
            self.add_dataset(version.tags.get(registry.DATASET, ""))
            self.models.add(version.tags.get(registry.SHA256, ""))

    def add_ledger(self) -> None:
        """The data sets that the next night, sweep or promotion of each pipeline compares with."""
        for pipeline in storage.folders(storage.join(store_root(), "ledger")):
            last = ledger.latest(pipeline, waiting=False)
            for decision in (last, ledger.registered(pipeline), ledger.champion(pipeline)):
                self.add_dataset(decision.dataset if decision else "")

    def add_dataset(self, digest: str) -> None:
        if digest:
            self.add(storage.join(store_root(), "datasets", f"{digest}.json"))

    def add(self, value: Any) -> None:
        """Everything that a JSON value names, and what the records that it names name in turn."""
        waiting = list(uris(value))
        while waiting:
            uri = waiting.pop()
            key = uri.removeprefix(store_root() + "/")
            if unit := unit_of(key):
                self.units.add(unit)
            if key.partition("/")[0] in RECORDS and key.endswith(".json") and uri not in self._read:
                self._read.add(uri)
                waiting += named(uri)


def named(uri: str) -> list[str]:
    """What a record names; nothing when it is gone. Read as plain JSON, since its form may be an earlier one.

    Raises InputError when it cannot be read: then nobody can tell what it names.
    """
    try:
        found = storage.read_json(uri)
        if uri.startswith(storage.join(store_root(), "plans/")):
            shards = storage.join(store_root(), "shards")
            return [storage.join(shards, part["digest"], "part.json") for part in found["parts"]]
        return list(uris(found))
    except storage.MissingError:
        return []
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{uri} is not the record that it should be ({type(error).__name__}), so nobody can tell what it "
            "names and nothing is deleted; restore or remove it"
        ) from error
