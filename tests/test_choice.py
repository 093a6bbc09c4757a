"""The choice among candidates, on numbers small enough to check by hand."""

import pytest
from some_conditions import CONDITIONS
from speeds import MACHINE, speed

from nightshift.config import PromotionPolicy
from nightshift.evaluation.selection import choose, not_portable, pareto_front, unproven
from nightshift.records import Artifact, Candidate
from nightshift.records.evaluation import Comparison

POLICY = PromotionPolicy(max_accuracy_loss=0.01)
ACCURACY = {"fp32": 0.950, "int8": 0.942, "fast": 0.90}
SPEEDS = {
    "fp32": speed(3.0, size=40_000_000, throughput=400),
    "int8": speed(1.0, size=10_000_000, throughput=300),
    "fast": speed(0.1, size=1_000_000, throughput=9000),
}
FLOAT = dict.fromkeys(ACCURACY, "fp32")
VOTES = {
    "fp32": "fp32",
    "int8": "fp32",
    "fp32-soft-vote": "fp32-soft-vote",
    "int8-soft-vote": "fp32-soft-vote",
}


@pytest.mark.parametrize(
    ("objective", "expected"),
    [("latency", "int8"), ("throughput", "fp32"), ("size", "int8"), ("accuracy", "fp32")],
)
def test_the_best_by_objective_inside_the_loss_budget_is_chosen(objective, expected):
    policy = POLICY.model_copy(update={"objective": objective})
    assert choose(ACCURACY, SPEEDS, FLOAT, policy, {}).chosen == expected


def test_equals_are_told_apart_by_accuracy_and_then_by_latency():
    policy = POLICY.model_copy(update={"objective": "size"})
    same = {"a": speed(2.0), "b": speed(2.0), "c": speed(1.0)}
    references = dict.fromkeys(same, "a")
    assert choose({"a": 0.9, "b": 0.901, "c": 0.9}, same, references, policy, {}).chosen == "b"
    assert choose({"a": 0.9, "b": 0.9, "c": 0.9}, same, references, policy, {}).chosen == "c"


def test_a_candidate_beyond_the_budget_is_passed_over_with_both_numbers():
    choice = choose(
        {"fp32": 0.95, "int8": 0.938}, SPEEDS, FLOAT, PromotionPolicy(max_accuracy_loss=0.005), {}
    )
    assert choice.chosen == "fp32"
    assert choice.rejected == {
        "int8": "int8 loses 1.20 points of validation accuracy against fp32, 0.70 more than the 0.50 allowed"
    }


def test_a_candidate_that_could_saturate_is_not_taken_however_good_it_is():
    barred = not_portable({"fp32": 0, "int8": 32_895, "fast": 32_640})
    assert barred.keys() == {"int8"}
    assert "32,895" in barred["int8"]
    choice = choose(ACCURACY, SPEEDS, FLOAT, POLICY, barred)
    assert (choice.chosen, choice.rejected["int8"]) == ("fp32", barred["int8"])


def test_a_candidate_beyond_the_limits_is_passed_over_with_every_one_that_it_breaks():
    policy = POLICY.model_copy(update={"max_latency_ms": 1.8, "max_size_mb": 28.2})
    assert choose(ACCURACY, SPEEDS, FLOAT, policy, {}).rejected == {
        "fp32": "fp32 takes 3.00 ms, 1.20 ms more than the 1.80 allowed, "
        "and has 40.00 MB, 11.80 MB more than the 28.20 allowed",
        "fast": "fast loses 5.00 points of validation accuracy against fp32, 4.00 more than the 1.00 allowed",
    }


def test_who_is_inside_all_limits_and_not_the_best_is_not_passed_over():
    assert choose(ACCURACY, SPEEDS, FLOAT, PromotionPolicy(max_accuracy_loss=0.1), {}) == ("fast", {})


def test_a_limit_that_is_missed_by_little_is_said_with_more_digits():
    policy = POLICY.model_copy(update={"max_latency_ms": 2.9996})
    rejected = choose(ACCURACY, SPEEDS, FLOAT, policy, {}).rejected
    assert rejected["fp32"] == "fp32 takes 3.0000 ms, 0.0004 ms more than the 2.9996 allowed"


