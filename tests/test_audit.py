"""Moves of the alias that somebody made by hand in MLflow."""

import pytest
from promotions import act, challenger, champion, kinds

from nightshift.tracking import registry
from nightshift.workflows.promote.audit import BY_HAND, audit


def test_the_champion_of_the_ledger_is_no_news(registering):
    assert audit("quiet").reason == "there is no champion"
    first = challenger("quiet", 1)
    act("move", "quiet", first)
    found = audit("quiet")
    assert found.accepted
    assert "that the ledger knows" in found.reason
    assert len(kinds("quiet")) == 1


def test_a_version_that_passed_is_accepted_and_recorded_once(registering):
    first, second = challenger("liked", 1), challenger("liked", 2)
    act("move", "liked", first)
    registry.set_alias("liked", "champion", second)
    for _ in range(2):
        assert act("check", "liked", intent="audit").replaces == second
    assert kinds("liked") == [("promoted", first, None), ("adopted", second, first)]
    tags = registry.version_tags("liked", second)
    assert any(key.startswith(registry.DECISION) and BY_HAND in value for key, value in tags.items())
    assert champion("liked") == second


def test_a_version_without_gates_or_with_another_file_is_disputed(registering):
    first = challenger("odd", 1)
    act("move", "odd", first)
    changed = challenger("odd", 2)
    registry.set_version_tag("odd", changed, registry.SHA256, "0" * 64)
    registry.set_alias("odd", "champion", changed)
    found = audit("odd")
    assert (found.champion, found.accepted, found.back) == (changed, False, first)
    assert "do not use it" in found.reason
    assert kinds("odd")[-1] == ("disputed", changed, first)
    assert champion("odd") == changed  # to look moves nothing


def test_a_promotion_that_was_cut_off_is_no_move_by_hand(registering, monkeypatch):
    first, second = challenger("cut", 1), challenger("cut", 2)
    act("move", "cut", first)
    with monkeypatch.context() as patch:
        patch.setattr(registry, "set_alias", lambda *given: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            act("move", "cut", second, run="r")
    assert audit("cut").accepted
    assert [kind for kind, _, _ in kinds("cut")] == ["promoted", "promoted"]


def test_going_back_by_hand_is_found_too(registering):
    first, second = challenger("undone", 1), challenger("undone", 2)
    act("move", "undone", first)
    act("move", "undone", second)
    registry.set_alias("undone", "champion", first)
    assert audit("undone").accepted
    assert kinds("undone")[-1] == ("adopted", first, second)


def test_an_alias_that_was_removed_is_found_and_put_back(registering):
    first = challenger("gone", 1)
    act("move", "gone", first)
    registry.client().delete_registered_model_alias("gone", "champion")
    found = audit("gone")
    assert (found.accepted, found.back) == (False, first)
    assert "was removed by hand in MLflow, the ledger knows version 1" in found.reason
    act("move", "gone", intent="audit", manual_moves="put_back", run="r")
    assert champion("gone") == first
