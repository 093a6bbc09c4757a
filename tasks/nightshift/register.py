"""Stage 6: record the night's model as a version, `challenger` or refused with reasons, and end the night."""

import json
from collections.abc import Sequence

from nightshift import storage
from nightshift.config import digest_of, store_root
from nightshift.errors import InputError, NightshiftError
from nightshift.records import (
    Artifact,
    BuildRecord,
    Dataset,
    Decision,
    Evaluation,
    ModelVersion,
    Plan,
    lengths,
)
from nightshift.records.specs import RegisterSpec
from nightshift.runner.json_logs import one_line
from nightshift.security.escaping import escaped
from nightshift.security.sbom import sbom
from nightshift.tracking import ledger, registry, runs

SBOM = "sbom.cdx.json"  # artifact of the night's run: what was installed when its model was made


def register(spec: RegisterSpec) -> ModelVersion:
    """Register the evaluated bytes, once however often this runs, and write the decision down."""
    plan, evaluation = spec.plan, spec.evaluation
    name, run_id = plan.pipeline.name, plan.mlflow_run_id
    if not run_id:
        raise InputError(
            f"night {plan.night} has no MLflow run, so it cannot register; set MLFLOW_TRACKING_URI"
        )
    model = storage.read_artifact(evaluation.candidate.model)
    dataset = storage.read_record(spec.dataset_uri, Dataset)
    version = registry.register_version(
        run_id,
        name,
        model,
        classes=len(dataset.classes),
        shape=dataset.preprocess.input_shape,
        tags={**tags_of(plan, evaluation, dataset), registry.MADE: _made(spec, dataset).model_dump_json()},
        description=describe(evaluation),
    )
    _record_packages(run_id)
    reasons = tuple(verdict.sentence for verdict in evaluation.verdicts if not verdict.passed)
    sha256 = evaluation.candidate.model.sha256
    result = ModelVersion(
        name=name,
        version=version,
        sha256=sha256,
        state="challenger" if evaluation.passed else "refused",
        offered=evaluation.passed and to_offer(name, version, sha256),
        reasons=reasons,
        mlflow_run_id=run_id,
    )
    if result.offered:
        registry.set_alias(name, registry.CHALLENGER, version)
    ledger.append(_decision(plan, result, dataset.digest, evaluation.champion_version))
    print(one_line(f"version {version} of {name} is registered: {result.state} {'; '.join(reasons)}"))
    return result


def to_offer(name: str, version: str, sha256: str) -> bool:
    """Whether a challenger is to be promoted: nothing was decided about it, and no newer one came.

    Registering may run again much later, to sign a version, and must not offer what was dealt with.
    """
    newest = registry.alias_version(name, registry.CHALLENGER)
    if newest is not None and int(newest) > int(version):
        return False
    settled = {each.kind for each in ledger.about(name, version, sha256)} - {*ledger.ONCE, "stale"}
    return not settled


def _record_packages(run_id: str) -> None:
    """Keep the bill of materials; a decision does not wait for one that cannot be made."""
    try:
        packages = sbom()
    except NightshiftError as error:
        print(f"the night has no {SBOM}: {error}")
    else:
        runs.log_artifact(run_id, SBOM, packages)


def _made(spec: RegisterSpec, dataset: Dataset) -> Artifact:
    """Keep what it takes to make the version again, which `nightshift reproduce` reads."""
    candidate = spec.evaluation.candidate
    made = BuildRecord(
        plan=spec.plan.model_copy(update={"messages": ()}),  # they name only what no earlier night had done
        dataset=dataset.digest,
        pixels=dataset.pixels_digest,
        members=candidate.of(spec.members),
        candidate=candidate,
    )
    name = f"{digest_of(made.model_dump(mode='json'))}.json"
    return storage.write_record(storage.join(store_root(), "made", candidate.model.sha256, name), made)


def describe(evaluation: Evaluation) -> str:
    """What a person reads on the version's page, in Markdown: the recipe, then each gate with its numbers."""
    scores = evaluation.test[evaluation.chosen]
    speed = scores.speed
    gates = "\n".join(
        f"- {'✓' if v.passed else '✗'} {v.gate}: {escaped(v.sentence)}" for v in evaluation.verdicts
    )
    return (
        f"**{evaluation.chosen}**, {scores.accuracy:.2%} on {scores.images:,} test images, "
        f"{speed.size / 1e6:.2f} MB, {speed.full.latency_ms_p50:.2f} ms an image ({speed.runtime})\n\n{gates}"
    )


def tags_of(plan: Plan, evaluation: Evaluation, dataset: Dataset) -> dict[str, str]:
    """Everything that a later reader of the registry needs to trust or to compare the version."""
    gates = {
        f"{registry.GATE}{v.gate}": f"{'pass' if v.passed else 'FAIL'}: {v.sentence}"
        for v in evaluation.verdicts
    }
    return {
        **gates,
        runs.NIGHT: plan.night,
        registry.STATE: "challenger" if evaluation.passed else "refused",
        registry.REASONS: "; ".join(v.sentence for v in evaluation.verdicts if not v.passed),
        registry.CLASSES: _shown(dataset.classes),
        registry.PREPROCESS: dataset.preprocess.model_dump_json(),
        registry.DATA: plan.data_digest,
        registry.SETTINGS: plan.settings_digest,
        registry.ACCURACY: json.dumps({key: scores.accuracy for key, scores in evaluation.test.items()}),
        "nightshift.recipe": evaluation.candidate.recipe,
        "nightshift.vote": evaluation.candidate.vote or "none",
        registry.CHAMPION_THEN: evaluation.champion_version or "",
        registry.TEST: dataset.test_digest,
        registry.BATCHES: dataset.batches_digest,
        "nightshift.rejected": json.dumps(evaluation.rejected),
        registry.BEST: evaluation.stays_best or "",
        registry.DATASET: dataset.digest,
        registry.CHECKPOINTS: json.dumps(
            [weights.model_dump() for weights in evaluation.candidate.checkpoints]
        ),
        registry.REPORT: evaluation.report.uri,
        "nightshift.evaluation.evidence": evaluation.evidence.uri,
    }


def _shown(classes: Sequence[str]) -> str:
    """How many classes there are, and as many of their names as people read."""
    return lengths.cut(one_line(f"{len(classes):,}: {', '.join(classes)}"), lengths.CLASSES)


def _decision(plan: Plan, result: ModelVersion, dataset: str, champion: str | None) -> Decision:
    return Decision(
        pipeline=result.name,
        kind=result.state,
        version=result.version,
        sha256=result.sha256,
        dataset=dataset,
        data_digest=plan.data_digest,
        settings_digest=plan.settings_digest,
        replaces=champion,
        by="policy",
        at=ledger.now(),
        night=plan.night,
        reasons=result.reasons,
    )