def test_a_loss_of_exactly_the_budget_is_inside():
    policy = POLICY.model_copy(update={"max_accuracy_loss": 0.005})
    assert choose({"fp32": 0.985, "int8": 0.98}, SPEEDS, FLOAT, policy, {}) == ("int8", {})


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        ({}, "vote"),
        ({"max_latency_ms": 2.0}, "int8"),
        ({"max_size_mb": 10.0}, "int8"),
        ({"max_latency_ms": 0.01}, "vote"),
    ],
)
def test_what_would_be_refused_for_its_time_or_size_is_chosen_only_when_all_would(limit, expected):
    policy = PromotionPolicy(objective="accuracy", max_accuracy_loss=0.01, **limit)
    accuracy, speeds = {**ACCURACY, "vote": 0.96}, {**SPEEDS, "vote": speed(3.1, size=50_000_000)}
    choice = choose(accuracy, speeds, {**FLOAT, "vote": "vote"}, policy, {})
    assert choice.chosen == expected
    assert expected not in choice.rejected
    assert set(choice.rejected) == ({"fast"} if not limit else set(accuracy) - {expected})


def test_what_loses_too_much_is_not_chosen_although_all_others_break_a_limit():
    policy = POLICY.model_copy(update={"max_latency_ms": 0.5})
    choice = choose(ACCURACY, SPEEDS, FLOAT, policy, {})
    assert choice.chosen == "int8"
    assert set(choice.rejected) == {"fp32", "fast"}


def test_a_loss_is_taken_against_the_float_candidate_of_the_same_networks():
    accuracy = {"fp32": 0.95, "int8": 0.94, "fp32-soft-vote": 0.97, "int8-soft-vote": 0.955}
    speeds = {**dict.fromkeys(accuracy, speed(2.0)), "int8-soft-vote": speed(1.0)}
    choice = choose(accuracy, speeds, VOTES, POLICY, {})
    assert choice.chosen == "fp32-soft-vote"
    assert list(choice.rejected) == ["int8-soft-vote"]
    assert "1.50 points of validation accuracy against fp32-soft-vote" in choice.rejected["int8-soft-vote"]


def test_without_its_float_reference_a_candidate_is_passed_over_however_good_it_is():
    accuracy = {"fp32": 0.9, "int8-soft-vote": 0.99}
    references = {name: VOTES[name] for name in accuracy}
    speeds = {"fp32": speed(9.0), "int8-soft-vote": speed(0.1)}
    why = "because its reference fp32-soft-vote is missing"
    sentence = f"int8-soft-vote cannot show what accuracy it loses, {why}"
    assert choose(accuracy, speeds, references, POLICY, {}) == ("fp32", {"int8-soft-vote": sentence})
    assert unproven(references) == {"int8-soft-vote": sentence}
    assert unproven(VOTES) == {}


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        ({"a": (0.9, 1.0)}, "a"),
        ({"a": (0.9, 1.0), "b": (0.8, 2.0)}, "a"),
        ({"a": (0.9, 2.0), "b": (0.8, 1.0)}, "ba"),
        ({"a": (0.9, 2.0), "b": (0.9, 1.0)}, "b"),
        ({"a": (0.9, 1.0), "b": (0.8, 1.0)}, "a"),
        ({"b": (0.9, 1.0), "a": (0.9, 1.0)}, "ab"),
        ({"a": (0.9, 3.0), "b": (0.8, 1.0), "c": (0.85, 2.0), "d": (0.84, 2.5), "e": (0.9, 3.5)}, "bca"),
    ],
)
def test_the_front_has_those_that_none_beats_quickest_first(points, expected):
    accuracy = {name: share for name, (share, _) in points.items()}
    speeds = {name: speed(latency) for name, (_, latency) in points.items()}
    assert pareto_front(accuracy, speeds) == tuple(expected)


def test_a_loss_is_known_only_where_the_reference_is():
    file = Artifact(uri="s3://x/y", sha256="0" * 64, size=1)
    candidates = {
        name: Candidate(
            recipe=recipe,
            vote=vote,
            model=file,
            checkpoints=(),
            details={},
            seconds=1,
            made_with=CONDITIONS,
        )
        for name, recipe, vote in (
            ("fp32", "fp32", None),
            ("int8", "int8", None),
            ("int8-soft-vote", "int8", "soft"),
        )
    }
    accuracy = {"fp32": 0.9, "int8": 0.88, "int8-soft-vote": 0.9}
    compared = Comparison(candidates, accuracy, {}, MACHINE, "fp32", {}, ())
    assert compared.loss("int8") == pytest.approx(0.02)
    assert compared.loss("int8-soft-vote") is None
