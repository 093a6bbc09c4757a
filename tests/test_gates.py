"""The promotion policy on cases small enough to check by hand."""

import numpy as np
import pytest
from speeds import speed

from tasks.config import PromotionPolicy
from tasks.gates import Case, Rival, judge, paired_interval
from tasks.records import Drift, Scores, Verdict

POLICY = PromotionPolicy(min_accuracy=0.8, max_champion_loss=0.02, max_accuracy_loss=0.01)


def scores(accuracy=0.9, *, size=1_000_000, latency=1.0, throughput=1000, sha256="ours") -> Scores:
    return Scores(
        model="int8",
        sha256=sha256,
        images=100,
        accuracy=accuracy,
        precision=accuracy,
        recall=accuracy,
        f1=accuracy,
        per_class={},
        confusion=(),
        speed=speed(latency, size=size, throughput=throughput),
    )


def right(share: float, count: int = 100) -> np.ndarray:
    return np.arange(count) < round(share * count)


def rival(theirs=0.9, ours=0.9, *, version="4", **facts) -> Rival:
    return Rival(version, scores(theirs, **{"sha256": "theirs", **facts}), right(ours), right(theirs))


def case(**changes) -> Case:
    values = {
        "chosen": "int8",
        "reference": "fp32",
        "scores": scores(),
        "validation": {"fp32": 0.91, "int8": 0.91},
        "champion": None,
        "best": None,
        "fresher": False,
        "drift": None,
        "new_classes": (),
    }
    return Case(**{**values, **changes})


def verdict(gate: str, policy: PromotionPolicy = POLICY, **changes) -> Verdict:
    return next(found for found in judge(case(**changes), policy) if found.gate == gate)


def test_without_a_champion_its_gates_pass_and_say_so():
    verdicts = judge(case(), POLICY)
    assert [v.gate for v in verdicts] == ["accuracy floor", "non-inferiority", "gain", "quantization loss"]
    assert all(v.passed for v in verdicts)
    assert sum("there is no champion yet" in v.sentence for v in verdicts) == 2


@pytest.mark.parametrize(("limit", "passed"), [(0.3, True), (0.29, False)])
def test_drift_from_the_champions_data_is_a_gate_when_a_limit_is_set(limit, passed):
    moved = Drift(of="data", against="champion", dataset="d", psi={"brightness": 0.3, "pixels": 0.1})
    found = verdict("drift", PromotionPolicy(max_drift=limit), drift=moved)
    assert (found.passed, found.value) == (passed, 0.3)
    assert "0.300 (brightness" in found.sentence
    assert verdict("drift", PromotionPolicy(max_drift=limit)).passed


@pytest.mark.parametrize(("accuracy", "passed"), [(0.8, True), (0.79, False)])
def test_the_floor_always_holds(accuracy, passed):
    found = verdict("accuracy floor", scores=scores(accuracy))
    assert (found.passed, found.value, found.limit) == (passed, accuracy, 0.8)
    assert f"{accuracy:.2%}" in found.sentence
    assert "80.00%" in found.sentence


@pytest.mark.parametrize(("ours", "passed"), [(0.95, True), (0.93, True), (0.92, False)])
def test_a_challenger_may_lose_no_more_than_the_margin_to_the_best_champion(ours, passed):
    found = verdict("non-inferiority", best=rival(0.95, ours), champion=rival(0.5, ours, version="5"))
    assert found.passed is passed
    assert (found.value, found.limit) == (pytest.approx(ours), pytest.approx(0.93))
    assert "95.00% of version 4" in found.sentence
    assert "95 % interval" in found.sentence


def test_a_champion_that_knows_no_class_is_no_rival():
    empty = Rival("4", scores(0.9), np.zeros(0, bool), np.zeros(0, bool))
    found = verdict("non-inferiority", best=empty)
    assert found.passed
    assert "knows none of the classes" in found.sentence


def test_equal_in_everything_is_no_gain():
    found = verdict("gain", champion=rival(), best=rival())
    assert not found.passed
    assert (found.value, found.limit) == (0, 1)
    assert "90.00% against 90.00%" in found.sentence


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"champion": rival(0.89, 0.9)}, "accuracy 90.00% instead of 89.00%"),
        ({"champion": rival(size=1_100_000)}, "1.00 MB instead of 1.10 MB"),
        ({"champion": rival(latency=1.1)}, "1.00 ms instead of 1.10 ms"),
        ({"champion": rival(), "fresher": True}, "fresher data"),
        ({"champion": rival(), "new_classes": ("owl",)}, "new classes owl"),
    ],
)
def test_any_one_gain_is_enough(changes, word):
    found = verdict("gain", **changes)
    assert found.passed
    assert found.value == 1
    assert word in found.sentence


@pytest.mark.parametrize(
    "facts", [{"size": 1_030_000}, {"latency": 1.03}, {"latency": 2.0, "sha256": "ours"}]
)
def test_noise_is_no_gain(facts):
    assert not verdict("gain", champion=rival(**facts)).passed


@pytest.mark.parametrize(("objective", "passed"), [("throughput", True), ("latency", False)])
def test_throughput_is_a_gain_only_where_it_is_the_objective(objective, passed):
    policy = POLICY.model_copy(update={"objective": objective})
    found = verdict("gain", policy, champion=rival(throughput=940))
    assert found.passed is passed
    assert ("1,000 images/s instead of 940" in found.sentence) is passed
    assert not verdict("gain", policy, champion=rival(throughput=960)).passed
    assert not verdict("gain", policy, champion=rival(throughput=500, sha256="ours")).passed


@pytest.mark.parametrize(("int8", "passed"), [(0.90, True), (0.91, True), (0.95, True), (0.89, False)])
def test_the_loss_to_quantization_is_bounded(int8, passed):
    found = verdict("quantization loss", validation={"fp32": 0.91, "int8": int8})
    assert found.passed is passed
    assert found.value == pytest.approx(0.91 - int8)


@pytest.mark.parametrize(("limit", "passed"), [(1.0, True), (0.9, False)])
def test_limits_for_latency_and_size_hold_when_set(limit, passed):
    policy = POLICY.model_copy(update={"max_latency_ms": limit, "max_size_mb": limit})
    for gate in ("latency", "size"):
        found = verdict(gate, policy)
        assert (found.passed, found.value, found.limit) == (passed, 1.0, limit)


def test_paired_interval_is_agresti_and_min_s():
    # 20 pairs won, 10 lost, of 100: (20.5 - 10.5) / 102, and its spread.
    first = np.array([True] * 20 + [False] * 10 + [True] * 70)
    second = np.array([False] * 20 + [True] * 10 + [True] * 70)
    low, high = paired_interval(first, second)
    assert (low + high) / 2 == pytest.approx(10 / 102)
    assert (high - low) / 2 == pytest.approx(1.959964 * (31 - 100 / 102) ** 0.5 / 102)


def test_models_that_never_differ_still_have_an_interval():
    low, high = paired_interval(right(0.9), right(0.9))
    assert low < 0 < high


def test_a_loss_is_taken_against_the_float_candidate_of_the_same_networks():
    accuracy = {"fp32": 0.95, "fp32-soft-vote": 0.97, "int8-soft-vote": 0.955}
    found = verdict(
        "quantization loss", chosen="int8-soft-vote", reference="fp32-soft-vote", validation=accuracy
    )
    assert not found.passed
    assert "95.50% of int8-soft-vote, 97.00% of fp32-soft-vote: a loss of 1.50 points" in found.sentence
