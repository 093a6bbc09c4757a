"""How long registered versions and predictions are kept."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from nightshift.config.upkeep import DAY, Retention
from nightshift.tracking import ledger, registry
from nightshift.tracking.inventory import Version

LONGEST_APPROVAL: Final = 90 * DAY  # the largest promotion.approval_hours: then a challenger waits no more


def removable(versions: Sequence[Version], settings: Retention, now: float) -> list[Version]:
    """The versions that may be removed, oldest first, `now` in seconds since 1970.

    One stays that has an alias, was champion, waits for a decision, is young or among the newest of its
    model, was not made here, or is what a version that stays was compared with or copied from.
    """
    by_model: dict[str, list[Version]] = {}
    for version in versions:
        by_model.setdefault(version.name, []).append(version)
    gone: list[Version] = []
    for name, own in by_model.items():
        own.sort(key=lambda version: int(version.version))
        reigned = {move.version for move in ledger.moves(name)} if any(map(_is_ours, own)) else set()
        gone += [
            version
            for version in own[: -settings.keep_versions]
            if _is_ours(version)
            and not version.aliases
            and version.version not in reigned
            and not _waits(version, now)
            and now - version.created > max(settings.version_days, settings.grace_days) * DAY
        ]
    return _unnamed(versions, gone)


def _is_ours(version: Version) -> bool:
    return registry.SHA256 in version.tags


def _waits(version: Version, now: float) -> bool:
    return version.tags.get(registry.STATE) == "challenger" and now - version.created < LONGEST_APPROVAL


def _unnamed(versions: Sequence[Version], gone: Iterable[Version]) -> list[Version]:
    """Those of `gone` that no version names that stays, nor one that stays because it is named."""
    going = {version.uri: version for version in gone}
    waiting = [version for version in versions if version.uri not in going]
    by_source: dict[str, list[str]] = {}
    for version in versions:
        by_source.setdefault(version.source, []).append(version.uri)
    while waiting:
        kept = waiting.pop()
        numbers = (kept.tags.get(registry.BEST), kept.tags.get(registry.CHAMPION_THEN))
        named = [f"models:/{kept.name}/{number}" for number in numbers if number]
        for uri in (*named, kept.source, *by_source[kept.source]):  # a copy's file is that of its source
            if uri in going:
                waiting.append(going.pop(uri))
    return list(going.values())


def stale_predictions(
    modified: Mapping[str, float], versions: Iterable[Version], settings: Retention, now: float
) -> dict[str, str]:
    """Why predictions may go, by unit; `modified` has all units, with seconds since 1970.

    A unit is `predictions/<pipeline>/<version>/<batch>`.
    The newest predictions of a batch always stay; others stay while their version is registered and they are
    younger than `prediction_days` or those of the champion.
    """
    aliases = {(version.name, version.version): version.aliases for version in versions}
    newest: dict[tuple[str, str], str] = {}
    for unit, when in modified.items():
        _, pipeline, _, batch = unit.split("/")
        other = newest.setdefault((pipeline, batch), unit)
        if when > modified[other]:
            newest[pipeline, batch] = unit
    reasons = {}
    for unit in modified.keys() - newest.values():
        _, pipeline, number, batch = unit.split("/")
        later = f"there are newer predictions of batch {batch}"
        if (pipeline, number) not in aliases:
            reasons[unit] = f"version {number} of {pipeline} is not registered any more, and {later}"
        elif (
            registry.CHAMPION not in aliases[pipeline, number]
            and now - modified[unit] > settings.prediction_days * DAY
        ):
            reasons[unit] = f"older than {settings.prediction_days:g} days, and {later}"
    return reasons
