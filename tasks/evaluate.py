"""Stage `evaluate`: choose on the validation split, judge on the test split beside the champion.

    python -m tasks evaluate --spec spec.json --result result.json

The test split sees the chosen candidate, its fp32 reference and the champions, nothing else. All of them
see the same images in this one process, and are timed in turns. ONNX Runtime gives the labels; the times
are those of the fastest runtime that agrees with it, and the scores say which.
"""

import json
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tasks import ensemble, gates, report, runtime, storage
from tasks.config import PreprocessSettings, digest_of, store_root
from tasks.dataset import load_split
from tasks.errors import InputError
from tasks.gates import Case, Rival
from tasks.metrics.scores import judge
from tasks.records import Candidate, Dataset, Evaluation, Scores
from tasks.specs import EvaluateSpec

if TYPE_CHECKING:
    from tasks.registry import Champions, Registered

Pixels = NDArray[np.uint8]
Labels = NDArray[np.int64]
DOWNLOADS = 8  # original images fetched at a time for a champion with other preprocess settings


class Contender(NamedTuple):
    """One model on the test split: `known` marks the images of classes it knows, `predicted` are indices into
    the classes of the data set (-1: a class that the data set lacks), for all images."""

    model: bytes
    sha256: str
    images: Pixels
    predicted: Labels
    known: NDArray[np.bool_]


def evaluate(spec: EvaluateSpec) -> Evaluation:
    """Judge the night's candidates and write the report.

    Raises InputError when a candidate's fp32 reference is not among them.
    """
    dataset = storage.read_record(spec.dataset_uri, Dataset)
    candidates = {candidate.name: candidate for candidate in spec.candidates}
    if missing := {"fp32", *(candidate.reference for candidate in spec.candidates)} - {*candidates}:
        wanted = " and ".join(sorted(missing))
        raise InputError(f"evaluation needs the {wanted} candidate, got {', '.join(candidates) or 'none'}")
    models = {name: storage.read_artifact(candidate.model) for name, candidate in candidates.items()}
    validation, chosen = _choose(spec, dataset, models)
    reference = candidates[chosen].reference
    champions = _champions(spec.plan.pipeline.name)
    test = load_split(dataset, "test")
    labels: Labels = test.labels.numpy()
    contenders = {
        name: _candidate(models[name], candidates[name], test.images.numpy())
        for name in dict.fromkeys((chosen, reference))
    }
    versions = _versions(champions)
    for name, registered in _distinct(champions).items():
        contenders[name] = _registered(registered, dataset, test.images.numpy(), labels)
    scores = _scores(spec, contenders, labels, dataset.classes)
    case = _case(spec, candidates[chosen], scores, validation, contenders, labels, champions, dataset)
    unknown = max((int((~contenders[name].known).sum()) for name in versions), default=0)
    findings = report.Findings(
        spec.plan,
        dataset,
        chosen,
        gates.judge(case, spec.policy),
        ensemble.standings(spec.members, dataset) if len(spec.members) > 1 else None,
        validation,
        scores,
        versions,
        unknown,
    )
    evaluation = _written(spec, findings, candidates[chosen], champions)
    for verdict in evaluation.verdicts:
        print(f"{'passed ' if verdict.passed else 'REFUSED'} {verdict.gate}: {verdict.sentence}", flush=True)
    return evaluation


def _choose(
    spec: EvaluateSpec, dataset: Dataset, models: Mapping[str, bytes]
) -> tuple[dict[str, float], str]:
    """Validation accuracy per candidate, and the name of the one that the policy prefers."""
    split = load_split(dataset, "validation")
    images, labels = split.images.numpy(), split.labels.numpy()
    accuracy = {
        name: float(np.mean(runtime.Session(model).predict(images)[1] == labels))
        for name, model in models.items()
    }
    sessions = {name: runtime.fastest(model, images) for name, model in models.items()}
    seconds = runtime.latencies(sessions, images, runs=spec.settings.latency_runs)
    latency = {name: 1000 * float(np.median(times)) for name, times in seconds.items()}
    size = {name: len(model) for name, model in models.items()}
    references = {candidate.name: candidate.reference for candidate in spec.candidates}
    chosen = gates.choose(accuracy, latency, size, references, spec.policy)
    for name in models:
        print(
            f"{name}: validation {accuracy[name]:.4f}, {latency[name]:.2f} ms ({sessions[name].runtime})",
            flush=True,
        )
    return accuracy, chosen


def _champions(name: str) -> "Champions | None":
    """What is promoted at present, or nothing when this machine has no MLflow to ask."""
    if not os.environ.get("MLFLOW_TRACKING_URI"):
        return None
    from tasks import registry  # imports mlflow, which takes seconds

    return registry.champions(name)


def _distinct(champions: "Champions | None") -> "dict[str, Registered]":
    """The present champion and, when it is another version, the best one so far."""
    if champions is None or champions.current is None:
        return {}
    best = champions.best or champions.current
    return {"champion": champions.current} | (
        {} if best.version == champions.current.version else {"best": best}
    )


def _versions(champions: "Champions | None") -> dict[str, str]:
    return {name: registered.version for name, registered in _distinct(champions).items()}


def _candidate(model: bytes, candidate: Candidate, images: Pixels) -> Contender:
    _, predicted = runtime.Session(model).predict(images)
    return Contender(model, candidate.model.sha256, images, predicted, np.ones(len(images), dtype=bool))


