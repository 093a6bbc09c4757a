"""Promotion: what may move, what a person decides, and what the ledger keeps of it."""

import pytest
from promotions import act, challenger, champion, kinds
from waiting import wait_for

from nightshift import storage
from nightshift.cli.airflow_api import Airflow
from nightshift.config import store_root
from nightshift.errors import InputError, OutageError
from nightshift.records import Decision, PromotionPrecondition
from nightshift.tracking import ledger, registry


def test_a_move_is_in_the_ledger_and_on_the_version_with_what_it_replaced(registering):
    first, second = challenger("moved", 1), challenger("moved", 2)
    assert act("move", "moved", first).proceed
    assert act("move", "moved", second, by="ada", reason="because").proceed
    assert champion("moved") == second
    assert kinds("moved") == [("promoted", first, None), ("promoted", second, first)]
    entry = ledger.history("moved")[-1]
    assert (entry.by, entry.reasons, entry.evidence) == ("ada", ("because",), "s3://reports/2")
    tags = registry.version_tags("moved", second)
    (kept,) = [value for key, value in tags.items() if key.startswith(registry.DECISION)]
    assert Decision.model_validate_json(kept) == entry
    again = act("move", "moved", second)
    assert not again.proceed
    assert "is the champion already" in again.reason
    assert len(kinds("moved")) == 2


def test_a_try_again_finishes_what_was_decided_and_says_so_once(registering, monkeypatch):
    first, second = challenger("retried", 1), challenger("retried", 2)
    act("move", "retried", first)

    def cut_off(*arguments):
        raise OutageError("MLflow is away")

    with monkeypatch.context() as patch:
        patch.setattr(registry, "set_alias", cut_off)
        with pytest.raises(OutageError):
            act("move", "retried", second, run="r2")
    assert champion("retried") == first
    for _ in range(2):  # also when the alias was moved and the task was cut off after that
        result = act("move", "retried", second, run="r2")
        assert (result.proceed, result.replaces) == (True, first)
    assert champion("retried") == second
    assert kinds("retried") == [("promoted", first, None), ("promoted", second, first)]


def test_an_offer_is_superseded_once_a_newer_challenger_came(registering):
    old, new = challenger("race", 1), challenger("race", 2)
    result = act("move", "race", old, only_challenger=True)
    assert not result.proceed
    assert result.reason == f"version {old} was superseded by version {new}"
    assert champion("race") is None
    assert kinds("race") == [("superseded", old, None)]
    waited = act("record", "race", old, only_challenger=True, outcome="expired", by="time-out")
    assert waited.reason == f"version {old} was superseded by version {new}"


def test_an_approval_holds_for_the_champion_that_it_saw(registering):
    first, second, third = (challenger("waiting", seed) for seed in (1, 2, 3))
    act("move", "waiting", first)
    asked = act("check", "waiting", third)
    assert asked.bound == PromotionPrecondition(sha256=asked.sha256, champion=first, test="")
    act("move", "waiting", second)
    result = act("move", "waiting", third, bound=asked.bound)
    assert not result.proceed
    assert f"version {second} is champion, it was version {first} when this was decided" in result.reason
    assert champion("waiting") == second
    assert kinds("waiting")[-1] == ("stale", third, second)
    assert registry.alias_version("waiting", "challenger") == third


def test_an_offer_that_was_judged_beside_another_champion_is_judged_again(registering):
    first = challenger("beside", 1)
    act("move", "beside", first)
    offered = challenger("beside", 2, **{registry.CHAMPION_THEN: ""})
    result = act("check", "beside", offered, only_challenger=True)
    assert not result.proceed
    assert f"judged beside no champion, and version {first} is champion now" in result.reason
    assert act("check", "beside", offered).proceed  # by hand it is a person's decision


def test_other_test_images_void_the_decision(registering, ml_dataset):
    digest = ml_dataset.digest
    tags = {registry.DATASET: digest, registry.TEST: ml_dataset.test_digest}
    version = challenger("images", 1, **tags)
    asked = act("check", "images", version)
    assert asked.proceed
    less = ml_dataset.shards[-1].model_copy(update={"drop": (0,)})
    changed = ml_dataset.model_copy(update={"shards": (*ml_dataset.shards[:-1], less)})
    storage.write_record(storage.join(store_root(), "datasets", f"{digest}.json"), changed)
    result = act("move", "images", version, bound=asked.bound)
    assert not result.proceed
    assert f"the test images it was judged on ({ml_dataset.test_digest[:12]})" in result.reason
    assert champion("images") is None


