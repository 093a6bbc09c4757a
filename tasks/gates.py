"""The promotion policy: limits go in, verdicts with both numbers come out. Pure functions, no I/O.

A challenger is promoted when it is not worse than the best champion so far by more than a margin, gains
something over the present champion, and keeps within the hard limits.
"""

import math
from collections.abc import Mapping
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tasks.config import PromotionPolicy
from tasks.records import Drift, Pace, Scores, Speed, Verdict

NOTICEABLE: Final = 0.05  # smaller or faster by less than this share is not a gain
ROUNDING: Final = 1e-9  # 0.985 - 0.98 must not exceed a limit of 0.005
NORMAL_95: Final = 1.959964


class Rival(NamedTuple):
    """A registered version, and who was right on the same images: bool [N], of the challenger and its own."""

    version: str
    scores: Scores
    challenger_right: NDArray[np.bool_]
    rival_right: NDArray[np.bool_]


class Case(NamedTuple):
    """Everything the gates look at. `fresher`: the challenger was made of other data than the champion."""

    chosen: str
    reference: str  # the float candidate of the same networks
    scores: Scores
    validation: Mapping[str, float]  # accuracy per candidate
    champion: Rival | None
    best: Rival | None  # the best champion so far; the present one when it is that
    fresher: bool
    drift: Drift | None  # of the data from the champion's training data
    new_classes: tuple[str, ...]


def judge(case: Case, policy: PromotionPolicy) -> tuple[Verdict, ...]:
    """One verdict per gate, in the order in which people read them."""
    verdicts = [
        _accuracy_floor(case, policy),
        _non_inferiority(case, policy),
        _gain(case, policy),
        _quantization_loss(case, policy),
    ]
    if policy.max_latency_ms is not None:
        verdicts.append(_latency(case.scores.speed, policy.max_latency_ms))
    if policy.max_size_mb is not None:
        verdicts.append(_size(case.scores.speed, policy.max_size_mb))
    if policy.max_drift is not None:
        verdicts.append(_drift(case.drift, policy.max_drift))
    return tuple(verdicts)


