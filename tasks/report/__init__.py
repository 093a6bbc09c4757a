"""The report of a night: one HTML file that needs nothing else, the verdict first."""

import base64
import io
from typing import NamedTuple

from jinja2 import Environment, StrictUndefined
from matplotlib.figure import Figure

from tasks.choice import Comparison
from tasks.records import Dataset, Plan, Scores, Standings, Verdict
from tasks.report import candidates as candidates
from tasks.report.page import PAGE


class Findings(NamedTuple):
    """What the page shows; `versions` are the registered versions behind the rows `champion` and `best`."""

    plan: Plan
    dataset: Dataset
    comparison: Comparison
    verdicts: tuple[Verdict, ...]
    standings: Standings | None  # of an ensemble
    test: dict[str, Scores]
    versions: dict[str, str]
    unknown_to_champion: int


class Pictures(NamedTuple):
    """PNG files: the confusion matrix of the chosen candidate, and all candidates beside each other."""

    confusion: bytes
    candidates: bytes


def render(findings: Findings, pictures: Pictures) -> bytes:
    """The page as UTF-8; names come from file names of strangers, so all of them are escaped."""
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["percent"] = lambda share: f"{100 * share:.2f} %"
    environment.filters["number"] = lambda value, digits=2: f"{value:,.{digits}f}"
    page = environment.from_string(PAGE).render(
        **findings._asdict(),
        chosen=findings.comparison.chosen,
        rows=candidates.rows(findings.comparison),
        times=sorted(findings.comparison.speeds.items(), key=lambda item: item[1].full.latency_ms_p50),
        machine=candidates.machine_line(findings.comparison.machine),
        passed=all(verdict.passed for verdict in findings.verdicts),
        refused_by=[verdict for verdict in findings.verdicts if not verdict.passed],
        pictures={name: base64.b64encode(data).decode() for name, data in pictures._asdict().items()},
    )
    return page.encode()


def confusion_figure(scores: Scores, classes: tuple[str, ...]) -> bytes:
    """The confusion matrix as a PNG: shares of each true class, with counts where there is room."""
    count = len(classes)
    side = max(3.5, min(12.0, 1.2 + 0.45 * count))
    figure = Figure(figsize=(side, side), layout="constrained", dpi=110)
    axes = figure.subplots()
    shares = [[cell / max(1, sum(row)) for cell in row] for row in scores.confusion]
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set(
        xlabel="predicted class", ylabel="true class", title=f"{scores.model}, {scores.images:,} test images"
    )
    if count <= 40:
        names = [_plain(name) for name in classes]
        axes.set_xticks(range(count), names, rotation=90 if max(map(len, names)) > 3 else 0)
        axes.set_yticks(range(count), names)
    if count <= 20:
        for y, row in enumerate(scores.confusion):
            for x, cell in enumerate(row):
                if cell:
                    colour = "white" if shares[y][x] > 0.5 else "black"
                    axes.text(x, y, str(cell), ha="center", va="center", color=colour, fontsize=8)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _plain(name: str) -> str:
    """A class name for a figure: not too long, and without the dollar signs that start formulas."""
    return (name if len(name) <= 24 else name[:23] + "…").replace("$", r"\$")
