"""The candidates of a night beside each other: timed in turns, scored on the validation split, one chosen.

The test split is not looked at here.
"""

from collections.abc import Mapping

import numpy as np
import torch

from nightshift.data.dataset import load_split, stratified
from nightshift.errors import InputError
from nightshift.evaluation import benchmark, contenders, selection
from nightshift.evaluation.contenders import Entrant, Labels
from nightshift.inference import runtime
from nightshift.inference.runtime import Pixels
from nightshift.records import Benchmark, Candidate, Dataset, Machine
from nightshift.records.evaluation import Comparison
from nightshift.records.specs import EvaluateSpec


def left(candidates: dict[str, Candidate], missing: Mapping[str, str]) -> dict[str, Candidate]:
    """The candidates that are not among the missing, of which there is a sentence each.

    Raises InputError with all sentences when none is left whose loss of accuracy can be shown.
    """
    there = {name: candidate for name, candidate in candidates.items() if name not in missing}
    reasons = {
        **missing,
        **selection.unproven({name: candidate.reference for name, candidate in there.items()}),
    }
    if not there.keys() - reasons.keys():
        why = "; ".join(reasons.values()) or "none was asked for"
        raise InputError(f"no candidate is left to choose from: {why}; change what the reasons name")
    return there


def timed(
    spec: EvaluateSpec,
    dataset: Dataset,
    models: Mapping[str, bytes],
    champions: Mapping[str, Entrant],
    test: tuple[Pixels, Labels],
) -> tuple[dict[str, Benchmark], Machine, dict[str, str]]:
    """Speeds of all candidates and of the champions that know any class, each on images that it takes.

    Last come the reasons, by name, why candidates could not be timed. Raises InputError when a champion
    could not, since nothing could be compared with it.
    """
    usual = contenders.calibration(dataset, spec.plan.pipeline.train.seed)
    judged = {name: champion for name, champion in champions.items() if champion.known.any()}
    images, labels = test
    some = stratified(torch.from_numpy(labels), contenders.CALIBRATION, 0).numpy()
    some = np.random.default_rng(0).permutation(some)  # the first of them are looked at more closely
    own = {name: each.pixels[some] for name, each in judged.items() if each.pixels is not images}
    everyone = {**models, **{name: champion.model for name, champion in judged.items()}}
    try:
        speeds, machine = benchmark.measure(everyone, dict.fromkeys(everyone, usual) | own, spec.settings)
    except benchmark.UntimedError as error:
        if error.reasons.keys() & judged.keys():
            raise
        return error.speeds, error.machine, error.reasons
    return speeds, machine, {}


def compared(
    spec: EvaluateSpec,
    dataset: Dataset,
    candidates: dict[str, Candidate],
    models: Mapping[str, bytes],
    times: tuple[dict[str, Benchmark], Machine],
    missing: Mapping[str, str],
) -> Comparison:
    """Validation accuracy of every candidate, and which one the policy prefers."""
    split = load_split(dataset, "validation")
    images, labels = split.images.numpy(), split.labels.numpy()
    speeds, machine = times
    accuracy = {
        name: float(
            np.mean(runtime.Session(models[name], speeds[name].reference).predict(images)[1] == labels)
        )
        for name in candidates
    }
    references = {name: candidate.reference for name, candidate in candidates.items()}
    sums = {name: candidate.pair_sum for name, candidate in candidates.items()}
    barred = selection.not_portable(sums) if spec.plan.pipeline.quantize.portable else {}
    chosen, rejected = selection.choose(accuracy, speeds, references, spec.policy, barred)
    for name, share in accuracy.items():
        full = speeds[name].full
        print(
            f"{name}: validation {share:.4f}, {full.latency_ms_p50:.2f} ms, {full.images_per_second:,.0f} "
            f"images/s ({speeds[name].runtime}), {speeds[name].size / 1e6:.2f} MB",
            flush=True,
        )
    rejected = {**missing, **rejected}
    for sentence in rejected.values():
        print(f"rejected: {sentence}", flush=True)
    front = selection.pareto_front(accuracy, speeds)
    return Comparison(candidates, accuracy, speeds, machine, chosen, rejected, front)
