"""The promotion policy: limits go in, verdicts with both numbers come out. Pure functions, no I/O.

A challenger is promoted when it is not worse than the best champion so far by more than a margin, gains
something over the present champion, and keeps within the hard limits.
"""

from nightshift.config import PromotionPolicy
from nightshift.evaluation.gates import champions, limits, quality
from nightshift.evaluation.gates.case import Case as Case
from nightshift.evaluation.gates.case import Rival as Rival
from nightshift.evaluation.gates.case import lead as lead
from nightshift.records import Verdict


def judge(case: Case, policy: PromotionPolicy) -> tuple[Verdict, ...]:
    """One verdict per gate, in the order in which people read them; a gate without a limit is left out."""
    return (
        quality.accuracy_floor(case, policy),
        champions.non_inferiority(case, policy),
        champions.gain(case, policy),
        quality.quantization_loss(case, policy),
        *quality.classes(case, policy),
        *quality.calibration(case, policy),
        *quality.robustness(case, policy),
        *limits.portability(case),
        *limits.speed_and_size(case, policy),
        *limits.data(case, policy),
    )
