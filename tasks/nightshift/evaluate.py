"""Stage `evaluate`: choose on the validation split, judge on the test split beside the champion.

    python -m nightshift evaluate --spec spec.json --result result.json

The test split sees the chosen candidate, its fp32 reference and the champions, nothing else. Labels are those
of each file's exact arithmetic, by ONNX Runtime's own kernels where they agree with it; the times are those
of the fastest runtime that agrees, measured once for all candidates and champions.
"""

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import nn

from nightshift import report, storage
from nightshift.data.dataset import Images, load_split
from nightshift.evaluation import candidates as comparison
from nightshift.evaluation import contenders, evidence, gates, publish, robustness
from nightshift.evaluation.contenders import Contender, Labels
from nightshift.evaluation.gates import Case, Rival, lead
from nightshift.evaluation.metrics.scores import judge
from nightshift.models import ensemble
from nightshift.records import Benchmark, Candidate, ClassScores, Dataset, Evaluation, Evidence, Robustness
from nightshift.records.specs import EvaluateSpec
from nightshift.runner.json_logs import one_line
from nightshift.storage import outputs

if TYPE_CHECKING:
    from nightshift.tracking.registry import Champions

DAY = 24 * 60 * 60.0


def evaluate(spec: EvaluateSpec) -> Evaluation:
    """Judge the night's candidates and write the report.

    Raises InputError with all reasons when no candidate was made whose loss of accuracy can be shown.
    """
    made, missing = contenders.made(spec.candidates)
    candidates = comparison.left(made, missing)
    dataset = storage.read_record(spec.dataset_uri, Dataset)
    models = {name: outputs.read(candidate.model) for name, candidate in candidates.items()}
    test = load_split(dataset, "test")
    images, labels = test.images.numpy(), test.labels.numpy()
    champions = contenders.champions(spec.plan.pipeline.name)
    entrants = {
        name: contenders.of_registered(registered, dataset, images, labels)
        for name, registered in contenders.distinct(champions).items()
    }
    speeds, machine, untimed = comparison.timed(spec, dataset, models, entrants, (images, labels))
    missing |= untimed
    candidates = comparison.left(candidates, missing)
    compared = comparison.compared(spec, dataset, candidates, models, (speeds, machine), missing)
    chosen = candidates[compared.chosen]
    ours = {
        name: contenders.of_candidate(models[name], candidates[name], images, len(dataset.classes))
        for name in dict.fromkeys((chosen.name, chosen.reference))
    }
    # A champion that knows none of the classes has nothing to be judged on.
    taking_part = ours | {name: champion for name, champion in entrants.items() if champion.known.any()}
    judged = {
        name: contenders.answered(entrant, speeds[name].reference, len(dataset.classes))
        for name, entrant in taking_part.items()
    }
    scores = _scores(judged, speeds, labels, dataset.classes)
    network = ensemble.restore(
        chosen.of(spec.members), dataset, chosen.vote, flip_tta=spec.plan.pipeline.quantize.flip_tta
    )
    shown = _evidence(spec, chosen, judged, network, test, dataset)
    case = _case(
        spec, chosen, scores, compared.accuracy, judged, labels, champions, dataset, shown.robustness
    )
    findings = report.Findings(
        spec.plan,
        dataset,
        compared,
        gates.judge(case, spec.policy),
        ensemble.standings(spec.members, dataset) if len(spec.members) > 1 else None,
        scores,
        {name: registered.version for name, registered in contenders.distinct(champions).items()},
        case.best.version if case.best and lead(case.best) > 0 else None,
        max((int((~champion.known).sum()) for champion in entrants.values()), default=0),
        shown,
        spec.members[0].made_with,
    )
    for verdict in findings.verdicts:
        said = f"{'passed ' if verdict.passed else 'REFUSED'} {verdict.gate}: {verdict.sentence}"
        print(one_line(said), flush=True)
    return publish.publish(spec, findings, images, evidence.overlays(shown, network, test, dataset))


def _scores(
    judged: Mapping[str, Contender],
    speeds: Mapping[str, Benchmark],
    labels: Labels,
    classes: tuple[str, ...],
) -> dict[str, ClassScores]:
    """Quality on the images of known classes."""
    return {
        name: ClassScores(
            model=name,
            sha256=contender.sha256,
            **judge(
                labels[contender.known],
                contender.predicted[contender.known],
                contender.probabilities[contender.known],
                classes,
            )._asdict(),
            speed=speeds[name],
        )
        for name, contender in judged.items()
    }


def _evidence(
    spec: EvaluateSpec,
    chosen: Candidate,
    judged: Mapping[str, Contender],
    network: nn.Module,
    test: Images,
    dataset: Dataset,
) -> Evidence:
    tried = None
    if spec.settings.robustness != "none":
        seed = spec.plan.pipeline.train.seed
        tried = robustness.assess(judged, network, test.labels.numpy(), dataset, spec.settings, seed)
    return evidence.collect(judged, chosen.name, test.labels.numpy(), dataset, tried)


def _case(
    spec: EvaluateSpec,
    chosen: Candidate,
    scores: Mapping[str, ClassScores],
    validation: Mapping[str, float],
    judged: Mapping[str, Contender],
    labels: Labels,
    champions: "Champions | None",
    dataset: Dataset,
    tried: Robustness | None,
) -> Case:
    """What the gates look at. A champion that knows none of the images' classes is no rival."""

    def rival(name: str, version: str = "") -> Rival:
        known = judged[name].known
        right = (judged[chosen.name].predicted == labels)[known]
        return Rival(version, scores[name], labels[known], right, (judged[name].predicted == labels)[known])

    rivals = {
        name: rival(name, registered.version)
        for name, registered in contenders.distinct(champions).items()
        if name in judged
    }
    champion = champions.current if champions else None
    twice, trained = dataset.duplicates, sum(dataset.counts["train"].values())
    newest = spec.plan.newest
    return Case(
        chosen=chosen.name,
        reference=chosen.reference,
        classes=dataset.classes,
        scores=scores[chosen.name],
        validation=validation,
        float32=rival(chosen.reference),
        champion_version=champion.version if champion else None,
        lost_classes=tuple(name for name in champion.classes if name not in dataset.classes)
        if champion
        else (),
        champion=rivals.get("champion"),
        best=max(reversed(rivals.values()), key=lead, default=None),
        robustness=tried,
        fresher=champion is not None and champion.batches != dataset.batches_digest,
        drift=next((found for found in spec.drifts if found.against == "champion"), None),
        leakage=0.0 if twice.near_excluded else twice.near / trained,
        data_age_days=(time.time() - newest) / DAY if newest else None,
        new_classes=tuple(name for name in dataset.classes if champion and name not in champion.classes),
        pair_sum=chosen.pair_sum if spec.plan.pipeline.quantize.portable else None,
    )
