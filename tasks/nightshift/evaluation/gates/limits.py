"""Gates on what the challenger costs, and on the data that it was made of."""

from collections.abc import Iterator

from nightshift.config import PromotionPolicy
from nightshift.evaluation.gates.case import Case, at_most
from nightshift.inference.portability import PAIR_LIMIT
from nightshift.records import Verdict


def speed_and_size(case: Case, policy: PromotionPolicy) -> Iterator[Verdict]:
    speed = case.scores.speed
    theirs = case.champion.scores.speed if case.champion else None
    if (limit := policy.max_latency_ms) is not None:
        value = speed.full.latency_ms_p50
        sentence = (
            f"one prediction takes {value:.2f} ms (median, {speed.runtime}); at most {limit:.2f} ms is "
            "allowed"
        )
        yield at_most("latency", value, limit, sentence, theirs.full.latency_ms_p50 if theirs else None)
    if (limit := policy.max_size_mb) is not None:
        value = speed.size / 1e6
        sentence = f"the file has {value:.2f} MB; at most {limit:.2f} MB is allowed"
        yield at_most("size", value, limit, sentence, theirs.size / 1e6 if theirs else None)


def portability(case: Case) -> Iterator[Verdict]:
    """Nothing where the settings say that all machines hold sums of products in 32 bits."""
    if case.pair_sum is not None:
        sentence = (
            f"two products of its weights add up to {case.pair_sum:,} at most; every processor holds "
            f"{PAIR_LIMIT:,}"
            if case.pair_sum
            else "it computes in float, which no processor saturates"
        )
        yield at_most("portability", case.pair_sum, PAIR_LIMIT, sentence)


def data(case: Case, policy: PromotionPolicy) -> Iterator[Verdict]:
    if (limit := policy.max_drift) is not None:
        yield _drift(case, limit)
    if (limit := policy.max_leakage) is not None:
        sentence = (
            f"{case.leakage:.2%} of the training images look like a validation or test image; at most "
            f"{limit:.2%} is allowed"
        )
        yield at_most("leakage", case.leakage, limit, sentence)
    if (limit := policy.max_data_age_days) is not None:
        yield _freshness(case.data_age_days, limit)


def _drift(case: Case, limit: float) -> Verdict:
    drift = case.drift
    if drift is None or not drift.psi:
        return at_most("drift", 0.0, limit, "there is no champion's other training data, so nothing drifts")
    name = max(drift.psi, key=lambda key: drift.psi[key])
    sentence = (
        f"the images drift by {drift.largest:.3f} ({name}, population stability index) from the champion's "
        f"training data; at most {limit:.3f} is allowed"
    )
    return at_most("drift", drift.largest, limit, sentence)


def _freshness(age: float | None, limit: float) -> Verdict:
    if age is None:
        sentence = f"the source does not tell how old its images are; at most {limit:g} days are allowed"
        return Verdict(gate="freshness", passed=False, value=limit, limit=limit, sentence=sentence)
    sentence = f"the newest image is {age:.1f} days old; at most {limit:g} days are allowed"
    return at_most("freshness", age, limit, sentence)
