"""A night without Airflow, its heavy stages in this process, and what an ensemble changes in it."""

import os
import signal

import pytest
from ml_fixtures import SEVERAL
from waiting import wait_for

from nightshift import register as registering
from nightshift.cli import local_run
from nightshift.config import EvaluateSettings, Pipeline, PromotionPolicy, TrainSettings
from nightshift.evaluate import evaluate
from nightshift.evaluation.selection import Choice
from nightshift.quantize import quantize
from nightshift.records import Artifact, Candidate, FailedCandidate, InitialWeights, ModelVersion
from nightshift.records.specs import TrainSpec
from nightshift.tracking import runs
from nightshift.train import train
from nightshift.workflows.retrain.close import Closed

REAL = {"train": train, "quantize": quantize, "evaluate": evaluate}


@pytest.fixture
def run(ml_ensemble, timed, monkeypatch):
    """Runs a night on the ensemble's data; the specs of all stages by name, and its result."""
    monkeypatch.setattr(runs, "run_url", lambda run_id: "http://mlflow")

    def night(settings: TrainSettings, **policy):
        pipeline = Pipeline.model_validate(
            {
                **ml_ensemble.plan.pipeline.model_dump(),
                "train": settings,
                "evaluate": EvaluateSettings(latency_runs=10, throughput_batch=8),
                "promotion": PromotionPolicy(mode="never", min_accuracy=0.5, **policy),
            }
        )
        plan = ml_ensemble.plan.model_copy(update={"pipeline": pipeline})
        specs = {}

        def stage(name, spec, echo, labels):
            assert labels == {"pipeline": "tiny", "run": specs["plan"][0].night if specs else spec.night}
            specs.setdefault(name, []).append(spec)
            if name in REAL:
                return REAL[name](spec).model_dump(mode="json")
            if name == "register":
                made = spec.evaluation
                return ModelVersion(
                    name="tiny",
                    version="1",
                    sha256=made.candidate.model.sha256,
                    state="challenger" if made.passed else "refused",
                    offered=made.passed,
                    reasons=(),
                    mlflow_run_id="run",
                ).model_dump()
            assembled = {"dataset_uri": ml_ensemble.dataset_uri, "drifts": [], "proceed": True}
            return {"plan": plan.model_dump(mode="json"), "assemble": assembled, "close": {}}[name]

        monkeypatch.setattr(local_run, "run_stage", stage)
        return local_run.run_night(pipeline, force=False, echo=print), specs

    return night


def test_an_ensemble_offers_every_recipe_of_the_best_member_and_of_each_vote(run, ml_ensemble):
    result, specs = run(SEVERAL, objective="size", max_accuracy_loss=0.5)
    names = ["fp32", "int8", "fp32-soft-vote", "int8-soft-vote", "fp32-hard-vote", "int8-hard-vote"]
    assert [spec.name for spec in specs["quantize"]] == names
    (evaluated,) = specs["evaluate"]
    assert evaluated.members == ml_ensemble.members
    (registered,) = specs["register"]
    evaluation = registered.evaluation
    assert list(evaluation.validation) == names
    assert result["recipe"] == evaluation.chosen == "int8"
    assert set(evaluation.test) == {"int8", "fp32"}
    found = evaluation.speeds["int8"]
    assert result["metrics"]["latency_ms_p50"] == found.full.latency_ms_p50
    assert result["metrics"]["size"] == found.size
    assert result["front"] == list(evaluation.front)
    assert result["rejected"] == {}


def test_a_candidate_that_cannot_be_made_is_in_the_result_and_the_others_go_on(run, monkeypatch):
    def made(spec):
        if spec.name == "int8":
            return FailedCandidate(recipe="int8", reason="no room for 32 images")
        return quantize(spec)

    monkeypatch.setitem(REAL, "quantize", made)
    result, specs = run(SEVERAL.model_copy(update={"members": 1}))
    assert [type(each) for each in specs["evaluate"][0].candidates] == [Candidate, FailedCandidate]
    assert result["recipe"] == "fp32"
    assert result["rejected"] == {"int8": "int8 was not made: no room for 32 images"}