def test_another_file_than_the_evaluated_one_is_not_promoted(registering):
    version = challenger("swapped", 1)
    with pytest.raises(InputError, match=r"version 1 of swapped has SHA-256 .*: not moved"):
        act("move", "swapped", version, sha256="0" * 64)
    registry.set_version_tag("swapped", version, registry.SHA256, "1" * 64)
    with pytest.raises(InputError, match="do not use it"):
        act("move", "swapped", version)
    assert champion("swapped") is None
    assert kinds("swapped") == [("stale", version, None)]


def test_a_refused_version_is_not_promoted(registering):
    version = challenger("slow", 1, state="refused")
    with pytest.raises(InputError, match="version 1 of slow was refused: too slow"):
        act("check", "slow", version)


def test_rolling_back_goes_to_the_champion_before_again_and_again(registering):
    first, second, third = (challenger("back", seed) for seed in (1, 2, 3))
    for version in (first, second, third):
        act("move", "back", version)
    looked = act("check", "back", intent="roll back")
    assert (looked.version, looked.replaces, looked.proceed) == (second, third, True)
    act("move", "back", second, intent="roll back", by="ada", reason="too slow", bound=looked.bound)
    assert champion("back") == second
    assert kinds("back")[-1] == ("rolled-back", second, third)
    assert registry.version_tags("back", third)[registry.STATE] == "rolled-back"
    act("move", "back", intent="roll back")
    assert champion("back") == first
    with pytest.raises(InputError, match="back has no champion before the present one"):
        act("check", "back", intent="roll back")


def test_what_never_was_champion_is_nothing_to_roll_back_to(registering):
    first, second, third = (challenger("never", seed) for seed in (1, 2, 3))
    act("move", "never", first)
    act("move", "never", second)
    with pytest.raises(InputError, match=f"version {third} of never was never champion"):
        act("check", "never", third, intent="roll back")


def test_rolling_back_does_not_need_the_old_data(registering):
    first = challenger("old", 1, **{registry.DATASET: "a" * 64, registry.TEST: "b" * 64})
    second = challenger("old", 2)
    registry.set_alias("old", "champion", first)
    act("check", "old", second)  # which finds the move by hand
    act("move", "old", second)
    assert act("move", "old", intent="roll back").proceed
    assert champion("old") == first


def test_the_approver_reads_gates_digest_and_where_the_report_is(registering):
    version = challenger("read", 1)
    result = act("check", "read", version)
    assert "- ✓ gain: it is smaller" in result.body
    assert f"SHA-256 `{result.sha256}`" in result.body
    assert "/artifacts/report/report.html)" in result.body
    assert "/#/models/read/versions/1)" in result.body
    assert "as the first champion" in result.body


def test_a_move_by_hand_that_is_not_accepted_is_put_back_where_the_policy_says_so(registering):
    first, second = challenger("hand", 1), challenger("hand", 2)
    bad = challenger("hand", 3, **{f"{registry.GATE}size": "FAIL: too large"})
    act("move", "hand", first)
    registry.set_alias("hand", "champion", bad)
    looked = act("check", "hand", intent="audit", manual_moves="report")
    assert not looked.proceed
    assert "is disputed: it failed size" in looked.reason
    assert champion("hand") == bad
    assert act("check", "hand", intent="audit", manual_moves="put_back").proceed
    assert act("move", "hand", second, manual_moves="put_back").version == first
    assert champion("hand") == first
    assert [kind for kind, _, _ in kinds("hand")] == ["promoted", "disputed", "put-back"]


def test_a_refused_version_stays_refused_after_it_was_put_back(registering):
    good = challenger("again", 1)
    act("move", "again", good)
    bad = challenger("again", 2, state="refused", **{f"{registry.GATE}size": "FAIL: too large"})
    registry.set_alias("again", "champion", bad)
    act("move", "again", intent="audit", manual_moves="put_back", run="r")
    assert champion("again") == good
    assert registry.version_tags("again", bad)[registry.STATE] == "refused"
    with pytest.raises(InputError, match="was refused"):
        act("check", "again", bad)


