"""Judging a night: the recipe by validation, the champion on the same images, the report and its key."""

import json
from collections.abc import Callable

import numpy as np
import pytest

from tasks import evaluate as stage
from tasks import storage
from tasks.config import EvaluateSettings, PreprocessSettings, PromotionPolicy
from tasks.errors import InputError
from tasks.evaluate import evaluate
from tasks.records import Artifact
from tasks.register import tags_of
from tasks.registry import CHECKPOINTS, Champions, Registered
from tasks.specs import EvaluateSpec

QUICK = EvaluateSettings(latency_runs=10, throughput_batch=8)


def spec_of(night, **changes):
    plan = night.plan.model_copy(update=changes.pop("plan", {}))
    policy = changes.pop("policy", PromotionPolicy(min_accuracy=0.5))
    candidates = changes.pop("candidates", tuple(night.candidates.values()))
    return EvaluateSpec(
        plan=plan,
        dataset_uri=night.dataset_uri,
        members=getattr(night, "members", None) or (night.checkpoint,),
        candidates=candidates,
        settings=QUICK,
        policy=policy,
    )


def registered(night, recipe: str = "fp32", **changes) -> Registered:
    candidate = night.candidates[recipe]
    values = {
        "version": "3",
        "sha256": candidate.model.sha256,
        "model": storage.read_artifact(candidate.model),
        "classes": night.dataset.classes,
        "preprocess": night.dataset.preprocess,
        "tags": {"nightshift.data_digest": night.plan.data_digest},
        **changes,
    }
    return Registered(**values)