def paired_interval(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> tuple[float, float]:
    """95 % interval of the difference in accuracy, first less second, on the same images.

    Agresti and Min 2005: the Wald interval for matched pairs after adding half a pair to each of the four
    cells, which keeps its coverage on small sets and when the two never differ.
    """
    count = len(first) + 2
    wins = float(np.sum(first & ~second)) + 0.5
    losses = float(np.sum(second & ~first)) + 0.5
    difference = (wins - losses) / count
    spread = NORMAL_95 * math.sqrt(max(0.0, wins + losses - (wins - losses) ** 2 / count)) / count
    return max(-1.0, difference - spread), min(1.0, difference + spread)


def _accuracy_floor(case: Case, policy: PromotionPolicy) -> Verdict:
    value, limit = case.scores.accuracy, policy.min_accuracy
    sentence = f"test accuracy {value:.2%} of {case.scores.images:,} images; at least {limit:.2%} is asked"
    return Verdict(
        gate="accuracy floor", passed=value >= limit - ROUNDING, value=value, limit=limit, sentence=sentence
    )


def _non_inferiority(case: Case, policy: PromotionPolicy) -> Verdict:
    rival, gate = case.best, "non-inferiority"
    if rival is None or len(rival.rival_right) == 0:
        why = (
            "there is no champion yet"
            if rival is None
            else f"version {rival.version} knows none of the classes"
        )
        sentence = f"{why}, so test accuracy {case.scores.accuracy:.2%} is compared with nothing"
        return Verdict(gate=gate, passed=True, value=case.scores.accuracy, limit=0.0, sentence=sentence)
    value, best = float(rival.challenger_right.mean()), float(rival.rival_right.mean())
    limit = best - policy.max_champion_loss
    low, high = paired_interval(rival.challenger_right, rival.rival_right)
    sentence = (
        f"test accuracy {value:.2%} against {best:.2%} of version {rival.version}, the best champion so far, "
        f"on the same {len(rival.rival_right):,} images: {_points(value - best)} points (95 % interval "
        f"{_points(low)} to {_points(high)}); at least {limit:.2%} is asked"
    )
    return Verdict(gate=gate, passed=value >= limit - ROUNDING, value=value, limit=limit, sentence=sentence)


def _gain(case: Case, policy: PromotionPolicy) -> Verdict:
    rival, gate = case.champion, "gain"
    if rival is None:
        sentence = f"there is no champion yet, so {case.chosen} with {case.scores.accuracy:.2%} is the gain"
        return Verdict(gate=gate, passed=True, value=1.0, limit=1.0, sentence=sentence)
    gains = _gains(case, rival, policy)
    found = (
        "; ".join(gains)
        if gains
        else (
            f"accuracy {_mean(rival.challenger_right):.2%} against {_mean(rival.rival_right):.2%}, "
            f"{case.scores.speed.size:,} against {rival.scores.speed.size:,} bytes, "
            f"{case.scores.speed.full.latency_ms_p50:.2f} against "
            f"{rival.scores.speed.full.latency_ms_p50:.2f} ms, the same data and classes"
        )
    )
    sentence = f"{len(gains)} over champion version {rival.version}, at least 1 is asked: {found}"
    return Verdict(gate=gate, passed=bool(gains), value=float(len(gains)), limit=1.0, sentence=sentence)


def _gains(case: Case, rival: Rival, policy: PromotionPolicy) -> list[str]:
    ours, theirs = case.scores, rival.scores
    gains = []
    if (value := _mean(rival.challenger_right)) > (other := _mean(rival.rival_right)):
        gains.append(f"accuracy {value:.2%} instead of {other:.2%}")
    if ours.speed.size <= theirs.speed.size * (1 - NOTICEABLE):
        gains.append(f"{ours.speed.size / 1e6:.2f} MB instead of {theirs.speed.size / 1e6:.2f} MB")
    if ours.sha256 != theirs.sha256:  # the same file can only be faster by noise
        gains += _faster(ours.speed.full, theirs.speed.full, policy)
    if case.fresher:
        gains.append("fresher data")
    if case.new_classes:
        gains.append(f"new classes {', '.join(case.new_classes)}")
    return gains


def _faster(ours: Pace, theirs: Pace, policy: PromotionPolicy) -> list[str]:
    """Throughput counts only where it is the objective: of more numbers, noise improves one more easily."""
    gains = []
    if ours.latency_ms_p50 <= theirs.latency_ms_p50 * (1 - NOTICEABLE):
        gains.append(f"{ours.latency_ms_p50:.2f} ms instead of {theirs.latency_ms_p50:.2f} ms")
    if policy.objective == "throughput" and (
        ours.images_per_second * (1 - NOTICEABLE) >= theirs.images_per_second
    ):
        gains.append(f"{ours.images_per_second:,.0f} images/s instead of {theirs.images_per_second:,.0f}")
    return gains


def _quantization_loss(case: Case, policy: PromotionPolicy) -> Verdict:
    ours, reference = case.validation[case.chosen], case.validation[case.reference]
    value, limit = reference - ours, policy.max_accuracy_loss
    sentence = (
        f"validation accuracy {ours:.2%} of {case.chosen}, {reference:.2%} of {case.reference}: "
        f"a loss of {100 * value:.2f} points; at most {100 * limit:.2f} is allowed"
    )
    return Verdict(
        gate="quantization loss",
        passed=value <= limit + ROUNDING,
        value=value,
        limit=limit,
        sentence=sentence,
    )


def _latency(speed: Speed, limit: float) -> Verdict:
    value = speed.full.latency_ms_p50
    sentence = (
        f"one prediction takes {value:.2f} ms (median, {speed.runtime}); at most {limit:.2f} ms is allowed"
    )
    return Verdict(gate="latency", passed=value <= limit, value=value, limit=limit, sentence=sentence)


def _size(speed: Speed, limit: float) -> Verdict:
    value = speed.size / 1e6
    sentence = f"the file has {value:.2f} MB; at most {limit:.2f} MB is allowed"
    return Verdict(gate="size", passed=value <= limit, value=value, limit=limit, sentence=sentence)


def _drift(drift: Drift | None, limit: float) -> Verdict:
    gate = "drift"
    if drift is None or not drift.psi:
        sentence = "there is no champion's other training data, so nothing drifts"
        return Verdict(gate=gate, passed=True, value=0.0, limit=limit, sentence=sentence)
    name = max(drift.psi, key=lambda key: drift.psi[key])
    sentence = (
        f"the images drift by {drift.largest:.3f} ({name}, population stability index) from the champion's "
        f"training data; at most {limit:.3f} is allowed"
    )
    return Verdict(
        gate=gate, passed=drift.largest <= limit, value=drift.largest, limit=limit, sentence=sentence
    )


def _mean(right: NDArray[np.bool_]) -> float:
    return float(right.mean()) if len(right) else 0.0


def _points(difference: float) -> str:
    return f"{100 * difference:+.2f}"
