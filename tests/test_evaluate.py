"""Judging a night: the recipe by validation, the champion on the same images, the report and its key."""

import json

import numpy as np
import pytest
from ml_fixtures import registered, spec_of

from nightshift import evaluate as stage
from nightshift import storage
from nightshift.config import PreprocessSettings, PromotionPolicy
from nightshift.data.dataset import load_split
from nightshift.errors import InputError
from nightshift.evaluate import evaluate
from nightshift.evaluation import benchmark, contenders
from nightshift.records import Artifact, ClassScores, Evidence, FailedCandidate
from nightshift.register import tags_of
from nightshift.tracking.registry import CHECKPOINTS

REAL = benchmark.measure  # what the fixture `timed` replaces
pytestmark = pytest.mark.usefixtures("timed")


def evidence_of(evaluation) -> Evidence:
    return Evidence.model_validate_json(storage.read_artifact(evaluation.evidence))


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


def test_what_grows_with_the_classes_stays_in_the_store(ml_night):
    """Results of tasks lie in Airflow's database: of 1,000 classes a matrix has 8 MB."""
    evaluation = evaluate(spec_of(ml_night))
    sent = evaluation.model_dump_json()
    assert "confusion" not in sent
    assert "per_class" not in sent
    stored = json.loads(storage.read_artifact(evaluation.scores))
    assert set(stored) == set(evaluation.test)
    scores = ClassScores.model_validate(stored[evaluation.chosen])
    assert set(scores.per_class) == set(ml_night.dataset.classes)
    assert sum(map(sum, scores.confusion)) == 24


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
    size = evaluation.test[evaluation.chosen].speed.size
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
    crowned(registered(ml_night, tags={"nightshift.data.batches": "of other files"}))
    gain = next(v for v in evaluate(spec_of(ml_night)).verdicts if v.gate == "gain")
    assert gain.passed
    assert "fresher data" in gain.sentence


def test_the_same_files_under_other_settings_are_no_fresher_data(ml_night, crowned):
    files = ml_night.dataset.batches_digest
    crowned(
        registered(
            ml_night, tags={"nightshift.data.batches": files, "nightshift.data_digest": "other settings"}
        )
    )
    only = (ml_night.candidates["fp32"],)
    gain = next(v for v in evaluate(spec_of(ml_night, candidates=only)).verdicts if v.gate == "gain")
    assert not gain.passed


def test_champion_is_compared_by_class_name_and_not_judged_on_classes_it_lacks(ml_night, crowned):
    renamed = (*ml_night.dataset.classes[:3], "gone")
    crowned(registered(ml_night, classes=renamed))
    evaluation = evaluate(spec_of(ml_night))
    labels = 24 // 4
    assert evaluation.unknown_to_champion == labels
    assert evaluation.test["champion"].images == 24 - labels
    assert evaluation.test["champion"].accuracy > 0.9
    verdicts = {verdict.gate: verdict for verdict in evaluation.verdicts}
    assert "new classes top-right" in verdicts["gain"].sentence
    assert "does not know gone" in verdicts["known classes"].sentence
    assert not verdicts["known classes"].passed


def test_the_best_is_who_is_ahead_on_the_images_that_both_know(ml_night, crowned, monkeypatch):
    """A champion that knows the easy classes only has the higher accuracy, and is not the better model."""
    crowned(registered(ml_night, classes=(*ml_night.dataset.classes[:3], "gone")))
    hard = ml_night.dataset.classes.index("top-right")
    answered = stage.contenders.answered

    def wrong_where_hard(entrant, chosen, classes):
        found = answered(entrant, chosen, classes)
        predicted = np.where(found.predicted == hard, (hard + 1) % classes, found.predicted)
        return found._replace(predicted=predicted)

    monkeypatch.setattr(stage.contenders, "answered", wrong_where_hard)
    evaluation = evaluate(spec_of(ml_night, policy=PromotionPolicy(min_accuracy=0.5)))
    assert evaluation.test["champion"].accuracy > evaluation.test[evaluation.chosen].accuracy
    assert evaluation.stays_best is None


def test_best_champion_of_another_version_is_judged_too(ml_night, crowned):
    crowned(registered(ml_night), registered(ml_night, "int8", version="1"))
    evaluation = evaluate(spec_of(ml_night))
    assert (evaluation.champion_version, evaluation.best_version) == ("3", "1")
    assert evaluation.test["best"].sha256 == ml_night.candidates["int8"].model.sha256
    rival = next(v for v in evaluation.verdicts if v.gate == "non-inferiority")
    assert "version 1" in rival.sentence


def test_the_standings_of_an_ensemble_are_in_the_report_and_in_mlflow(ml_ensemble, monkeypatch):
    from nightshift.tracking import runs

    rows = []
    monkeypatch.setattr(runs, "log_metrics", lambda run_id, batch: rows.extend(batch))
    monkeypatch.setattr(runs, "log_artifacts", lambda run_id, folder, given: None)
    monkeypatch.setattr(runs, "set_tags", lambda run_id, given: None)
    monkeypatch.setattr(runs, "report_url", lambda run_id: "")
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


def test_a_candidate_beyond_the_policy_is_passed_over_with_its_numbers(ml_night):
    limit = (ml_night.candidates["fp32"].model.size + ml_night.candidates["int8"].model.size) / 2e6
    policy = PromotionPolicy(min_accuracy=0.5, objective="accuracy", max_accuracy_loss=0.5, max_size_mb=limit)
    evaluation = evaluate(spec_of(ml_night, policy=policy))
    assert evaluation.chosen == "int8"
    assert list(evaluation.rejected) == ["fp32"]
    assert f"more than the {limit:.2f} allowed" in evaluation.rejected["fp32"]
    page = storage.read_artifact(evaluation.report).decode()
    assert evaluation.rejected["fp32"].removeprefix("fp32 ") in page


