"""Cleaning up: what nothing needs any more is listed, and what is on the list is deleted.

python -m nightshift upkeep --spec spec.json --result result.json

`look` writes the list, `upkeep/<time>.json`; `delete` deletes what is on it and nothing else, after it looked
once more whether something that was wanted since is among it. So a dry run shows what a run does. What is
deleted first is what says that the rest is whole, so that nobody reads half of something, and a delete that
was broken off is finished by running it again.
"""

import itertools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from time import time
from typing import Final, NamedTuple

from pydantic import BaseModel

from nightshift import storage
from nightshift.config import store_root
from nightshift.config.upkeep import Retention
from nightshift.errors import OutageError
from nightshift.records.specs import UpkeepSpec
from nightshift.records.upkeep import GarbageItem, GarbageList, Tally
from nightshift.runner.json_logs import one_line
from nightshift.tracking import inventory, owners
from nightshift.tracking.inventory import Version
from nightshift.workflows.upkeep import integrity, retention
from nightshift.workflows.upkeep.garbage import KNOWN, GarbageFinder
from nightshift.workflows.upkeep.reachable import ReachableSet

MARKERS: Final = {"part.json", "checkpoint.json", "candidate.json", "sweep.json", "_SUCCESS", "MLmodel"}
DELETIONS: Final = 16  # at a time; each waits for its server


class UpkeepResult(BaseModel):
    """What came of it; `objects` and `size` (bytes) are of the list, `deleted` and `spared` of this try."""

    list_uri: str
    objects: int
    size: int
    tallies: dict[str, Tally]
    findings: tuple[str, ...]
    remarks: tuple[str, ...]
    deleted: int = 0
    spared: int = 0  # wanted by now, or gone already


class Survey(NamedTuple):
    """What may go, the versions that stay, and what is wrong between ledger and MLflow."""

    leftovers: GarbageFinder
    kept: list[Version]
    findings: list[str]


def upkeep(spec: UpkeepSpec) -> UpkeepResult:
    """Run the action. Raises InputError when nobody can tell what is wanted; then nothing is deleted."""
    now = time() if spec.now is None else spec.now
    if spec.action == "look":
        return look(spec.settings, spec.named, now)
    return delete(spec.list_uri, now)


def look(settings: Retention, named: Sequence[str], now: float) -> UpkeepResult:
    """Write down what may go; deletes nothing."""
    found, kept, findings = survey(settings, named, now)
    unknown = [f"{name}/ is not known here and is not touched" for name in sorted(found.folders() - KNOWN)]
    cleaning = GarbageList(
        at=now,
        settings=settings,
        named=tuple(named),
        doomed=tuple(sorted(found.doomed, key=_turn)),
        tallies=found.tallies,
        findings=(*findings, *integrity.missing_artifacts(kept)),
        remarks=(*found.remarks, *unknown),
    )
    name = f"{datetime.fromtimestamp(now, UTC):%Y-%m-%dT%H%M%S.%fZ}.json"
    uri = storage.write_record(storage.join(store_root(), "upkeep", name), cleaning).uri
    for doomed in cleaning.doomed:
        print(one_line(f"may go: {doomed.uri}: {doomed.reason}"))
    for sentence in (*cleaning.findings, *cleaning.remarks):
        print(one_line(f"upkeep: {sentence}"))
    result = _result(uri, cleaning)
    print(f"upkeep: {result.objects:,} things of {result.size / 1e6:,.1f} MB may go, see {uri}")
    return result


def survey(settings: Retention, named: Sequence[str], now: float) -> Survey:
    """Mark what is named, then sweep the rest; `now` in seconds since 1970."""
    owners.check()
    versions = inventory.versions()
    findings = integrity.check_mlflow(versions)
    gone = retention.removable(versions, settings, now)
    removed = {version.uri for version in gone}
    kept = [version for version in versions if version.uri not in removed]
    found, reach = GarbageFinder(settings, now), ReachableSet()
    reach.add(list(named))
    reach.add_versions(kept)
    reach.add_ledger()
    found.add_young(reach)
    found.versions(gone)
    found.units(reach)
    found.predictions(kept)
    found.temporary()
    found.logs()
    found.uploads()
    found.artifacts(gone, kept)
    return Survey(found, kept, findings)


def delete(list_uri: str, now: float) -> UpkeepResult:
    """Delete what `look` listed, but for what is wanted by now."""
    listed = storage.read_record(list_uri, GarbageList)
    found = survey(listed.settings, listed.named, now).leftovers
    unwanted = {(each.uri, each.upload) for each in found.doomed}
    doomed = [each for each in listed.doomed if (each.uri, each.upload) in unwanted]
    for each in listed.doomed:
        if (each.uri, each.upload) not in unwanted:
            print(f"stays: {one_line(each.uri)}: it is wanted by now, or gone already")
    deleted = 0
    with ThreadPoolExecutor(DELETIONS) as pool:
        for _, turn in itertools.groupby(doomed, key=_turn):  # one after the other
            deleted += sum(pool.map(_delete, turn))
    result = _result(list_uri, listed)
    result.deleted, result.spared = deleted, len(listed.doomed) - deleted
    print(f"upkeep: {deleted:,} of {result.objects:,} things are deleted, {result.spared:,} are not")
    return result


def _delete(doomed: GarbageItem) -> bool:
    """False when it cannot be deleted after all, which must not keep the others."""
    if doomed.kind == "versions":
        name, version = doomed.uri.removeprefix("models:/").rsplit("/", 1)
        if not inventory.remove(name, version):
            raise OutageError(
                f"{doomed.uri} got an alias while it was to be removed; delete again, which looks anew first"
            )
    elif doomed.upload:
        storage.abort(doomed.uri, doomed.upload)
    else:
        try:
            storage.delete(doomed.uri)
        except storage.UnsafeKeyError as error:
            print(one_line(f"stays: {error}"))
            return False
    print(one_line(f"deleted: {doomed.uri}: {doomed.reason}"), flush=True)
    return True


def _turn(doomed: GarbageItem) -> int:
    """Versions first, then what says that something is whole, then the rest."""
    folder, _, name = doomed.uri.rpartition("/")
    if doomed.kind == "versions":
        return 0
    return 1 if name in MARKERS or doomed.kind in ("datasets", "plans") or folder.endswith("/_parts") else 2


def _result(uri: str, found: GarbageList) -> UpkeepResult:
    return UpkeepResult(
        list_uri=uri,
        objects=len(found.doomed),
        size=sum(each.size for each in found.doomed),
        tallies=found.tallies,
        findings=found.findings,
        remarks=found.remarks,
    )
