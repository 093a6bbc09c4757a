"""Stage `evaluate`: choose on the validation split, judge on the test split beside the champion.

    python -m tasks evaluate --spec spec.json --result result.json

The test split sees the chosen candidate, its fp32 reference and the champions, nothing else. ONNX Runtime
gives the labels; the times are those of the fastest runtime that agrees with it, measured once for all
candidates and champions.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from tasks import choice, contenders, ensemble, gates, report, runtime, storage, timing
from tasks.choice import Comparison
from tasks.config import digest_of, store_root
from tasks.contenders import Contender, Labels
from tasks.dataset import load_split
from tasks.errors import InputError
from tasks.gates import Case, Rival
from tasks.metrics.scores import judge
from tasks.records import Candidate, Dataset, Evaluation, Machine, Scores, Speed
from tasks.specs import EvaluateSpec

if TYPE_CHECKING:
    from tasks.registry import Champions


def evaluate(spec: EvaluateSpec) -> Evaluation:
    """Judge the night's candidates and write the report.

    Raises InputError with all reasons when no candidate was made whose loss of accuracy can be shown.
    """
    made, missing = contenders.made(spec.candidates)
    candidates = _left(made, missing)
    dataset = storage.read_record(spec.dataset_uri, Dataset)
    models = {name: storage.read_artifact(candidate.model) for name, candidate in candidates.items()}
    champions = contenders.champions(spec.plan.pipeline.name)
    distinct = contenders.distinct(champions)
    test = load_split(dataset, "test")
    images, labels = test.images.numpy(), test.labels.numpy()
    champions_there = {
        name: contenders.of_registered(registered, dataset, images, labels)
        for name, registered in distinct.items()
    }
    speeds, machine, untimed = _timed(spec, dataset, models, champions_there)
    missing |= untimed
    candidates = _left(candidates, missing)
    comparison = _compared(spec, dataset, candidates, models, (speeds, machine), missing)
    chosen = candidates[comparison.chosen]
    there = {
        name: contenders.of_candidate(models[name], candidates[name], images)
        for name in dict.fromkeys((chosen.name, chosen.reference))
    } | champions_there
    scores = _scores(there, speeds, labels, dataset.classes)
    case = _case(spec, chosen, scores, comparison.accuracy, there, labels, champions, dataset)
    findings = report.Findings(
        spec.plan,
        dataset,
        comparison,
        gates.judge(case, spec.policy),
        ensemble.standings(spec.members, dataset) if len(spec.members) > 1 else None,
        scores,
        {name: registered.version for name, registered in distinct.items()},
        max((int((~champion.known).sum()) for champion in champions_there.values()), default=0),
    )
    evaluation = _written(spec, findings)
    for verdict in evaluation.verdicts:
        print(f"{'passed ' if verdict.passed else 'REFUSED'} {verdict.gate}: {verdict.sentence}", flush=True)
    return evaluation


def _left(candidates: dict[str, Candidate], missing: dict[str, str]) -> dict[str, Candidate]:
    """The candidates that are not among the missing, of which there is a sentence each.

    Raises InputError with all sentences when none is left whose loss of accuracy can be shown.
    """
    left = {name: candidate for name, candidate in candidates.items() if name not in missing}
    reasons = missing | choice.unproven({name: candidate.reference for name, candidate in left.items()})
    if not left.keys() - reasons.keys():
        why = "; ".join(reasons.values()) or "none was asked for"
        raise InputError(f"no candidate is left to choose from: {why}; change what the reasons name")
    return left


def _timed(
    spec: EvaluateSpec, dataset: Dataset, models: Mapping[str, bytes], champions: Mapping[str, Contender]
) -> tuple[dict[str, Speed], Machine, dict[str, str]]:
    """Speeds of all candidates and of the champions that know any class, each on images that it takes.

    Last come the reasons, by name, why candidates could not be timed. Raises InputError when a champion
    could not, since nothing could be compared with it.
    """
    usual = contenders.calibration(dataset, spec.plan.pipeline.train.seed)
    judged = {name: champion for name, champion in champions.items() if champion.known.any()}
    own = {name: champion.pixels for name, champion in judged.items() if champion.pixels is not None}
    everyone = {**models, **{name: champion.model for name, champion in judged.items()}}
    try:
        speeds, machine = timing.measure(everyone, dict.fromkeys(everyone, usual) | own, spec.settings)
    except timing.UntimedError as error:
        if error.reasons.keys() & judged.keys():
            raise
        return error.speeds, error.machine, error.reasons
    return speeds, machine, {}


def _compared(
    spec: EvaluateSpec,
    dataset: Dataset,
    candidates: dict[str, Candidate],
    models: Mapping[str, bytes],
    times: tuple[dict[str, Speed], Machine],
    missing: Mapping[str, str],
) -> Comparison:
    """Validation accuracy of every candidate, and which one the policy prefers."""
    split = load_split(dataset, "validation")
    images, labels = split.images.numpy(), split.labels.numpy()
    speeds, machine = times
    accuracy = {
        name: float(np.mean(runtime.Session(models[name]).predict(images)[1] == labels))
        for name in candidates
    }
    references = {name: candidate.reference for name, candidate in candidates.items()}
    chosen, passed_over = choice.choose(accuracy, speeds, references, spec.policy)
    for name, share in accuracy.items():
        full = speeds[name].full
        print(
            f"{name}: validation {share:.4f}, {full.latency_ms_p50:.2f} ms, {full.images_per_second:,.0f} "
            f"images/s ({speeds[name].runtime}), {speeds[name].size / 1e6:.2f} MB",
            flush=True,
        )
    passed_over = {**missing, **passed_over}
    for sentence in passed_over.values():
        print(f"passed over: {sentence}", flush=True)
    front = choice.front(accuracy, speeds)
    return Comparison(candidates, accuracy, speeds, machine, chosen, passed_over, front)


def _scores(
    there: Mapping[str, Contender],
    speeds: Mapping[str, Speed],
    labels: Labels,
    classes: tuple[str, ...],
) -> dict[str, Scores]:
    """Quality on the images of known classes, of every contender that knows any class."""
    return {
        name: Scores(
            model=name,
            sha256=contender.sha256,
            **judge(labels[contender.known], contender.predicted[contender.known], classes)._asdict(),
            speed=speeds[name],
        )
        for name, contender in there.items()
        if contender.known.any()
    }


def _case(
    spec: EvaluateSpec,
    candidate: Candidate,
    scores: Mapping[str, Scores],
    validation: Mapping[str, float],
    there: Mapping[str, Contender],
    labels: Labels,
    champions: "Champions | None",
    dataset: Dataset,
) -> Case:
    """What the gates look at. A champion that knows none of the classes is no rival."""
    ours = there[candidate.name].predicted == labels
    rivals = {}
    for name, registered in contenders.distinct(champions).items():
        if name in scores:
            known = there[name].known
            theirs = there[name].predicted == labels
            rivals[name] = Rival(registered.version, scores[name], ours[known], theirs[known])
    champion = champions.current if champions else None
    return Case(
        chosen=candidate.name,
        reference=candidate.reference,
        scores=scores[candidate.name],
        validation=validation,
        champion=rivals.get("champion"),
        best=rivals.get("best") or rivals.get("champion"),
        fresher=champion is not None and champion.tags.get("nightshift.data_digest") != spec.plan.data_digest,
        drift=next((found for found in spec.drifts if found.against == "champion"), None),
        new_classes=tuple(name for name in dataset.classes if champion and name not in champion.classes),
    )


def _written(spec: EvaluateSpec, findings: report.Findings) -> Evaluation:
    """Store the report, log it with all numbers to the night's run, and sum up."""
    comparison, versions = findings.comparison, findings.versions
    pictures = report.Pictures(
        report.confusion_figure(findings.test[comparison.chosen], findings.dataset.classes),
        report.candidates.figure(comparison, spec.policy),
    )
    page = report.render(findings, pictures)
    key = digest_of({"spec": spec.model_dump(mode="json"), "versions": versions})
    artifact = storage.write(storage.join(store_root(), "reports", key, "report.html"), page)
    if spec.plan.mlflow_run_id:
        _log(spec.plan.mlflow_run_id, findings, page, pictures)
    champion = versions.get("champion")
    return Evaluation(
        chosen=comparison.chosen,
        candidate=comparison.candidates[comparison.chosen],
        classes=findings.dataset.classes,
        validation=comparison.accuracy,
        test=findings.test,
        speeds=comparison.speeds,
        machine=comparison.machine,
        passed_over=comparison.passed_over,
        front=comparison.front,
        champion_version=champion,
        best_version=versions.get("best", champion),
        verdicts=findings.verdicts,
        report=artifact,
        unknown_to_champion=findings.unknown_to_champion,
    )