def _registered(registered: "Registered", dataset: Dataset, images: Pixels, labels: Labels) -> Contender:
    """A champion on the test images, through its own preprocess settings, labels compared by class name.

    One that takes other channels than the images have knows none of them.
    """
    if not registered.preprocess.reads(dataset.preprocess):
        nothing = np.zeros(len(images), np.int64)
        return Contender(registered.model, registered.sha256, images, nothing, nothing.astype(np.bool_))
    if not registered.preprocess.same_pixels(dataset.preprocess):
        # What may be too large to read is the data set's to say.
        images = _originals(
            dataset, dataset.preprocess.model_copy(update=registered.preprocess.pixel_settings())
        )
    _, predicted = runtime.Session(registered.model).predict(images)
    index = {name: number for number, name in enumerate(dataset.classes)}
    translated = np.array([index.get(name, -1) for name in registered.classes], dtype=np.int64)
    known = np.isin(labels, translated)
    return Contender(registered.model, registered.sha256, images, translated[predicted], known)


def _originals(dataset: Dataset, settings: PreprocessSettings) -> Pixels:
    """The test images read again from the source and prepared with other settings, in shard order."""
    from tasks import images  # imports OpenCV, which most nights don't need here

    keys: list[str] = []
    for shard in dataset.shards:
        if shard.split == "test":
            named = _keys(storage.read_artifact(shard.file), shard.file.uri, shard.images)
            dropped = set(shard.drop)
            keys += [key for row, key in enumerate(named) if row not in dropped]

    def prepared(key: str) -> Pixels:
        return images.prepare(storage.read(storage.join(dataset.source, key)), settings)

    with ThreadPoolExecutor(DOWNLOADS) as pool:
        return np.stack(list(pool.map(prepared, keys)))


def _keys(shard: bytes, uri: str, count: int) -> list[str]:
    """`batch/key` of each row, from the metadata in the header of a safetensors file."""
    length = int.from_bytes(shard[:8], "little")
    facts = json.loads(shard[8 : 8 + length]).get("__metadata__", {})
    keys: list[str] = json.loads(facts.get("keys", "[]"))
    if len(keys) != count:
        raise InputError(f"shard {uri} names {len(keys)} originals for {count} images; preprocess it again")
    return keys


def _scores(
    spec: EvaluateSpec, contenders: Mapping[str, Contender], labels: Labels, classes: tuple[str, ...]
) -> dict[str, Scores]:
    """Quality on the images of known classes, and times, of every contender that knows any class."""
    judged = {name: contender for name, contender in contenders.items() if contender.known.any()}
    sessions = {
        name: runtime.fastest(contender.model, contender.images) for name, contender in judged.items()
    }
    timings = runtime.measure(
        sessions,
        {name: contender.images for name, contender in judged.items()},
        runs=spec.settings.latency_runs,
        batch=spec.settings.throughput_batch,
    )
    return {
        name: Scores(
            model=name,
            sha256=contender.sha256,
            **judge(labels[contender.known], contender.predicted[contender.known], classes)._asdict(),
            **timings[name]._asdict(),
            runtime=sessions[name].runtime,
            size=len(contender.model),
        )
        for name, contender in judged.items()
    }


def _case(
    spec: EvaluateSpec,
    candidate: Candidate,
    scores: Mapping[str, Scores],
    validation: Mapping[str, float],
    contenders: Mapping[str, Contender],
    labels: Labels,
    champions: "Champions | None",
    dataset: Dataset,
) -> Case:
    """What the gates look at. A champion that knows none of the classes is no rival."""
    ours = contenders[candidate.name].predicted == labels
    rivals = {}
    for name, registered in _distinct(champions).items():
        if name in scores:
            known = contenders[name].known
            theirs = contenders[name].predicted == labels
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


def _written(
    spec: EvaluateSpec, findings: report.Findings, candidate: Candidate, champions: "Champions | None"
) -> Evaluation:
    """Store the report, log it with all numbers to the night's run, and sum up."""
    figure = report.confusion_figure(findings.test[findings.chosen], findings.dataset.classes)
    page = report.render(findings, figure)
    key = digest_of({"spec": spec.model_dump(mode="json"), "versions": findings.versions})
    artifact = storage.write(storage.join(store_root(), "reports", key, "report.html"), page)
    if spec.plan.mlflow_run_id:
        _log(spec.plan.mlflow_run_id, findings, page, figure)
    distinct = _distinct(champions)
    champion = distinct.get("champion")
    best = distinct.get("best", champion)
    return Evaluation(
        chosen=findings.chosen,
        candidate=candidate,
        classes=findings.dataset.classes,
        validation=findings.validation,
        test=findings.test,
        champion_version=champion.version if champion else None,
        best_version=best.version if best else None,
        verdicts=findings.verdicts,
        report=artifact,
        unknown_to_champion=findings.unknown_to_champion,
    )


def _log(run_id: str, findings: report.Findings, page: bytes, figure: bytes) -> None:
    from tasks import tracking  # imports mlflow, which takes seconds

    validation = dict(findings.validation)
    if standings := findings.standings:
        validation |= {f"member-{number}": value for number, value in enumerate(standings.members)}
        validation |= {"soft-vote": standings.soft, "hard-vote": standings.hard}
    rows = [(f"validation/{name}/accuracy", value, 0) for name, value in validation.items()]
    for name, scores in findings.test.items():
        kept = scores.model_dump(
            include={*Scores.model_fields} - {"model", "sha256", "runtime", "per_class", "confusion"}
        )
        rows += [(f"test/{name}/{metric}", float(value), 0) for metric, value in kept.items()]
    tracking.log_metrics(run_id, rows)
    tracking.log_artifact(run_id, "report/report.html", page)
    tracking.log_artifact(run_id, "report/confusion.png", figure)