def test_a_vote_that_is_chosen_is_judged_beside_its_own_float_and_names_all_its_members(
    run, ml_ensemble, monkeypatch
):
    monkeypatch.setattr("nightshift.evaluation.selection.choose", lambda *given: Choice("int8-soft-vote", {}))
    result, specs = run(SEVERAL, max_accuracy_loss=0.5)
    evaluation = specs["register"][0].evaluation
    assert result["recipe"] == "int8-soft-vote"
    assert set(evaluation.test) == {"int8-soft-vote", "fp32-soft-vote"}
    assert evaluation.candidate.model == ml_ensemble.candidates["int8-soft-vote"].model
    tags = registering.tags_of(ml_ensemble.plan, evaluation, ml_ensemble.dataset)
    assert (tags["nightshift.recipe"], tags["nightshift.vote"]) == ("int8", "soft")
    assert all(member.weights.uri in tags["nightshift.checkpoints"] for member in ml_ensemble.members)
    assert "of fp32-soft-vote: a loss of" in tags["nightshift.gate.quantization loss"]


def test_one_network_is_offered_alone_whatever_the_vote(run, ml_night):
    _, specs = run(SEVERAL.model_copy(update={"members": 1}))
    assert [spec.name for spec in specs["quantize"]] == ["fp32", "int8"]
    evaluation = specs["register"][0].evaluation
    assert evaluation.candidate.checkpoints == (ml_night.checkpoint.weights,)
    assert evaluation.candidate.model == ml_night.candidates[evaluation.chosen].model


@pytest.mark.parametrize("how", [KeyboardInterrupt, signal.SIGTERM, signal.SIGHUP, ZeroDivisionError])
def test_a_night_that_is_broken_off_closes_its_run_with_the_reason(run, monkeypatch, how):
    def breaks_off(spec):
        if isinstance(how, signal.Signals):
            os.kill(os.getpid(), how)
            wait_for(lambda: False, "the signal")
        raise how

    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)]
    monkeypatch.setitem(REAL, "quantize", breaks_off)
    closed = []
    monkeypatch.setitem(REAL, "close", lambda spec: closed.append(spec) or Closed(status="", reason=""))
    with pytest.raises(how if isinstance(how, type) else KeyboardInterrupt):
        run(SEVERAL.model_copy(update={"members": 1}))
    (spec,) = closed
    assert spec.failed
    assert spec.reason == ("ZeroDivisionError" if how is ZeroDivisionError else "broken off by a person")
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)] == before


def test_training_starts_from_the_weights_of_the_plan(ml_night):
    weights = Artifact(uri="s3://nightshift/model.safetensors", sha256="a" * 64, size=3)
    start = InitialWeights(name="models:/tiny/3", weights=weights)
    asked = []

    def stage(name, spec):
        asked.append(spec)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        local_run._model(
            ml_night.plan.model_copy(update={"start": start}), {"dataset_uri": "file:///d"}, stage
        )
    assert isinstance(asked[0], TrainSpec)
    assert asked[0].start == start


def offer(monkeypatch, *answers: dict, **policy: object):
    """What a night says of its promotion, and what it asked of the stage."""
    given, specs = iter(answers), []

    def stage(name, spec):
        specs.append(spec)
        return next(given)

    pipeline = Pipeline(name="tiny", promotion=PromotionPolicy(**policy))
    return local_run._promotion(pipeline, {"version": "3", "sha256": "a" * 64}, "night", stage), specs


def test_a_person_is_asked_for_the_first_champion_here_too(monkeypatch):
    checked = {"proceed": True, "asks": True, "reason": "", "bound": None}
    said, (asked,) = offer(monkeypatch, checked, first_champion="approve")
    assert (asked.action, asked.asks, asked.only_challenger, asked.run) == ("check", "first", True, "night")
    assert said == {
        "state": "challenger",
        "promotion": "a person has to approve: nightshift promote tiny --version 3",
    }


def test_what_a_promotion_is_decided_on_is_bound_here_too(monkeypatch):
    bound = {"sha256": "a" * 64, "champion": "2", "test": ""}
    checked = {"proceed": True, "asks": False, "reason": "", "bound": bound}
    for moved, state in (
        ({"proceed": True, "version": "3"}, "promoted"),
        ({"proceed": True, "version": "2"}, "not-promoted"),
    ):
        said, (_, move) = offer(monkeypatch, checked, {**moved, "reason": "why"}, manual_moves="put_back")
        assert (move.action, move.bound.champion, move.manual_moves) == ("move", "2", "put_back")
        assert said == {"state": state, "promotion": "why"}
    stale = {"proceed": False, "reason": "it was judged beside version 1"}
    assert offer(monkeypatch, stale)[0] == {"state": "not-promoted", "promotion": stale["reason"]}
