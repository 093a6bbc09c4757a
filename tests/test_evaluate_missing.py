"""Nights of which a candidate is missing: not made, without its reference, or not timed."""

import json

import pytest
import speeds
from ml_fixtures import registered, spec_of

from nightshift import storage
from nightshift.errors import InputError
from nightshift.evaluate import evaluate
from nightshift.evaluation import benchmark
from nightshift.records import FailedCandidate
from nightshift.register import tags_of

pytestmark = pytest.mark.usefixtures("timed")


def test_without_its_float_reference_a_vote_is_passed_over(ml_ensemble):
    names = ("fp32", "int8", "int8-soft-vote")
    candidates = tuple(ml_ensemble.candidates[name] for name in names)
    evaluation = evaluate(spec_of(ml_ensemble, candidates=candidates))
    assert evaluation.chosen in ("fp32", "int8")
    assert set(evaluation.rejected) == {"int8-soft-vote"}
    assert "because its reference fp32-soft-vote is missing" in evaluation.rejected["int8-soft-vote"]
    assert set(evaluation.speeds) == set(evaluation.validation) == set(names)


def test_what_could_not_be_made_is_told_and_the_night_goes_on(ml_night, capsys):
    unmade = FailedCandidate(recipe="int8", reason="the calibration images are <blank>")
    evaluation = evaluate(spec_of(ml_night, candidates=(unmade, ml_night.candidates["fp32"])))
    sentence = "int8 was not made: the calibration images are <blank>"
    assert evaluation.chosen == "fp32"
    assert evaluation.rejected == {"int8": sentence}
    assert f"rejected: {sentence}" in capsys.readouterr().out
    page = storage.read_artifact(evaluation.report).decode()
    assert "was not made: the calibration images are &lt;blank&gt;" in page
    tags = tags_of(ml_night.plan, evaluation, ml_night.dataset)
    assert json.loads(tags["nightshift.rejected"]) == {"int8": sentence}


@pytest.mark.parametrize(
    ("names", "why"),
    [
        ((), "none was asked for"),
        (("int8",), "int8 cannot show what accuracy it loses"),
        (("fp32!",), "fp32 was not made: no room"),
        (("int8", "fp32!"), "fp32 was not made: no room; int8 cannot show what accuracy it loses"),
    ],
)
def test_the_night_fails_with_all_reasons_when_no_candidate_is_left(ml_night, timed, names, why):
    candidates = tuple(
        FailedCandidate(recipe=name[:-1], reason="no room")
        if name.endswith("!")
        else ml_night.candidates[name]
        for name in names
    )
    with pytest.raises(InputError, match=f"no candidate is left to choose from: {why}"):
        evaluate(spec_of(ml_night, candidates=candidates))
    assert not timed


@pytest.fixture
def dying(monkeypatch):
    """Makes the processes that time some models die."""

    def die(*names: str) -> None:
        def measure(models, images, settings):
            found, machine = speeds.measure(
                {n: m for n, m in models.items() if n not in names}, images, settings
            )
            raise benchmark.UntimedError({name: f"{name} died" for name in names}, found, machine)

        monkeypatch.setattr(benchmark, "measure", measure)

    return die


def test_a_candidate_that_cannot_be_timed_is_passed_over(ml_night, dying):
    dying("int8")
    evaluation = evaluate(spec_of(ml_night))
    assert evaluation.chosen == "fp32"
    assert evaluation.rejected == {"int8": "int8 died"}
    assert set(evaluation.speeds) == set(evaluation.validation) == {"fp32"}


@pytest.mark.parametrize(
    ("name", "why"), [("fp32", "fp32 died; int8 cannot show"), ("champion", "^champion died$")]
)
def test_the_night_fails_when_what_all_are_compared_with_cannot_be_timed(ml_night, crowned, dying, name, why):
    crowned(registered(ml_night))
    dying(name)
    with pytest.raises(InputError, match=why):
        evaluate(spec_of(ml_night))
