"""Which versions and predictions are old enough to go."""

from pathlib import Path

import pytest

from nightshift.config.upkeep import DAY, Retention
from nightshift.records import Decision
from nightshift.tracking import ledger, registry
from nightshift.tracking.inventory import Version
from nightshift.workflows.upkeep.retention import removable, stale_predictions

NOW = 1000 * DAY
SETTINGS = Retention(version_days=100, keep_versions=2, prediction_days=50)


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIGHTSHIFT_STORE", f"file://{tmp_path}")


def version(number: int, *, age: float = 500, alias: str = "", source: str = "", **tags: str) -> Version:
    own = {registry.SHA256: f"{number:064}", registry.STATE: "refused"}
    changed = own | {f"nightshift.{name}": value for name, value in tags.items()}
    aliases = (alias,) if alias else ()
    return Version(
        "pets", str(number), changed, aliases, NOW - age * DAY, source or f"models:/m-{number:032x}"
    )


def gone(*versions: Version, settings: Retention = SETTINGS) -> list[int]:
    newest = (version(98, age=1), version(99, age=1))
    return [int(each.version) for each in removable([*versions, *newest], settings, NOW)]


def crowned(number: int) -> None:
    facts = {"pipeline": "pets", "kind": "promoted", "version": str(number), "sha256": "0" * 64}
    digests = {"dataset": "d", "data_digest": "d", "settings_digest": "s"}
    rest = {"replaces": None, "by": "policy", "at": "2026-01-01T00:00:00.000Z", "night": "n", "reasons": ()}
    ledger.append(Decision.model_validate(facts | digests | rest))


@pytest.mark.parametrize(
    ("one", "goes"),
    [
        (version(1), True),
        (version(1, state="rolled-back"), True),  # without a move in the ledger it never was champion
        (version(1, age=99), False),
        (version(1, alias="champion"), False),
        (version(1, alias="shadow"), False),
        (version(1, state="challenger", age=500), True),  # no approval waits as long
        (version(1, age=101, state="challenger"), True),
        (Version("pets", "1", {"mine": "x"}, (), 0.0, ""), False),  # somebody else's
    ],
)
def test_a_version_goes_when_nothing_speaks_for_it(one: Version, goes: bool) -> None:
    assert gone(one) == ([1] if goes else [])


def test_a_challenger_waits_as_long_as_an_approval_may() -> None:
    settings = SETTINGS.model_copy(update={"version_days": 30})
    assert gone(version(1, age=80, state="challenger"), version(2, age=80), settings=settings) == [2]
    assert gone(version(1, age=95, state="challenger"), settings=settings) == [1]


def test_grace_holds_for_versions_too() -> None:
    settings = SETTINGS.model_copy(update={"version_days": 1, "grace_days": 30})
    assert gone(version(1, age=20), version(2, age=31), settings=settings) == [2]


def test_who_was_champion_stays() -> None:
    assert gone(version(1), version(2)) == [1, 2]
    crowned(1)
    assert gone(version(1), version(2)) == [2]


def test_the_newest_of_each_model_stay_by_number_and_not_by_name() -> None:
    own = [version(number) for number in (9, 10, 2)]
    assert [each.version for each in removable(own, SETTINGS, NOW)] == ["2"]
    others = [each._replace(name="cars") for each in own]
    assert {(each.name, each.version) for each in removable([*own, *others], SETTINGS, NOW)} == {
        ("pets", "2"),
        ("cars", "2"),
    }


@pytest.mark.parametrize("tag", ["best_version", "champion"])
def test_what_a_version_that_stays_was_compared_with_stays_and_what_that_was_compared_with(tag: str) -> None:
    chain = (version(1), version(2, **{tag: "1"}), version(3, **{tag: "2"}))
    assert gone(*chain) == [1, 2, 3]
    assert gone(*chain, version(4, alias="x", **{tag: "3"})) == []
    assert gone(*chain, version(4, alias="x", **{tag: "2"})) == [3]


def test_what_was_copied_by_a_version_that_stays_stays() -> None:
    copy = version(7, alias="x", source="models:/pets/1")
    twin = version(8, alias="x", source=version(2).source)
    assert gone(version(1), version(2), version(3), copy, twin) == [3]


def test_predictions_go_when_they_are_old_or_their_version_is_gone_and_newer_ones_are_there() -> None:
    registered = [version(1), version(2, alias="champion"), version(3)]
    found = stale_predictions(
        {
            f"predictions/pets/{unit}": NOW - age * DAY
            for unit, age in {
                "1/mon": 60,
                "1/tue": 60,
                "1/wed": 40,
                "2/mon": 55,
                "2/wed": 70,
                "3/mon": 2,
                "3/wed": 1,
                "9/mon": 3,
                "9/sun": 900,
            }.items()
        },
        registered,
        SETTINGS,
        NOW,
    )
    assert found == {
        "predictions/pets/1/mon": "older than 50 days, and there are newer predictions of batch mon",
        "predictions/pets/9/mon": "version 9 of pets is not registered any more, and there are newer "
        "predictions of batch mon",
    }