@pytest.fixture
def crowned(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Sets the champions that the registry answers with; the registry itself has its own tests."""

    def crown(current: Registered, best: Registered | None = None) -> None:
        monkeypatch.setattr(stage, "_champions", lambda name: Champions(current, best or current))

    return crown


def test_first_night_passes_and_leaves_a_report(ml_night):
    evaluation = evaluate(spec_of(ml_night))
    assert evaluation.passed
    assert set(evaluation.test) == {evaluation.chosen, "fp32"}
    assert set(evaluation.validation) == {"fp32", "int8"}
    assert evaluation.test["fp32"].accuracy > 0.9
    assert evaluation.champion_version is None
    page = storage.read_artifact(evaluation.report).decode()
    assert evaluation.test[evaluation.chosen].sha256 in page
    assert all(f"<td>{verdict.gate}</td>" in page for verdict in evaluation.verdicts)


def test_the_registered_version_will_lead_back_to_the_checkpoint(ml_night):
    tags = tags_of(ml_night.plan, evaluate(spec_of(ml_night)), ml_night.dataset)
    assert [Artifact.model_validate(each) for each in json.loads(tags[CHECKPOINTS])] == [
        ml_night.checkpoint.weights
    ]


def test_size_objective_chooses_the_smaller_file(ml_night):
    policy = PromotionPolicy(min_accuracy=0.5, objective="size", max_accuracy_loss=0.5)
    assert evaluate(spec_of(ml_night, policy=policy)).chosen == "int8"


def test_a_size_limit_that_is_missed_refuses_with_both_numbers(ml_night):
    policy = PromotionPolicy(min_accuracy=0.5, max_size_mb=0.001)
    evaluation = evaluate(spec_of(ml_night, policy=policy))
    failed = {verdict.gate: verdict for verdict in evaluation.verdicts if not verdict.passed}
    assert set(failed) == {"size"}
    size = evaluation.test[evaluation.chosen].size
    assert (failed["size"].value, failed["size"].limit) == (size / 1e6, 0.001)
    assert not evaluation.passed


def test_the_champion_s_own_file_on_the_same_data_is_no_gain(ml_night, crowned):
    crowned(registered(ml_night))
    only = (ml_night.candidates["fp32"],)
    evaluation = evaluate(spec_of(ml_night, candidates=only))
    gates = {verdict.gate: verdict for verdict in evaluation.verdicts}
    assert evaluation.champion_version == evaluation.best_version == "3"
    assert evaluation.test["champion"].accuracy == evaluation.test["fp32"].accuracy
    assert "best" not in evaluation.test
    assert gates["non-inferiority"].passed
    assert not gates["gain"].passed


def test_fresher_data_is_a_gain(ml_night, crowned):
    crowned(registered(ml_night, tags={"nightshift.data_digest": "another"}))
    gain = next(v for v in evaluate(spec_of(ml_night)).verdicts if v.gate == "gain")
    assert gain.passed
    assert "fresher data" in gain.sentence


def test_champion_is_compared_by_class_name_and_not_judged_on_classes_it_lacks(ml_night, crowned):
    renamed = (*ml_night.dataset.classes[:3], "gone")
    crowned(registered(ml_night, classes=renamed))
    evaluation = evaluate(spec_of(ml_night))
    labels = 24 // 4
    assert evaluation.unknown_to_champion == labels
    assert evaluation.test["champion"].images == 24 - labels
    assert evaluation.test["champion"].accuracy > 0.9
    gain = next(v for v in evaluation.verdicts if v.gate == "gain")
    assert "new classes top-right" in gain.sentence


def test_champion_with_classes_in_another_order_is_translated(ml_night, crowned):
    reversed_classes = tuple(reversed(ml_night.dataset.classes))
    crowned(registered(ml_night, classes=reversed_classes))
    assert evaluate(spec_of(ml_night)).test["champion"].accuracy < 0.2


def test_champion_with_other_preprocessing_reads_the_originals(ml_night, crowned, monkeypatch):
    read = []
    original = storage.read
    monkeypatch.setattr(storage, "read", lambda uri: read.append(uri) or original(uri))
    # A PNG prepared by cropping and by stretching is the same square here, so the scores must agree.
    crowned(registered(ml_night, preprocess=PreprocessSettings(image_size=8, resize="stretch")))
    evaluation = evaluate(spec_of(ml_night))
    assert sum("/incoming/tiny/batch-1/" in uri for uri in read) == 24
    assert evaluation.test["champion"].accuracy == evaluation.test["fp32"].accuracy


def test_best_champion_of_another_version_is_judged_too(ml_night, crowned):
    crowned(registered(ml_night), registered(ml_night, "int8", version="1"))
    evaluation = evaluate(spec_of(ml_night))
    assert (evaluation.champion_version, evaluation.best_version) == ("3", "1")
    assert evaluation.test["best"].sha256 == ml_night.candidates["int8"].model.sha256
    rival = next(v for v in evaluation.verdicts if v.gate == "non-inferiority")
    assert "version 1" in rival.sentence


def test_the_standings_of_an_ensemble_are_in_the_report_and_in_mlflow(ml_ensemble, monkeypatch):
    from tasks import tracking

    rows = []
    monkeypatch.setattr(tracking, "log_metrics", lambda run_id, batch: rows.extend(batch))
    monkeypatch.setattr(tracking, "log_artifact", lambda run_id, path, data: None)
    evaluation = evaluate(spec_of(ml_ensemble, plan={"mlflow_run_id": "run"}))
    logged = {name: value for name, value, _ in rows if name.startswith("validation/")}
    names = ("member-0", "member-1", "member-2", "soft-vote", "hard-vote", *ml_ensemble.candidates)
    assert set(logged) == {f"validation/{name}/accuracy" for name in names}
    standings = stage.ensemble.standings(ml_ensemble.members, ml_ensemble.dataset)
    assert logged["validation/member-1/accuracy"] == standings.members[1]
    page = storage.read_artifact(evaluation.report).decode()
    assert f'<td>member 2</td><td class="n">{100 * standings.members[2]:.2f} %</td>' in page
    assert f'<td>hard vote of all</td><td class="n">{100 * standings.hard:.2f} %</td>' in page


def test_a_single_network_has_no_standings(ml_night):
    assert "Members of the ensemble" not in storage.read_artifact(evaluate(spec_of(ml_night)).report).decode()


def test_evaluation_needs_the_float_reference_of_every_vote(ml_ensemble):
    names = ("fp32", "int8", "int8-soft-vote")
    candidates = tuple(ml_ensemble.candidates[name] for name in names)
    with pytest.raises(
        InputError, match="needs the fp32-soft-vote candidate, got fp32, int8, int8-soft-vote"
    ):
        evaluate(spec_of(ml_ensemble, candidates=candidates))


def test_evaluation_needs_the_float_reference(ml_night):
    with pytest.raises(InputError, match="needs the fp32 candidate, got int8"):
        evaluate(spec_of(ml_night, candidates=(ml_night.candidates["int8"],)))


def test_a_changed_candidate_is_refused(ml_night):
    candidate = ml_night.candidates["fp32"]
    wrong = candidate.model_copy(update={"model": candidate.model.model_copy(update={"sha256": "0" * 64})})
    with pytest.raises(InputError, match="changed or damaged"):
        evaluate(spec_of(ml_night, candidates=(wrong,)))


def test_numbers_and_report_go_to_the_night_s_run(ml_night, monkeypatch):
    from tasks import tracking

    rows, files = [], {}
    monkeypatch.setattr(tracking, "log_metrics", lambda run_id, batch: rows.extend(batch))
    monkeypatch.setattr(tracking, "log_artifact", lambda run_id, path, data: files.update({path: data}))
    evaluation = evaluate(spec_of(ml_night, plan={"mlflow_run_id": "run"}))
    logged = {name: value for name, value, _ in rows}
    assert logged["test/fp32/accuracy"] == evaluation.test["fp32"].accuracy
    assert files["report/report.html"] == storage.read_artifact(evaluation.report)
    assert files["report/confusion.png"].startswith(b"\x89PNG")
    assert np.isfinite(list(logged.values())).all()


def test_a_champion_of_other_channels_is_no_rival(ml_night, crowned):
    other = ml_night.dataset.preprocess.model_copy(update={"channels": 5})
    crowned(registered(ml_night, preprocess=other))
    evaluation = evaluate(spec_of(ml_night))
    assert "champion" not in evaluation.test
    assert evaluation.unknown_to_champion == 24
