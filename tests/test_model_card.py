"""The model card: the same facts in Markdown, and nothing of a stranger's that Markdown would obey."""

import pytest
from findings import EVIDENCE, HOSTILE, scores_of
from ml_fixtures import make_plan
from some_conditions import CONDITIONS
from speeds import MACHINE, speed

from nightshift import report
from nightshift.records import Artifact, Candidate, Verdict
from nightshift.records.evaluation import Comparison
from nightshift.report.model_card import markdown


@pytest.fixture
def card(ml_dataset) -> str:
    file = Artifact(uri="s3://x/y", sha256="0" * 64, size=1)
    candidate = Candidate(
        recipe="fp32",
        model=file,
        checkpoints=(),
        details={},
        seconds=1,
        made_with=CONDITIONS,
    )
    speeds = {"fp32": speed(2.0, size=8_000_000), "champion": speed(3.0)}
    comparison = Comparison({"fp32": candidate}, {"fp32": 0.9}, speeds, MACHINE, "fp32", {}, ("fp32",))
    findings = report.Findings(
        plan=make_plan(ml_dataset),
        dataset=ml_dataset,
        comparison=comparison,
        verdicts=(
            Verdict(gate="gain", passed=False, value=0, limit=1, sentence="a|b is <better> than `c` [x](y)"),
        ),
        standings=None,
        test={name: scores_of(name, speed=speeds[name]) for name in ("fp32", "champion")},
        versions={"champion": "7"},
        stays_best="7",
        unknown_to_champion=0,
        evidence=EVIDENCE,
        trained=CONDITIONS,
    )
    return markdown(findings).decode()


def test_the_verdict_comes_first_and_every_number_is_there(card):
    assert card.startswith("# tiny, night-1\n\n**fp32: refused**\n- gain: ")
    for part in (
        "| champion (version 7) | 24 | 91.00 % (80.00 % to 97.00 %) | 94.00 % | 0.9876 | 0.1234 | 0.0321 |",
        "| mean of 2 corruptions | 75.00 % | 65.00 % |",
        "| PGD, at most 2 of 255 a pixel | 40.00 % | – |",
        "SHA-256 of `model.onnx`: `" + "ab" * 32,
        "models:/tiny@champion",
        "[N,8,8,3]",
    ):
        assert part in card, part


def test_strangers_names_are_shown_and_not_obeyed(card):
    assert HOSTILE not in card
    assert "&lt;script&gt;" in card
    assert r"a\|b is &lt;better&gt; than \`c\` \[x\](y)" in card


def test_all_rows_of_a_table_have_its_columns(card):
    for table in (block for block in card.split("\n\n") if block.startswith("|")):
        counts = {line.replace(r"\|", "").count("|") for line in table.splitlines()}
        assert len(counts) == 1, table
