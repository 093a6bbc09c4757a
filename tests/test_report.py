"""What stands on the report's page, as a person reads it."""

import re

import pytest
from ml_fixtures import make_plan
from speeds import MACHINE, speed

from tasks import report
from tasks.choice import Comparison
from tasks.records import Artifact, Candidate, Scores, Verdict

FILE = Artifact(uri="s3://x/y", sha256="0" * 64, size=1)
PICTURES = report.Pictures(b"confusion", b"candidates")


@pytest.fixture
def findings(ml_dataset) -> report.Findings:
    details = {"int8_share": 0.987, "weight_bits": 8, "bias_bits": 32, "quantized_nodes": 21}
    candidates = {
        name: Candidate(recipe=name, model=FILE, checkpoints=(), details=given, seconds=1)
        for name, given in (("fp32", {}), ("int8", details))
    }
    speeds = {
        "fp32": speed(2.0, size=8_000_000, throughput=1500),
        "int8": speed(1.0, size=2_500_000, throughput=6000),
        "champion": speed(3.0),
    }
    passed_over = {
        "int8": "int8 loses 1.20 points of <validation> accuracy",
        "int4": "int4 was not made: no room",
    }
    accuracy = {"fp32": 0.95, "int8": 0.938}
    return report.Findings(
        plan=make_plan(ml_dataset),
        dataset=ml_dataset,
        comparison=Comparison(candidates, accuracy, speeds, MACHINE, "fp32", passed_over, ("int8", "fp32")),
        verdicts=(Verdict(gate="gain", passed=False, value=0, limit=1, sentence="nothing is better"),),
        standings=None,
        test={
            name: Scores(
                model=name,
                sha256="ab" * 32,
                images=24,
                accuracy=0.91,
                precision=0.92,
                recall=0.93,
                f1=0.94,
                per_class={},
                confusion=(),
                speed=speeds[name],
            )
            for name in ("fp32", "champion")
        },
        versions={"champion": "7"},
        unknown_to_champion=0,
    )


def text_of(page: bytes) -> str:
    """What a person reads, one cell after the other."""
    body = page.decode().split("<body>")[1]
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", body))


def test_the_page_has_every_number_of_every_candidate_and_needs_nothing_else(findings):
    page = report.render(findings, PICTURES)
    text = text_of(page)
    for part in (
        "fp32: refused gain: nothing is better",
        "fp32 24 91.00 % 92.00 % 93.00 % 94.00 % 2.00 8.00 champion (version 7) 24 91.00 %",
        "int8 ◆ 93.80 % 1.20 2.50 99 % 21 8 / 32 loses 1.20 points of &lt;validation&gt; accuracy",
        "fp32 ◆ 95.00 % 0.00 8.00 – – – / – chosen",
        "int4 – – – – – – was not made: no room",
        "int8 3.00 3.30 4.50 1.00 1.10 1.50 2,000 (16) 6,000 (16) 0.25 123 onnxruntime fp32 6.00",
        "champion 9.00 9.90 13.50 3.00",
        "Test Processor, 8 cores, 4 threads for a model, avx512_vnni, onnxruntime 1.2.3.",
        "best by latency is chosen",
    ):
        assert part in text, part
    for picture in (b"Y29uZnVzaW9u", b"Y2FuZGlkYXRlcw=="):  # base64 of their names
        assert b"data:image/png;base64," + picture in page
    assert not re.findall(rb"""(?:src|href)=["'](?!data:)""", page)


def test_a_candidate_without_its_reference_has_no_loss(findings):
    alone = {"int8": findings.comparison.candidates["int8"]}
    comparison = findings.comparison._replace(candidates=alone, accuracy={"int8": 0.938})
    assert "int8 ◆ 93.80 % – 2.50" in text_of(
        report.render(findings._replace(comparison=comparison), PICTURES)
    )
