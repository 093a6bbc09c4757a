"""Gates on what the challenger is beside the champions: not worse than the best, better in something."""

from typing import Final

from nightshift.config import PromotionPolicy
from nightshift.evaluation.gates.case import ROUNDING, Case, Rival, champions_corrupted, mean, points, some
from nightshift.evaluation.metrics.paired import compare
from nightshift.records import Timing, Verdict

NOTICEABLE: Final = 0.05  # smaller or faster by less than this share is not a gain
STURDIER: Final = 0.02  # mean accuracy on corrupted images from which it is a gain, 0 to 1


def non_inferiority(case: Case, policy: PromotionPolicy) -> Verdict:
    rival, gate = case.best, "non-inferiority"
    if rival is None:
        why = _without_rival(case)
        sentence = f"{why}, so test accuracy {case.scores.accuracy:.2%} is compared with nothing"
        return Verdict(gate=gate, passed=True, value=case.scores.accuracy, limit=0.0, sentence=sentence)
    value, best = mean(rival.challenger_right), mean(rival.rival_right)
    limit = best - policy.max_champion_loss
    paired = compare(rival.challenger_right, rival.rival_right)
    worse = _significant(paired.p_value, policy) and value < best
    sentence = (
        f"test accuracy {value:.2%} against {best:.2%} of version {rival.version}, the best champion so far, "
        f"on the same {paired.images:,} images: {points(value - best)} points (95 % interval "
        f"{points(paired.low)} to {points(paired.high)}, p = {paired.p_value:.3f} by McNemar's test); at "
        f"least {limit:.2%} is asked"
    )
    if worse:
        sentence += f", and no loss at a significance of {policy.significance:g}"
    passed = value >= limit - ROUNDING and not worse
    return Verdict(gate=gate, passed=passed, value=value, limit=limit, champion=best, sentence=sentence)


def _without_rival(case: Case) -> str:
    if case.champion_version is None:
        return "there is no champion yet"
    return f"champion version {case.champion_version} knows none of these images' classes or channels"


def gain(case: Case, policy: PromotionPolicy) -> Verdict:
    rival, gate = case.champion, "gain"
    if rival is None:
        sentence = f"{_without_rival(case)}, so {case.chosen} with {case.scores.accuracy:.2%} is the gain"
        return Verdict(gate=gate, passed=True, value=1.0, limit=1.0, sentence=sentence)
    gains = _gains(case, rival, policy)
    found = (
        "; ".join(gains)
        if gains
        else (
            f"accuracy {mean(rival.challenger_right):.2%} against {mean(rival.rival_right):.2%}, "
            f"{case.scores.speed.size:,} against {rival.scores.speed.size:,} bytes, "
            f"{case.scores.speed.full.latency_ms_p50:.2f} against "
            f"{rival.scores.speed.full.latency_ms_p50:.2f} ms, the same data and classes"
        )
    )
    sentence = f"{len(gains)} over champion version {rival.version}, at least 1 is asked: {found}"
    return Verdict(gate=gate, passed=bool(gains), value=float(len(gains)), limit=1.0, sentence=sentence)


def _gains(case: Case, rival: Rival, policy: PromotionPolicy) -> list[str]:
    ours, theirs = case.scores, rival.scores
    gains = _more_accurate(rival, policy)
    if ours.speed.size <= theirs.speed.size * (1 - NOTICEABLE):
        gains.append(f"{ours.speed.size / 1e6:.2f} MB instead of {theirs.speed.size / 1e6:.2f} MB")
    if ours.sha256 != theirs.sha256:  # the same file can only be faster by noise
        gains += _faster(ours.speed.full, theirs.speed.full, policy)
    gains += _sturdier(case)
    if case.fresher:
        gains.append("fresher data")
    if case.new_classes:
        gains.append(f"new classes {some(case.new_classes)}")
    return gains


def _more_accurate(rival: Rival, policy: PromotionPolicy) -> list[str]:
    value, other = mean(rival.challenger_right), mean(rival.rival_right)
    if value <= other:
        return []
    if policy.significance is not None:
        p_value = compare(rival.challenger_right, rival.rival_right).p_value
        if not _significant(p_value, policy):
            return []
        return [f"accuracy {value:.2%} instead of {other:.2%} (p = {p_value:.3f})"]
    return [f"accuracy {value:.2%} instead of {other:.2%}"]


def _significant(p_value: float, policy: PromotionPolicy) -> bool:
    return policy.significance is not None and p_value <= policy.significance


def _faster(ours: Timing, theirs: Timing, policy: PromotionPolicy) -> list[str]:
    """Throughput counts only where it is the objective: of more numbers, noise improves one more easily."""
    gains = []
    if ours.latency_ms_p50 <= theirs.latency_ms_p50 * (1 - NOTICEABLE):
        gains.append(f"{ours.latency_ms_p50:.2f} ms instead of {theirs.latency_ms_p50:.2f} ms")
    if policy.objective == "throughput" and (
        ours.images_per_second * (1 - NOTICEABLE) >= theirs.images_per_second
    ):
        gains.append(f"{ours.images_per_second:,.0f} images/s instead of {theirs.images_per_second:,.0f}")
    return gains


def _sturdier(case: Case) -> list[str]:
    theirs = champions_corrupted(case)
    if case.robustness is None or theirs is None:
        return []
    ours = case.robustness.corrupted(case.chosen)
    if ours < theirs + STURDIER - ROUNDING:
        return []
    return [f"accuracy {ours:.2%} instead of {theirs:.2%} on corrupted images"]