def _log(run_id: str, findings: report.Findings, page: bytes, pictures: report.Pictures) -> None:
    from tasks import tracking  # imports mlflow, which takes seconds

    comparison = findings.comparison
    validation = dict(comparison.accuracy)
    if standings := findings.standings:
        validation |= {f"member-{number}": value for number, value in enumerate(standings.members)}
        validation |= {"soft-vote": standings.soft, "hard-vote": standings.hard}
    rows = [(f"validation/{name}/accuracy", value, 0) for name, value in validation.items()]
    for name in comparison.candidates:
        numbers = comparison.speeds[name].numbers
        if (loss := comparison.loss(name)) is not None:
            numbers |= {"accuracy_loss": loss}
        rows += [(f"candidates/{name}/{metric}", float(value), 0) for metric, value in numbers.items()]
    for name, scores in findings.test.items():
        numbers = {**scores.quality, **scores.speed.numbers}
        rows += [(f"test/{name}/{metric}", float(value), 0) for metric, value in numbers.items()]
    tracking.log_metrics(run_id, rows)
    # One tag for all of them, so that a second try leaves nothing of the first.
    passed_over = "; ".join(comparison.passed_over.values())
    tracking.set_tags(run_id, {"nightshift.passed_over": passed_over[:4000]})
    tracking.log_artifact(run_id, "report/report.html", page)
    tracking.log_artifact(run_id, "report/confusion.png", pictures.confusion)
    tracking.log_artifact(run_id, "report/candidates.png", pictures.candidates)
