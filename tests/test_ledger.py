"""The ledger is append-only, finds decisions by digest, and never doubles one."""

import pytest

from nightshift.records import Decision
from nightshift.tracking import ledger


@pytest.fixture(autouse=True)
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("NIGHTSHIFT_STORE", f"file://{tmp_path}")


def decision(kind: str, version: str = "1", data: str = "d" * 64, at: str = "2026-01-01T00:00:00.000Z"):
    return Decision(
        pipeline="pets",
        kind=kind,
        version=version,
        sha256="0" * 64,
        dataset="a" * 64,
        data_digest=data,
        settings_digest="s" * 64,
        replaces=None,
        by="policy",
        at=at,
        night="n",
        reasons=("because",),
    )


def test_a_repeated_decision_keeps_its_first_time():
    first = ledger.append(decision("promoted"))
    again = ledger.append(decision("promoted", at="2026-02-02T00:00:00.000Z"))
    assert again == first
    assert first.number == 1
    assert [entry.at for entry in ledger.history("pets")] == ["2026-01-01T00:00:00.000Z"]


def test_a_version_promoted_again_later_is_a_new_entry():
    ledger.append(decision("promoted", at="2026-01-01T00:00:00.000Z"))
    ledger.append(decision("promoted", version="2", at="2026-01-02T00:00:00.000Z"))
    ledger.append(decision("promoted", at="2026-01-03T00:00:00.000Z"))
    assert [entry.version for entry in ledger.history("pets")] == ["1", "2", "1"]


def test_only_final_decisions_on_the_same_digests_count():
    ledger.append(decision("challenger"))
    assert ledger.decided("pets", "d" * 64, "s" * 64, waiting=False) is None
    ledger.append(decision("refused", version="2"))
    found = ledger.decided("pets", "d" * 64, "s" * 64, waiting=False)
    assert found is not None
    assert found.kind == "refused"
    assert ledger.decided("pets", "e" * 64, "s" * 64, waiting=False) is None


def test_a_challenger_that_waits_for_a_person_counts_when_the_policy_asks_for_one():
    ledger.append(decision("challenger"))
    found = ledger.decided("pets", "d" * 64, "s" * 64, waiting=True)
    assert found is not None
    assert found.kind == "challenger"


def test_the_latest_decision_is_the_newest_that_decides():
    assert ledger.latest("pets", waiting=False) is None
    ledger.append(decision("promoted", at="2026-01-01T00:00:00.000Z"))
    ledger.append(decision("challenger", version="2", data="e" * 64, at="2026-01-02T00:00:00.000Z"))
    undecided, asked = ledger.latest("pets", waiting=False), ledger.latest("pets", waiting=True)
    assert undecided is not None
    assert asked is not None
    assert (undecided.version, asked.version) == ("1", "2")


def test_the_newest_promotion_is_found_among_refusals():
    ledger.append(decision("promoted", at="2026-01-01T00:00:00.000Z"))
    ledger.append(decision("promoted", version="2", at="2026-01-02T00:00:00.000Z"))
    ledger.append(decision("refused", version="3", at="2026-01-03T00:00:00.000Z"))
    found = ledger.champion("pets")
    assert found is not None
    assert found.version == "2"


def test_the_newest_registration_is_found_whatever_followed():
    assert ledger.registered("pets") is None
    ledger.append(decision("challenger", at="2026-01-01T00:00:00.000Z"))
    ledger.append(decision("refused", version="2", at="2026-01-02T00:00:00.000Z"))
    ledger.append(decision("promoted", at="2026-01-03T00:00:00.000Z"))
    found = ledger.registered("pets")
    assert found is not None
    assert (found.kind, found.version) == ("refused", "2")


def test_a_data_set_that_was_cleaned_away_is_none():
    assert ledger.dataset("a" * 64) is None


def moved(*steps: tuple[str, str]) -> None:
    for day, (kind, version) in enumerate(steps, start=1):
        ledger.append(decision(kind, version=version, at=f"2026-01-{day:02}T00:00:00.000Z"))