def test_only_what_passed_every_gate_is_promoted_whatever_its_state_says(registering):
    failed = challenger("ungated", 1, state="superseded", **{f"{registry.GATE}size": "FAIL: too large"})
    with pytest.raises(InputError, match=rf"version {failed} of ungated cannot be promoted: it failed size"):
        act("move", "ungated", failed)
    foreign = challenger("ungated", 2)
    registry.client().delete_model_version_tag("ungated", foreign, f"{registry.GATE}gain")
    with pytest.raises(InputError, match="was never judged by any gate"):
        act("move", "ungated", foreign)
    assert champion("ungated") is None


def test_a_stale_offer_stays_challenger(registering):
    first, second = challenger("void", 1), challenger("void", 2)
    asked = act("check", "void", first)
    act("move", "void", second)
    assert not act("move", "void", first, bound=asked.bound).proceed
    assert registry.version_tags("void", first)[registry.STATE] == "challenger"


def test_a_second_promotion_of_a_version_that_was_cut_off_is_finished_once(registering, monkeypatch):
    first, second = challenger("twice", 1), challenger("twice", 2)
    act("move", "twice", first)
    act("move", "twice", second)
    asked = act("check", "twice", first, run="r")
    with monkeypatch.context() as patch:
        patch.setattr(registry, "set_alias", lambda *given: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            act("move", "twice", first, run="r", bound=asked.bound)
    assert act("move", "twice", first, run="r", bound=asked.bound).proceed
    assert [kind for kind, _, _ in kinds("twice")] == ["promoted"] * 3


def test_what_was_taken_back_is_no_measure_for_later_versions(registering):
    first, second = challenger("measure", 1), challenger("measure", 2)
    act("move", "measure", first)
    act("move", "measure", second)
    third = challenger("measure", 3, **{registry.BEST: second})
    act("move", "measure", first, intent="roll back")
    act("move", "measure", third)
    best = registry.champions("measure").best
    assert best is not None
    assert best.version == third


def test_without_an_answer_nothing_moves_where_a_person_has_to_approve(registering):
    """Somebody set the state of the task that asks; that is found out where the alias moves."""
    first, second = challenger("unanswered", 1), challenger("unanswered", 2)
    asked = act("check", "unanswered", first, asks="first")
    assert asked.asks
    result = act("move", "unanswered", first, asks="first", bound=asked.bound)
    assert not result.proceed
    assert "there is no answer, which is a refusal" in result.reason
    assert champion("unanswered") is None
    assert kinds("unanswered") == [("rejected", first, None)]
    assert act("move", "unanswered", second, asks="first", approved=True).proceed
    assert not act("check", "unanswered", first, asks="first").asks  # it is not the first any more
    assert act("check", "unanswered", first, asks="always").asks
    assert not act("move", "unanswered", first, asks="always").proceed
    assert champion("unanswered") == second


def test_a_deleted_champion_is_gone_and_locks_nothing(registering):
    first, second = challenger("deleted", 1), challenger("deleted", 2)
    act("move", "deleted", first)
    act("move", "deleted", second)
    registry.client().delete_model_version("deleted", second)
    looked = act("check", "deleted", intent="audit", manual_moves="put_back")
    assert not looked.proceed
    assert f"version {second} was the champion and was deleted by hand in MLflow" in looked.reason
    assert kinds("deleted")[-1] == ("gone", second, None)
    assert ledger.history("deleted")[-1].settings_digest == f"{2:064}"  # so that its data are trained again
    act("check", "deleted", intent="audit")
    assert len(kinds("deleted")) == 3  # it is told once
    assert act("move", "deleted", intent="roll back").version == first
    assert champion("deleted") == first
    third = challenger("deleted", 3)
    assert act("move", "deleted", third).proceed


def test_going_back_passes_over_what_was_deleted(registering):
    first, second, third = (challenger("over", seed) for seed in (1, 2, 3))
    for version in (first, second, third):
        act("move", "over", version)
    registry.client().delete_model_version("over", second)
    with pytest.raises(InputError, match=f"version {second} of over is not in MLflow at .*, or not any more"):
        act("check", "over", second, intent="roll back")
    assert act("move", "over", intent="roll back").version == first


def test_a_model_that_is_deleted_and_made_anew_begins_again(registering):
    """Its versions begin at 1 again, which are others than those that the ledger knows by these numbers."""
    act("move", "anew", challenger("anew", 1))
    registry.client().delete_registered_model("anew")
    again = challenger("anew", 2)
    assert again == "1"
    with pytest.raises(InputError, match="was never champion"):
        act("check", "anew", again, intent="roll back")
    assert act("move", "anew", again).proceed
    assert [kind for kind, _, _ in kinds("anew")] == ["promoted", "gone", "promoted"]


def test_a_best_version_that_is_lost_is_told_and_stood_in_for(registering, capsys):
    first, second = challenger("lost", 1), challenger("lost", 2)
    third = challenger("lost", 3, **{registry.BEST: second, registry.CHAMPION_THEN: first})
    registry.set_alias("lost", "champion", third)
    assert registry.champions("lost").best.version == second
    registry.set_version_tag("lost", second, registry.SHA256, "0" * 64)  # not trusted any more
    assert registry.champions("lost").best.version == first
    assert f"version {second}, the best champion of lost so far, cannot be compared with" in (
        capsys.readouterr().out
    )
    for version in (second, first):
        registry.client().delete_model_version("lost", version)
    assert registry.champions("lost").best.version == third


def test_what_was_cut_off_for_good_is_done_by_whoever_comes_next(registering, monkeypatch):
    first, second = challenger("left", 1), challenger("left", 2)
    act("move", "left", first)
    with monkeypatch.context() as patch:
        patch.setattr(registry, "set_alias", lambda *given: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            act("move", "left", second, run="r")
    assert champion("left") == first
    assert "that was cut off: it is done now" in act("check", "left", intent="audit").reason
    assert champion("left") == second
    third = challenger("left", 3)
    act("move", "left", third)
    late = act("move", "left", second, run="r")  # its last retry, which must not move the alias back
    assert not late.proceed
    assert "meanwhile version 3 is" in late.reason
    assert champion("left") == third


def test_a_first_champion_by_hand_that_is_not_accepted_is_taken_away(registering):
    bad = challenger("nobody", 1, **{f"{registry.GATE}size": "FAIL: too large"})
    registry.set_alias("nobody", "champion", bad)
    assert act("check", "nobody", intent="audit", manual_moves="put_back").proceed
    act("move", "nobody", intent="audit", manual_moves="put_back", run="r")
    assert champion("nobody") is None
    assert kinds("nobody") == [("disputed", bad, None), ("removed", bad, None)]


def test_going_back_from_a_disputed_champion_leads_to_the_last_accepted_one(registering):
    first, second = challenger("aside", 1), challenger("aside", 2)
    bad = challenger("aside", 3, **{f"{registry.GATE}size": "FAIL: too large"})
    act("move", "aside", first)
    act("move", "aside", second)
    registry.set_alias("aside", "champion", bad)
    assert act("move", "aside", intent="roll back").version == second


def wait(airflow: Airflow, run_id: str, *states: str) -> None:
    def reached() -> bool:
        found = {task["state"] for task in airflow.tasks("promote_asked", run_id)}
        return bool(found & set(states)) or airflow.run_state("promote_asked", run_id) in states

    wait_for(reached, f"the promotion to be one of {states}")


@pytest.mark.parametrize(("option", "kind"), [("Approve", "promoted"), ("Reject", "rejected")])
def test_a_person_decides_where_the_pipeline_asks_for_one(stack, option, kind):
    version = challenger("asked", len(option))
    before = registry.alias_version("asked", "champion")
    airflow = Airflow()
    run_id = airflow.trigger("promote_asked", {"version": version})
    wait(airflow, run_id, "awaiting_input")
    assert registry.alias_version("asked", "champion") == before
    airflow.respond("promote_asked", run_id, "approve", option)
    wait_for(lambda: airflow.run_state("promote_asked", run_id) != "running", "the promotion's end")
    assert airflow.run_state("promote_asked", run_id) == "success"
    assert registry.alias_version("asked", "champion") == (version if kind == "promoted" else before)
    latest = ledger.history("asked")[-1]
    assert (latest.kind, latest.version, latest.by) == (kind, version, "admin")
    ended = f"is {kind}" if kind == "rejected" else "is the champion"
    waits, told = [text for text in stack.hook.texts if text.startswith(f"asked: version {version} ")]
    assert waits == f"asked: version {version} waits for approval"
    assert told.startswith(f"asked: version {version} {ended}")