def test_all_are_timed_once_on_training_images_and_a_champion_of_other_pixels_on_its_own(
    ml_night, crowned, timed
):
    other = PreprocessSettings(image_size=8, resize="stretch")
    crowned(registered(ml_night), registered(ml_night, "int8", version="1", preprocess=other))
    evaluation = evaluate(spec_of(ml_night))
    (images,) = timed
    assert list(images) == list(evaluation.speeds) == ["fp32", "int8", "champion", "best"]
    train = {image.tobytes() for image in load_split(ml_night.dataset, "train").images.numpy()}
    test = {image.tobytes() for image in load_split(ml_night.dataset, "test").images.numpy()}
    for name, given in images.items():
        assert {image.tobytes() for image in given} == (test if name == "best" else train)
    assert evaluation.test["champion"].speed == evaluation.speeds["champion"]


def test_a_champion_of_other_channels_is_no_rival_and_not_timed(ml_night, crowned, timed):
    crowned(registered(ml_night, preprocess=ml_night.dataset.preprocess.model_copy(update={"channels": 5})))
    evaluation = evaluate(spec_of(ml_night))
    assert "champion" not in {*evaluation.test, *evaluation.speeds, *timed[0]}
    assert evaluation.unknown_to_champion == 24


def test_the_test_split_sees_the_chosen_its_reference_and_no_other_candidate(ml_ensemble, monkeypatch):
    seen = []
    original = contenders.of_candidate
    monkeypatch.setattr(
        contenders, "of_candidate", lambda *given: seen.append(given[1].name) or original(*given)
    )
    policy = PromotionPolicy(min_accuracy=0.5, objective="size", max_accuracy_loss=0.5)
    evaluate(spec_of(ml_ensemble, policy=policy))
    assert seen == ["int8", "fp32"]


def test_times_are_measured_and_the_front_is_of_them(ml_night, monkeypatch):
    monkeypatch.setattr(benchmark, "measure", REAL)
    evaluation = evaluate(spec_of(ml_night))
    assert set(evaluation.speeds) == {"fp32", "int8"}
    quickest = min(evaluation.speeds, key=lambda name: evaluation.speeds[name].full.latency_ms_p50)
    assert evaluation.front[0] == quickest
    assert evaluation.speeds["int8"].size == ml_night.candidates["int8"].model.size
    assert evaluation.machine.cores > 0
    page = storage.read_artifact(evaluation.report).decode()
    assert f"{evaluation.machine.cores} core" in page


def test_a_changed_candidate_is_refused(ml_night):
    candidate = ml_night.candidates["fp32"]
    wrong = candidate.model_copy(update={"model": candidate.model.model_copy(update={"sha256": "0" * 64})})
    with pytest.raises(InputError, match="changed or damaged"):
        evaluate(spec_of(ml_night, candidates=(wrong,)))


def test_numbers_report_and_pictures_go_to_the_night_s_run(ml_night, crowned, monkeypatch):
    from nightshift.tracking import runs

    rows, files, tags = [], {}, {}
    monkeypatch.setattr(runs, "log_metrics", lambda run_id, batch: rows.append(batch))
    monkeypatch.setattr(runs, "log_artifacts", lambda run_id, folder, given: files.update(given))
    monkeypatch.setattr(runs, "set_tags", lambda run_id, given: tags.update(given))
    monkeypatch.setattr(runs, "report_url", lambda run_id: f"http://mlflow/{run_id}")
    crowned(registered(ml_night))
    unmade = FailedCandidate(recipe="int8", vote="soft", reason="no room")
    candidates = (*ml_night.candidates.values(), unmade)
    evaluation = evaluate(
        spec_of(ml_night, plan={"mlflow_run_id": "run"}, candidates=candidates, robustness="quick")
    )
    assert evaluation.page == "http://mlflow/run"
    (batch,) = rows
    logged = {name: value for name, value, _ in batch}
    assert logged["test/fp32/accuracy"] == evaluation.test["fp32"].accuracy
    assert logged["test/champion/latency_ms_p50"] == evaluation.speeds["champion"].full.latency_ms_p50
    for name in ("fp32", "int8"):
        found = evaluation.speeds[name]
        assert logged[f"candidates/{name}/latency_ms_p50"] == found.full.latency_ms_p50
        assert logged[f"candidates/{name}/single/latency_ms_p99"] == found.single.latency_ms_p99
        assert logged[f"candidates/{name}/size"] == ml_night.candidates[name].model.size
    loss = evaluation.validation["fp32"] - evaluation.validation["int8"]
    assert logged["candidates/int8/accuracy_loss"] == loss
    assert not any(name.startswith("candidates/champion") for name in logged)
    assert tags == {"nightshift.rejected": "int8-soft-vote was not made: no room"}
    tried = evidence_of(evaluation).robustness
    assert logged["robustness/champion/corrupted"] == tried.corrupted("champion")
    assert logged["robustness/fp32/fog-4"] == tried.corruptions[5].accuracy["fp32"]
    assert logged["test/champion/calibration_error"] == evaluation.test["champion"].calibration_error
    assert files["report.html"] == storage.read_artifact(evaluation.report)
    assert files["evidence.json"] == storage.read_artifact(evaluation.evidence)
    assert files["model_card.md"].startswith(b"# tiny, night-1")
    pictures = {name for name in files if name.endswith(".png")}
    assert {"confusion.png", "candidates.png", "reliability.png", "curves.png", "hardest.png"} <= pictures
    assert all(files[name].startswith(b"\x89PNG") for name in pictures)
    assert np.isfinite(list(logged.values())).all()