def reign() -> list[str]:
    return [move.version for move in ledger.reign("pets")]


def test_the_reign_is_who_followed_whom_without_what_was_taken_back():
    assert ledger.reign("pets") == []
    moved(("promoted", "1"), ("refused", "2"), ("promoted", "3"), ("adopted", "4"), ("promoted", "5"))
    assert reign() == ["1", "3", "4", "5"]
    ledger.append(decision("rolled-back", version="3", at="2026-02-01T00:00:00.000Z"))
    assert reign() == ["1", "3"]
    ledger.append(decision("promoted", version="6", at="2026-02-02T00:00:00.000Z"))
    ledger.append(decision("put-back", version="1", at="2026-02-03T00:00:00.000Z"))
    assert reign() == ["1"]
    found = ledger.champion("pets")
    assert found is not None
    assert (found.kind, found.version) == ("put-back", "1")


def test_moving_an_alias_decides_nothing_about_a_night():
    moved(("promoted", "1"))
    ledger.append(decision("rolled-back", version="9", data="e" * 64, at="2026-02-01T00:00:00.000Z"))
    ledger.append(decision("disputed", version="8", data="f" * 64, at="2026-02-02T00:00:00.000Z"))
    latest = ledger.latest("pets", waiting=True)
    assert latest is not None
    assert latest.version == "1"
    assert ledger.decided("pets", "e" * 64, "s" * 64, waiting=True) is None


def test_what_was_judged_beside_another_champion_is_judged_again():
    moved(("challenger", "1"), ("stale", "1"))
    for waiting in (False, True):
        assert ledger.decided("pets", "d" * 64, "s" * 64, waiting=waiting) is None


def test_a_clock_that_lags_changes_no_order():
    """A rollback by a worker whose clock is years behind comes after the promotion that it takes back."""
    ledger.append(decision("promoted", at="2026-01-01T00:00:00.000Z"))
    ledger.append(decision("promoted", version="2", at="2026-01-02T00:00:00.000Z"))
    ledger.append(decision("rolled-back", at="1999-01-01T00:00:00.000Z"))
    assert [(each.number, each.version) for each in ledger.history("pets")] == [(1, "1"), (2, "2"), (3, "1")]
    found = ledger.champion("pets")
    assert found is not None
    assert (found.kind, found.version) == ("rolled-back", "1")


def test_two_who_write_at_once_are_both_kept_and_read_in_one_order(monkeypatch):
    ledger.append(decision("promoted"))
    seen = list(ledger._entries("pets"))
    with monkeypatch.context() as patch:
        patch.setattr(ledger, "_entries", lambda pipeline: iter(seen))
        for run, version in (("a", "2"), ("b", "3")):
            ledger.append(decision("promoted", version=version).model_copy(update={"run": run}))
    entries = ledger.history("pets")
    assert [each.number for each in entries] == [1, 2, 2]
    assert {each.version for each in entries[1:]} == {"2", "3"}
    assert ledger.champion("pets") == entries[-1]


def test_a_promotion_that_is_tried_again_finds_its_entry_whatever_came_between():
    first = ledger.append(decision("promoted").model_copy(update={"run": "r"}))
    ledger.append(decision("promoted", version="2"))
    assert ledger.append(decision("promoted").model_copy(update={"run": "r"})) == first
    assert ledger.moved_by("pets", "r") == first
    assert ledger.moved_by("pets", "other") is None


def test_a_champion_that_is_gone_is_none_and_its_data_are_trained_again():
    moved(("promoted", "1"), ("promoted", "2"), ("gone", "2"))
    assert ledger.champion("pets") is None
    assert reign() == ["1"]
    assert ledger.decided("pets", "d" * 64, "s" * 64, waiting=True) is None
    ledger.append(decision("promoted", version="3", at="2026-01-04T00:00:00.000Z"))
    assert reign() == ["1", "3"]
