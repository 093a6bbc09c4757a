"""The report as a model card in Markdown: what the model is for, how good it is, and where it is not."""

from collections.abc import Iterable, Sequence
from importlib.metadata import version

from nightshift.inference.portability import PAIR_LIMIT
from nightshift.report import Findings, computed, digits
from nightshift.security.escaping import escaped

Cell = str | int | float | None
LOADING = """```python
import mlflow, numpy as np
model = mlflow.pyfunc.load_model("models:/{name}@champion")
model.predict({{"images": np.zeros((1, {height}, {width}, {channels}), np.uint8)}})
```"""


def markdown(findings: Findings) -> bytes:
    """The card as UTF-8. Names of strangers are escaped for Markdown and for the HTML inside of it."""
    chosen = findings.test[findings.comparison.chosen]
    parts = [
        *_head(findings),
        "## Gates",
        _table(
            ("", "gate", "value", "limit", "champion", "in words"),
            (
                (
                    "✓" if v.passed else "✗",
                    v.gate,
                    digits(v.value),
                    digits(v.limit),
                    digits(v.champion),
                    v.sentence,
                )
                for v in findings.verdicts
            ),
        ),
        "## Scores on the test images",
        _scores(findings),
        *_robustness(findings),
        "## Classes",
        _table(
            ("class", "test images", "precision", "recall", "F1"),
            (
                (name, int(row["images"]), *(_percent(row[key]) for key in ("precision", "recall", "f1")))
                for name, row in chosen.per_class.items()
            ),
        ),
        "## Data and training",
        _made(findings),
    ]
    return ("\n\n".join(parts) + "\n").encode()


def _head(findings: Findings) -> list[str]:
    plan, name = findings.plan, findings.comparison.chosen
    height, width, channels = findings.dataset.preprocess.input_shape
    refused = "".join(
        f"\n- {escaped(v.gate)}: {escaped(v.sentence)}" for v in findings.verdicts if not v.passed
    )
    return [
        f"# {escaped(plan.pipeline.name)}, {escaped(plan.night)}",
        f"**{escaped(name)}: {'all gates passed' if findings.passed else 'refused'}**{refused}",
        f"SHA-256 of `model.onnx`: `{findings.test[name].sha256}`",
        "## Use",
        f"An image classifier of {len(findings.dataset.classes)} classes"
        f"{': ' + escaped(plan.pipeline.description) if plan.pipeline.description else ''}. It takes uint8 "
        f"images [N,{height},{width},{channels}], prepared as `nightshift predict` does, and gives "
        "`probabilities` and `label`. It knows no other classes: an image of anything else gets one of these "
        "labels.",
        LOADING.format(name=plan.pipeline.name, height=height, width=width, channels=channels),
    ]


def _scores(findings: Findings) -> str:
    rows = []
    for name, scores in findings.test.items():
        low, high = scores.interval
        label = f"{name} (version {findings.versions[name]})" if name in findings.versions else name
        rows.append(
            (
                label,
                scores.images,
                f"{_percent(scores.accuracy)} ({_percent(low)} to {_percent(high)})",
                _percent(scores.f1),
                digits(scores.roc_auc),
                digits(scores.brier),
                digits(scores.calibration_error),
                f"{scores.speed.full.latency_ms_p50:.2f} ({scores.speed.runtime})",
                f"{scores.speed.size / 1e6:.2f}",
            )
        )
    head = ("model", "images", "accuracy (95 %)", "F1", "ROC AUC", "Brier", "ECE", "p50 ms", "MB")
    return _table(head, rows)


def _robustness(findings: Findings) -> list[str]:
    tried = findings.evidence.robustness
    if tried is None:
        return []
    rows: list[Sequence[Cell]] = [("unchanged", *(_percent(share) for share in tried.clean.values()))]
    rows.append(
        (
            f"mean of {len(tried.corruptions)} corruptions",
            *(_percent(tried.corrupted(name)) for name in tried.clean),
        )
    )
    rows += [
        (
            f"{attack.kind.upper()}, at most {attack.epsilon:g} of 255 a pixel",
            *(_percent(attack.accuracy[name]) if name in attack.accuracy else "–" for name in tried.clean),
        )
        for attack in tried.attacks
    ]
    return [
        "## Robustness",
        _table((f"{tried.images} test images", *tried.clean), rows),
        "Attacks are made with the float network and transferred to the others.",
    ]


def _made(findings: Findings) -> str:
    plan, data = findings.plan, findings.dataset
    counts = ", ".join(f"{sum(each.values()):,} {split}" for split, each in data.counts.items())
    rows = [
        ("images", f"{counts}; {data.refused} files refused"),
        ("data set", data.digest),
        ("data", plan.data_digest),
        ("settings", plan.settings_digest),
        ("network", f"{plan.pipeline.train.model}, {plan.pipeline.train.epochs} epochs"),
        ("starts from", plan.start.name if plan.start else plan.pipeline.train.weights),
        ("computed", computed(findings)),
        ("processors", _portability(findings)),
        ("Nightshift", version("nightshift-ml")),
    ]
    return _table(("what", "which"), rows)


def _portability(findings: Findings) -> str:
    """Which processors give these labels."""
    largest = findings.comparison.candidates[findings.comparison.chosen].pair_sum
    if not largest:
        return "portable: it computes in float"
    if largest <= PAIR_LIMIT:
        return (
            "portable: no sum saturates on any processor, as two products add up to at most "
            f"{largest:,}, and {PAIR_LIMIT:,} is held everywhere"
        )
    return (
        f"not portable: two products add up to {largest:,}; serve it only where VNNI, AMX or Arm's dot "
        "products are"
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[Cell]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(escaped(cell) for cell in line) + " |" for line in lines)


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"
