"""What stands on the report's page, as a person reads it."""

import re

import numpy as np
import pytest
from findings import EVIDENCE, scores_of
from ml_fixtures import make_plan
from some_conditions import CONDITIONS
from speeds import MACHINE, speed

from nightshift import report
from nightshift.records import Artifact, Candidate, Verdict
from nightshift.records.evaluation import Comparison

FILE = Artifact(uri="s3://x/y", sha256="0" * 64, size=1)
PICTURES = report.Pictures(b"confusion", b"candidates", b"r", b"c", b"wrong", b"hardest", b"suspects")
NONE: dict[int, np.ndarray] = {}


@pytest.fixture
def findings(ml_dataset) -> report.Findings:
    details = {"int8_share": 0.987, "weight_bits": 8, "bias_bits": 32, "quantized_nodes": 21}
    candidates = {
        name: Candidate(
            recipe=name,
            model=FILE,
            checkpoints=(),
            details=given,
            pair_sums={"conv1": 32_640, "fc": 255} if given else {},
            seconds=1,
            made_with=CONDITIONS,
        )
        for name, given in (("fp32", {}), ("int8", details))
    }
    speeds = {
        "fp32": speed(2.0, size=8_000_000, throughput=1500),
        "int8": speed(1.0, size=2_500_000, throughput=6000),
        "champion": speed(3.0),
    }
    rejected = {
        "int8": "int8 loses 1.20 points of <validation> accuracy",
        "int4": "int4 was not made: no room",
    }
    accuracy = {"fp32": 0.95, "int8": 0.938}
    return report.Findings(
        plan=make_plan(ml_dataset),
        dataset=ml_dataset,
        comparison=Comparison(candidates, accuracy, speeds, MACHINE, "fp32", rejected, ("int8", "fp32")),
        verdicts=(
            Verdict(gate="gain", passed=False, value=0, limit=1, champion=0.5, sentence="nothing is better"),
        ),
        standings=None,
        test={name: scores_of(name, speed=speeds[name]) for name in ("fp32", "champion")},
        versions={"champion": "7"},
        stays_best="7",
        unknown_to_champion=0,
        evidence=EVIDENCE,
        trained=CONDITIONS,
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
        "✗ gain 0 1 0.5 nothing is better",
        "fp32 24 91.00 % 80.0–97.0 98.00 % 92.00 % 93.00 % 94.00 % 85.0–99.0 91.50 % 0.9876 0.9765 0.1234 "
        "0.0321 champion (version 7) 24 91.00 %",
        "champion (version 7) 24 3 1 +8.33 -5.00 to +20.00 0.625",
        "unchanged 95.00 % 94.00 %",
        "mean of 2 corruptions 75.00 % 65.00 %",
        "PGD, at most 2 of 255 a pixel 40.00 % –",
        "snow storm 5 60.00 % 50.00 %",
        "camera &lt;b&gt;old&lt;/b&gt; 7 85.70 % –",
        "batch/&lt;x&gt;.png cat 1.00 % dog 99.00 %",
        "&lt;script&gt; 12 100.00 % 50.00 % 66.67 % 0.9900 –",
        "int8 ◆ 93.80 % 1.20 2.50 99 % 21 8 / 32 32,640 loses 1.20 points of &lt;validation&gt; accuracy",
        "fp32 ◆ 95.00 % 0.00 8.00 – – – / – – chosen",
        "int4 – – – – – – – was not made: no room",
        "int8 3.00 3.30 4.50 1.00 1.10 1.50 2,000 (16) 6,000 (16) 0.25 123 onnxruntime fp32 6.00",
        "champion 9.00 9.90 13.50 3.00",
        "Test Processor, 8 cores, 4 threads for a model, avx512_vnni, onnxruntime 1.2.3.",
        "best by latency is chosen",
        f"Trained in {CONDITIONS.precision} on {CONDITIONS.device} ({CONDITIONS.processor})",
        "fp32 in onnxruntime, the fastest runtime that gives the labels of exact arithmetic",
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


def test_sections_without_data_are_left_out(findings):
    nothing = EVIDENCE.model_copy(
        update={"paired": {}, "slices": (), "curves": (), "suspects": (), "robustness": None}
    )
    bare = PICTURES._replace(curves=None, wrong=None, hardest=None, suspects=None)
    page = report.render(findings._replace(evidence=nothing), bare).decode()
    for title in (
        "Image by image",
        "Robustness",
        "Slices",
        "Curves",
        "Confidently wrong",
        "Labels to look at",
    ):
        assert title not in page
    assert "<h2>Confusion</h2>" in page
    assert "<h2>Members of the ensemble</h2>" not in page


def test_long_tables_are_folded_and_short_ones_open(findings):
    page = report.render(findings, PICTURES).decode()
    assert page.count("<details open>") == page.count("<details") == 3
    many = tuple(EVIDENCE.slices[0].model_copy(update={"value": str(n)}) for n in range(21))
    long = EVIDENCE.model_copy(update={"slices": many})
    page = report.render(findings._replace(evidence=long), PICTURES).decode()
    assert (page.count("<details open>"), page.count("<details")) == (2, 3)


def test_figures_are_drawn_of_what_there_is(findings):
    images = np.random.default_rng(0).integers(0, 255, (24, 8, 8, 5)).astype(np.uint8)
    drawn = report.draw(findings, images, {3: np.zeros((8, 8, 3), np.uint8)})
    assert all(picture.startswith(b"\x89PNG") for picture in drawn)
    assert all(len(picture) < 300_000 for picture in drawn)
    without = EVIDENCE.model_copy(
        update={"curves": (), "confidently_wrong": (), "hardest": (), "suspects": ()}
    )
    drawn = report.draw(findings._replace(evidence=without), images, NONE)
    assert drawn[3:] == (None, None, None, None)
    assert drawn.confusion
