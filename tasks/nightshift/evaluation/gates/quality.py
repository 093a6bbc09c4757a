"""Gates on how good the challenger is by itself: floors, classes, calibration, robustness, quantization."""

from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np

from nightshift.config import PromotionPolicy
from nightshift.evaluation.gates.case import (
    ROUNDING,
    Case,
    Rival,
    at_least,
    at_most,
    champions_corrupted,
    mean,
    some,
)
from nightshift.evaluation.metrics.paired import paired_interval, rejected, worse_by_chance
from nightshift.records import Verdict

FALSE_ALARM: Final = 0.05  # share of nights on which chance alone may refuse for a class


class ClassLoss(NamedTuple):
    """What one class loses against a rival: recall of both, 0 to 1, and how many images that are."""

    name: str
    ours: float
    theirs: float
    images: int
    against: str
    low: float  # 95 % interval of ours less theirs
    high: float
    chance: float  # probability that chance alone takes as much

    @property
    def value(self) -> float:
        return self.theirs - self.ours


def accuracy_floor(case: Case, policy: PromotionPolicy) -> Verdict:
    value, limit, whose = case.scores.accuracy, policy.min_accuracy, ""
    if case.champion_version is None and policy.min_first_accuracy is not None:
        limit, whose = policy.min_first_accuracy, " of a first champion"
    low, high = case.scores.interval
    sentence = (
        f"test accuracy {value:.2%} of {case.scores.images:,} images (95 % interval {low:.2%} to "
        f"{high:.2%}); at least {limit:.2%} is asked{whose}"
    )
    champion = case.champion.scores.accuracy if case.champion else None
    return at_least("accuracy floor", value, limit, sentence, champion)


def quantization_loss(case: Case, policy: PromotionPolicy) -> Verdict:
    ours, reference = case.validation[case.chosen], case.validation[case.reference]
    value, limit = reference - ours, policy.max_accuracy_loss
    sentence = (
        f"validation accuracy {ours:.2%} of {case.chosen}, {reference:.2%} of {case.reference}: "
        f"a loss of {100 * value:.2f} points; at most {100 * limit:.2f} is allowed"
    )
    return at_most("quantization loss", value, limit, sentence)


def classes(case: Case, policy: PromotionPolicy) -> Iterator[Verdict]:
    if case.champion_version is not None:
        yield _known_classes(case, policy, case.champion_version)
    if policy.min_class_recall is not None:
        yield _class_floor(case, policy.min_class_recall)
    if policy.max_class_loss is not None:
        yield _class_loss(case, policy.max_class_loss)


def _known_classes(case: Case, policy: PromotionPolicy, version: str) -> Verdict:
    """Fewer classes are an easier test, so a class is lost by decision only, never by absent images."""
    retired = [name for name in case.lost_classes if name in policy.retired]
    lost = [name for name in case.lost_classes if name not in retired]
    found = f"it does not know {some(lost)}" if lost else "it knows them all"
    found += f", retired {some(retired)} aside" if retired else ""
    sentence = f"a challenger knows every class of champion version {version}; {found}"
    if lost:
        sentence += "; add training images of it, or name it in promotion.retired"
    return at_most("known classes", float(len(lost)), 0.0, sentence)


def _class_floor(case: Case, limit: float) -> Verdict:
    recalls = {name: row["recall"] for name, row in case.scores.per_class.items()}
    name = min(recalls, key=lambda each: recalls[each])
    below = [f"{each} {value:.2%}" for each, value in recalls.items() if value < limit - ROUNDING]
    found = f"below are {some(below)}" if below else f"the lowest is {name} with {recalls[name]:.2%}"
    theirs = case.champion.scores.per_class if case.champion else {}
    champion = theirs[name]["recall"] if name in theirs else None
    sentence = f"recall of at least {limit:.2%} is asked of every class; {found}"
    return at_least("class recall", recalls[name], limit, sentence, champion)


