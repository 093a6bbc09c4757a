"""What evaluate leaves behind: report and evidence in the store, all numbers in the night's MLflow run.

The addresses follow from the inputs, so that a second try writes the same objects again.
"""

import json
from collections.abc import Mapping

from nightshift import report, storage
from nightshift.config import digest_of, store_root
from nightshift.inference.runtime import Pixels
from nightshift.records import Evaluation
from nightshift.records.specs import EvaluateSpec
from nightshift.report.model_card import markdown


def publish(
    spec: EvaluateSpec, findings: report.Findings, images: Pixels, overlays: Mapping[int, Pixels]
) -> Evaluation:
    """Store and log the report, and sum up.

    `images` are the test images uint8 [N,H,W,C]; `overlays` uint8 [H,W,3] by row show where the network
    looked.
    """
    compared, versions = findings.comparison, findings.versions
    pictures = report.draw(findings, images, overlays)
    page, card = report.render(findings, pictures), markdown(findings)
    evidence = findings.evidence.model_dump_json(indent=1).encode()
    folder = storage.join(
        store_root(), "reports", digest_of({"spec": spec.model_dump(mode="json"), "versions": versions})
    )
    artifact = storage.write(storage.join(folder, "report.html"), page)
    storage.write(storage.join(folder, "model_card.md"), card)
    stored = storage.write(storage.join(folder, "evidence.json"), evidence)
    scores = storage.write(storage.join(folder, "scores.json"), _scores(findings))
    if spec.plan.mlflow_run_id:
        _log(
            spec.plan.mlflow_run_id,
            findings,
            pictures,
            {"report.html": page, "model_card.md": card, "evidence.json": evidence},
        )
    champion = versions.get("champion")
    return Evaluation(
        chosen=compared.chosen,
        candidate=compared.candidates[compared.chosen],
        validation=compared.accuracy,
        test=findings.test,
        speeds=compared.speeds,
        machine=compared.machine,
        rejected=compared.rejected,
        front=compared.front,
        champion_version=champion,
        best_version=versions.get("best", champion),
        stays_best=findings.stays_best,
        verdicts=findings.verdicts,
        report=artifact,
        evidence=stored,
        scores=scores,
        page=_page(spec.plan.mlflow_run_id),
        unknown_to_champion=findings.unknown_to_champion,
    )


def _scores(findings: report.Findings) -> bytes:
    every = {name: scores.model_dump(mode="json") for name, scores in findings.test.items()}
    return json.dumps(every, ensure_ascii=False, indent=1).encode()


def _page(run_id: str | None) -> str:
    if not run_id:
        return ""
    from nightshift.tracking import runs

    return runs.report_url(run_id)


def _log(
    run_id: str, findings: report.Findings, pictures: report.Pictures, files: Mapping[str, bytes]
) -> None:
    from nightshift.tracking import runs  # imports mlflow, which takes seconds

    runs.log_metrics(run_id, [(name, value, 0) for name, value in numbers(findings).items()])
    # One tag for all of them, so that a second try leaves nothing of the first.
    rejected = "; ".join(findings.comparison.rejected.values())
    runs.set_tags(run_id, {"nightshift.rejected": rejected})
    drawn = {f"{name}.png": data for name, data in pictures._asdict().items() if data}
    runs.log_artifacts(run_id, "report", {**files, **drawn})


def numbers(findings: report.Findings) -> dict[str, float]:
    """Every number of the report under the name that it has in MLflow."""
    comparison = findings.comparison
    validation = dict(comparison.accuracy)
    if standings := findings.standings:
        validation |= {f"member-{number}": value for number, value in enumerate(standings.members)}
        validation |= {"soft-vote": standings.soft, "hard-vote": standings.hard}
    found = {f"validation/{name}/accuracy": value for name, value in validation.items()}
    for name in comparison.candidates:
        own = comparison.speeds[name].numbers
        if (loss := comparison.loss(name)) is not None:
            own |= {"accuracy_loss": loss}
        found |= {f"candidates/{name}/{metric}": float(value) for metric, value in own.items()}
    for name, scores in findings.test.items():
        own = {**scores.quality, **scores.speed.numbers}
        found |= {f"test/{name}/{metric}": float(value) for metric, value in own.items()}
    return found | _robustness(findings)


def _robustness(findings: report.Findings) -> dict[str, float]:
    tried = findings.evidence.robustness
    if tried is None:
        return {}
    found = {f"robustness/{name}/clean": value for name, value in tried.clean.items()}
    found |= {f"robustness/{name}/corrupted": tried.corrupted(name) for name in tried.clean}
    for each in tried.corruptions:
        for name, value in each.accuracy.items():
            found[f"robustness/{name}/{each.family}-{each.severity}"] = value
    for attack in tried.attacks:
        for name, value in attack.accuracy.items():
            found[f"robustness/{name}/{attack.kind}-{attack.epsilon:g}"] = value
    return found
