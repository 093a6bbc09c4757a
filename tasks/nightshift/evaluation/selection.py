"""The choice among the candidates of a night, by what the policy asks for. Pure functions, no I/O.

Candidates are compared on validation data. One that loses too much accuracy, or takes too much time or space,
is rejected with a sentence that has both numbers.
"""

import math
from collections.abc import Mapping
from typing import Final, NamedTuple

from nightshift.config import PromotionPolicy
from nightshift.inference.portability import PAIR_LIMIT
from nightshift.records import Benchmark

ROUNDING: Final = 1e-9  # 0.985 - 0.98 must not exceed a limit of 0.005


class Choice(NamedTuple):
    """The candidate that is taken, and one sentence for each that the policy passes over."""

    chosen: str
    rejected: dict[str, str]


def unproven(references: Mapping[str, str]) -> dict[str, str]:
    """A sentence for each candidate without its float reference, which is all that could show its loss."""
    return {
        name: f"{name} cannot show what accuracy it loses, because its reference {reference} is missing"
        for name, reference in references.items()
        if reference not in references
    }


def not_portable(pair_sums: Mapping[str, int]) -> dict[str, str]:
    """A sentence for each candidate that may answer differently on other processors.

    The mapping has the largest sum of two products by candidate, see `nightshift.inference.pair_sums`.
    """
    return {
        name: f"{name} may answer differently on other processors: two products of its weights add up to "
        f"{largest:,}, and without VNNI, AMX or Arm's dot products sums saturate above {PAIR_LIMIT:,}; set "
        "quantize.portable = false where every machine that serves has them"
        for name, largest in pair_sums.items()
        if largest > PAIR_LIMIT
    }


def choose(
    accuracy: Mapping[str, float],
    speeds: Mapping[str, Benchmark],
    references: Mapping[str, str],
    policy: PromotionPolicy,
    barred: Mapping[str, str],
) -> Choice:
    """The candidate that is best by `policy.objective` of those inside all limits, on validation data.

    All mappings are per candidate; `references` names the float candidate of the same networks, against which
    the loss is taken, and at least one of them must be there and not be among the `barred`, of which there is
    a sentence each. When every candidate inside the loss budget is beyond the limit of latency or of size,
    the best of them is chosen all the same, and the gates refuse it. Equals are told apart by accuracy, then
    by latency.
    """
    rejected = {**unproven(references), **barred}
    affordable, inside = [], []
    for name in [name for name in accuracy if name not in rejected]:
        lost = _loss_beyond(accuracy, name, references[name], policy)
        beyond = [*lost, *_speed_beyond(speeds[name], policy)]
        if not lost:
            affordable.append(name)
        if beyond:
            rejected[name] = f"{name} {', and '.join(beyond)}"
        else:
            inside.append(name)
    chosen = min(inside or affordable, key=lambda name: _rank(name, accuracy, speeds, policy))
    rejected.pop(chosen, None)
    return Choice(chosen, {name: rejected[name] for name in accuracy if name in rejected})


def pareto_front(accuracy: Mapping[str, float], speeds: Mapping[str, Benchmark]) -> tuple[str, ...]:
    """The Pareto front, quickest first: no other is as accurate and as quick as one of it, and better in one.

    Both mappings are per candidate; the latency is the median of one image alone, with all threads.
    """
    places = {name: (speeds[name].full.latency_ms_p50, -accuracy[name]) for name in accuracy}

    def beaten(name: str) -> bool:
        mine = places[name]
        return any(other != mine and other[0] <= mine[0] and other[1] <= mine[1] for other in places.values())

    return tuple(sorted((name for name in places if not beaten(name)), key=lambda name: (places[name], name)))


def _rank(
    name: str, accuracy: Mapping[str, float], speeds: Mapping[str, Benchmark], policy: PromotionPolicy
) -> tuple[float, ...]:
    """What sorts the best candidate first."""
    full = speeds[name].full
    first = {
        "latency": full.latency_ms_p50,
        "throughput": -full.images_per_second,
        "size": speeds[name].size,
        "accuracy": -accuracy[name],
    }
    return first[policy.objective], -accuracy[name], full.latency_ms_p50


def _loss_beyond(
    accuracy: Mapping[str, float], name: str, reference: str, policy: PromotionPolicy
) -> list[str]:
    loss, limit = 100 * (accuracy[reference] - accuracy[name]), 100 * policy.max_accuracy_loss
    if loss <= limit + 100 * ROUNDING:
        return []
    lost, more, allowed = _numbers(loss, limit)
    against = f"of validation accuracy against {reference}"
    return [f"loses {lost} points {against}, {more} more than the {allowed} allowed"]


def _speed_beyond(speed: Benchmark, policy: PromotionPolicy) -> list[str]:
    """What a candidate takes beyond the limits of latency and of size, each with both numbers."""
    latency, size = speed.full.latency_ms_p50, speed.size / 1e6
    beyond = []
    if policy.max_latency_ms is not None and latency > policy.max_latency_ms:
        taken, more, allowed = _numbers(latency, policy.max_latency_ms)
        beyond.append(f"takes {taken} ms, {more} ms more than the {allowed} allowed")
    if policy.max_size_mb is not None and size > policy.max_size_mb:
        taken, more, allowed = _numbers(size, policy.max_size_mb)
        beyond.append(f"has {taken} MB, {more} MB more than the {allowed} allowed")
    return beyond


def _numbers(value: float, limit: float) -> tuple[str, str, str]:
    """A value above a limit, by how much, and the limit, with as many digits as show that none is zero."""
    digits = max(2, -math.floor(math.log10(min(value - limit, limit or 1.0))))
    return f"{value:.{digits}f}", f"{value - limit:.{digits}f}", f"{limit:.{digits}f}"