def _class_loss(case: Case, limit: float) -> Verdict:
    """A small class loses much by one image, and of many classes some lose by chance.

    So a loss counts only where it stays significant among the comparisons of all classes with all rivals.
    """
    gate = "class loss"
    rivals = [(f"{case.reference} of the same networks", case.float32)]
    if case.best is not None:
        rivals.append((f"version {case.best.version}, the best champion so far", case.best))
    losses = [loss for against, rival in rivals for loss in _losses(case, rival, against)]
    real = rejected([loss.chance for loss in losses], FALSE_ALARM)
    beyond = [
        loss for loss, is_real in zip(losses, real, strict=True) if is_real and loss.value > limit + ROUNDING
    ]
    worst = max(beyond or losses, key=lambda loss: loss.value, default=None)
    asked = f"at most {100 * limit:.2f} points may be lost beyond chance"
    if worst is None:
        sentence = f"no class can be compared; {asked}"
        return Verdict(gate=gate, passed=True, value=0.0, limit=limit, sentence=sentence)
    words = (
        f"recall of class {worst.name} is {worst.ours:.2%} against {worst.theirs:.2%} of {worst.against}, on "
        f"{worst.images:,} images (95 % interval {100 * worst.low:+.2f} to {100 * worst.high:+.2f} points); "
        f"{asked}"
    )
    others = sorted({loss.name for loss in beyond} - {worst.name})
    more = f"; also {some(others)}" if others else ""
    return Verdict(
        gate=gate,
        passed=not beyond,
        value=worst.value,
        limit=limit,
        champion=worst.theirs if worst.against.startswith("version") else None,
        sentence=words + more,
    )


def _losses(case: Case, rival: Rival, against: str) -> Iterator[ClassLoss]:
    for label in np.unique(rival.labels):
        rows = rival.labels == label
        ours, theirs = rival.challenger_right[rows], rival.rival_right[rows]
        interval = paired_interval(ours, theirs)
        name = case.classes[int(label)]
        chance = worse_by_chance(ours, theirs)
        yield ClassLoss(name, mean(ours), mean(theirs), int(rows.sum()), against, *interval, chance)


def calibration(case: Case, policy: PromotionPolicy) -> Iterator[Verdict]:
    if policy.max_calibration_error is None:
        return
    value, limit = case.scores.calibration_error, policy.max_calibration_error
    sentence = (
        f"confidence and accuracy are {100 * value:.2f} points apart on average (expected calibration "
        f"error); at most {100 * limit:.2f} is allowed"
    )
    champion = case.champion.scores.calibration_error if case.champion else None
    yield at_most("calibration", value, limit, sentence, champion)


def robustness(case: Case, policy: PromotionPolicy) -> Iterator[Verdict]:
    """Nothing where nothing was tried: a policy that needs it cannot be combined with that."""
    tried = case.robustness
    if tried is None:
        return
    value = tried.corrupted(case.chosen)
    champion = champions_corrupted(case)
    words = f"mean accuracy {value:.2%} over {len(tried.corruptions)} corruptions of {tried.images:,} images"
    if (limit := policy.min_corrupted_accuracy) is not None:
        sentence = f"{words}; at least {limit:.2%} is asked"
        yield at_least("corruption floor", value, limit, sentence, champion)
    if policy.max_corrupted_loss is not None:
        if case.champion is None or champion is None:
            limit, beside = 0.0, "there is no champion that knows all classes"
        else:
            limit = champion - policy.max_corrupted_loss
            beside = f"against {champion:.2%} of champion version {case.champion.version}"
        sentence = f"{words}, {beside}; at least {limit:.2%} is asked"
        yield at_least("corruption loss", value, limit, sentence, champion)
    if (limit := policy.min_attacked_accuracy) is not None and tried.attacks:
        worst = min(tried.attacks, key=lambda attack: attack.accuracy[case.chosen])
        value = worst.accuracy[case.chosen]
        sentence = (
            f"accuracy {value:.2%} under {worst.kind.upper()} of at most {worst.epsilon:g} of 255 a pixel, "
            f"made with the float network; at least {limit:.2%} is asked"
        )
        yield at_least("attack floor", value, limit, sentence, worst.accuracy.get("champion"))
