"""The report of a night: one HTML file that needs nothing else, the verdict first.

    pictures = draw(findings, images, overlays)
    page = render(findings, pictures)

`nightshift.report.model_card` says the same in Markdown.
"""

import base64
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from jinja2 import DictLoader, Environment, StrictUndefined
from numpy.typing import NDArray

from nightshift.records import ClassScores, Conditions, Dataset, EnsembleAccuracy, Evidence, Plan, Verdict
from nightshift.records.evaluation import Comparison
from nightshift.report import candidates as candidates
from nightshift.report import candidates_page, evidence_page, image_grid, quality
from nightshift.report.page import PAGE, STYLE

Pixels = NDArray[np.uint8]


class Findings(NamedTuple):
    """What the page shows; `versions` are the registered versions behind the rows `champion` and `best`."""

    plan: Plan
    dataset: Dataset
    comparison: Comparison
    verdicts: tuple[Verdict, ...]
    standings: EnsembleAccuracy | None  # of an ensemble
    test: dict[str, ClassScores]
    versions: dict[str, str]
    stays_best: str | None  # see Evaluation
    unknown_to_champion: int
    evidence: Evidence
    trained: Conditions

    @property
    def passed(self) -> bool:
        return all(verdict.passed for verdict in self.verdicts)


class Pictures(NamedTuple):
    """PNG files; None where there is nothing to show."""

    confusion: bytes
    candidates: bytes
    reliability: bytes
    curves: bytes | None
    wrong: bytes | None
    hardest: bytes | None
    suspects: bytes | None


def draw(findings: Findings, images: Pixels, overlays: Mapping[int, Pixels]) -> Pictures:
    """All figures. `images` are the test images uint8 [N,H,W,C]; `overlays` uint8 [H,W,3] by their row."""
    comparison, evidence = findings.comparison, findings.evidence
    chosen = findings.test[comparison.chosen]
    wrong, hardest, suspects = evidence.confidently_wrong, evidence.hardest, evidence.suspects
    return Pictures(
        confusion=quality.confusion(chosen, findings.dataset.classes),
        candidates=candidates.figure(comparison, findings.plan.pipeline.promotion),
        reliability=quality.reliability(evidence.reliability),
        curves=quality.curves(evidence.curves) if evidence.curves else None,
        wrong=image_grid.grid(wrong, images, overlays) if wrong else None,
        hardest=image_grid.grid(hardest, images, overlays) if hardest else None,
        suspects=image_grid.grid(suspects, images, overlays, suspected=True) if suspects else None,
    )


def render(findings: Findings, drawn: Pictures) -> bytes:
    """The page as UTF-8; names come from file names of strangers, so all of them are escaped."""
    sections = _sections(findings, drawn)
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=DictLoader({"page": PAGE, **sections}),
    )
    environment.filters["digits"] = digits
    environment.filters["percent"] = lambda share: f"{100 * share:.2f} %"
    environment.filters["number"] = lambda value, digits=2: f"{value:,.{digits}f}"
    environment.filters["span"] = lambda pair: f"{100 * pair[0]:.1f}–{100 * pair[1]:.1f}"
    encoded = {name: base64.b64encode(data).decode() for name, data in drawn._asdict().items() if data}
    page = environment.get_template("page").render(
        **_facts(findings), sections=list(sections), pictures=encoded
    )
    return page.encode()


def digits(value: float | None) -> str:
    """A number of any size with as many digits as tell something."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def computed(findings: Findings) -> str:
    """Where and how the night was computed, in one line: the training, and the chosen candidate's runtime."""
    comparison, trained = findings.comparison, findings.trained
    speed = comparison.speeds[comparison.chosen]
    shares = ", ".join(f"{name} {share:.2%}" for name, share in sorted(speed.agreements.items()))
    return (
        f"Trained in {trained.precision} on {trained.device} ({trained.processor}); measured on "
        f"{candidates.machine_line(comparison.machine)}; {comparison.chosen} in {speed.runtime}, the fastest "
        f"runtime that gives the labels of exact arithmetic ({shares})"
    )


def _sections(findings: Findings, drawn: Pictures) -> dict[str, str]:
    """The templates of the sections that have something to show, in their order."""
    evidence = findings.evidence
    every = {
        "paired": evidence_page.PAIRED if evidence.paired else "",
        "candidates": candidates_page.CANDIDATES,
        "robustness": evidence_page.ROBUSTNESS if evidence.robustness else "",
        "confusion": evidence_page.CONFUSION,
        "wrong": evidence_page.WRONG if drawn.wrong else "",
        "suspects": evidence_page.SUSPECTS if drawn.suspects else "",
        "hardest": evidence_page.HARDEST if drawn.hardest else "",
        "classes": evidence_page.CLASSES,
        "slices": evidence_page.SLICES if evidence.slices else "",
        "calibration": evidence_page.CALIBRATION,
        "curves": evidence_page.CURVES if drawn.curves else "",
        "times": candidates_page.TIMES,
        "members": candidates_page.MEMBERS if findings.standings else "",
    }
    return {name: template for name, template in every.items() if template}


def _facts(findings: Findings) -> dict[str, Any]:
    comparison = findings.comparison
    return {
        **findings._asdict(),
        "style": STYLE,
        "chosen": comparison.chosen,
        "rows": candidates.rows(comparison),
        "times": sorted(comparison.speeds.items(), key=lambda item: item[1].full.latency_ms_p50),
        "machine": candidates.machine_line(comparison.machine),
        "computed": computed(findings),
        "passed": findings.passed,
        "refused_by": [verdict for verdict in findings.verdicts if not verdict.passed],
    }
