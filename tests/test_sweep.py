"""The stages of a sweep one after the other on a tiny data set: begun, trained, pruned, concluded."""

import tomllib

import pytest

from nightshift import storage
from nightshift.config import Pipeline, TrainSettings
from nightshift.config.pipelines import override
from nightshift.errors import InputError
from nightshift.models import build
from nightshift.records import Dataset, Decision
from nightshift.records.specs import ConcludeSpec, SweepSpec, TrainSpec, TrialSpec
from nightshift.tracking import ledger
from nightshift.train import train
from nightshift.training import trainer
from nightshift.workflows.sweep.finish import conclude, fragment
from nightshift.workflows.sweep.records import Sweep, Swept, Trial
from nightshift.workflows.sweep.search_space import parse
from nightshift.workflows.sweep.start import sweep
from nightshift.workflows.sweep.study import Study
from nightshift.workflows.sweep.trial import trial

TRAIN = TrainSettings(width=0.125, epochs=4, batch_size=16, learning_rate=0.05, crop_padding=0)
PIPELINE = Pipeline(name="tiny", train=TRAIN)
RATES = "train.learning_rate=0.05,0.04,0.03,1e-9"  # the last one learns nothing


@pytest.fixture
def registered(ml_dataset, monkeypatch) -> Dataset:
    """A data set on which a night decided."""
    monkeypatch.setattr("nightshift.workflows.sweep.start.open_run", lambda *about: None)
    decision = {"pipeline": "tiny", "version": "1", "sha256": "", "data_digest": "d" * 64}
    decision |= {"settings_digest": "s" * 64, "replaces": None, "by": "", "night": "", "reasons": ()}
    for kind, digest in (("refused", ml_dataset.digest), ("rejected", "older")):
        at = ledger.now()
        ledger.append(Decision.model_validate({**decision, "kind": kind, "dataset": digest, "at": at}))
    return ml_dataset


def begin(*over: str, trials: int = 8, name: str = "manual__1:2+3") -> list[TrialSpec]:
    return list(sweep(SweepSpec(pipeline=PIPELINE, name=name, over=over, trials=trials)).trials)


def kept(spec: TrialSpec) -> Trial:
    folder = spec.sweep_uri.rpartition("/")[0]
    return storage.read_record(f"{folder}/trial-{spec.number:04d}.json", Trial)


def test_a_sweep_trains_on_the_data_set_of_the_newest_night(registered, ml_dataset_uri, ml_store):
    trials = begin("train.dropout=0..0.5", trials=3)
    uri = f"file://{ml_store}/sweeps/tiny/manual__1-2-3/sweep.json"
    assert trials == [TrialSpec(sweep_uri=uri, number=number) for number in (1, 2, 3)]
    record = storage.read_record(uri, Sweep)
    assert record.dataset_uri == ml_dataset_uri
    assert record.spaces == parse(["train.dropout=0..0.5"], PIPELINE)


def test_without_a_night_there_is_nothing_to_sweep_on(ml_store):
    with pytest.raises(InputError, match=r"tiny has no data set to train on; .* nightshift run tiny"):
        begin("train.dropout=0..0.5")


def test_no_more_trials_than_combinations(registered, capsys):
    assert len(begin("train.batch_size=16,32", trials=8)) == 2
    assert "there are 2 combinations: each is tried once" in capsys.readouterr().out


def test_a_clearly_bad_trial_is_stopped_and_the_best_is_found(registered, ml_store):
    trials = begin(RATES, trials=4)
    done = [trial(spec) for spec in trials]
    assert [found.state for found in done] == ["complete"] * 3 + ["pruned"]
    assert len(done[3].accuracies) < 4
    assert [kept(spec) for spec in trials] == done
    assert not list(ml_store.rglob("progress*"))
    swept = conclude(ConcludeSpec(sweep_uri=trials[0].sweep_uri))
    assert swept.value == max(found.value for found in done[:3])
    best = done[swept.best - 1]
    found = tomllib.loads(swept.toml)
    assert found == {"train": {"learning_rate": best.parameters["train.learning_rate"]}}
    assert storage.read_record(trials[0].sweep_uri.replace("sweep.json", "best.json"), Swept) == swept


def test_the_next_night_finds_the_best_training_again(registered, ml_dataset_uri, capsys):
    (spec, _) = begin("train.learning_rate=0.05,0.04")
    found = trial(spec)
    settings = override(PIPELINE, found.parameters).train
    capsys.readouterr()
    checkpoint = train(TrainSpec(dataset_uri=ml_dataset_uri, settings=settings))
    assert checkpoint.metrics["validation_accuracy"] == found.value
    assert "found again, not trained" in capsys.readouterr().out


def test_a_trial_that_is_killed_goes_on_with_its_settings(registered, monkeypatch):
    (spec, *_) = begin("train.learning_rate=log:0.01..1")
    advance = trainer.Trainer.train_epoch

    def killed(training, progress):
        if len(training.epochs) == 2:
            raise KeyboardInterrupt
        return advance(training, progress)

    monkeypatch.setattr(trainer.Trainer, "train_epoch", killed)
    with pytest.raises(KeyboardInterrupt):
        trial(spec)
    broken_off = kept(spec)
    assert (broken_off.state, len(broken_off.accuracies)) == ("running", 2)
    monkeypatch.setattr(trainer.Trainer, "train_epoch", advance)
    found = trial(spec)
    assert found.parameters == broken_off.parameters
    assert (found.state, len(found.accuracies)) == ("complete", 4)
    assert found.accuracies[:2] == broken_off.accuracies


def test_a_trial_that_ended_is_not_repeated(registered, monkeypatch):
    (spec, *_) = begin("train.learning_rate=0.05,0.04")
    found = trial(spec)
    monkeypatch.delattr(trainer, "Trainer")
    assert trial(spec) == found


def test_trials_start_from_the_weights_that_there_were_when_the_sweep_began(registered, ml_store):
    uri = f"file://{ml_store}/other.safetensors"
    trained = [build.to_bytes(build.build(TRAIN, classes=4, image_size=8, seed=seed)) for seed in (7, 8)]
    storage.write(uri, trained[0])
    trials = begin(f"train.weights=none,{uri}")
    assert [trial(spec).state for spec in trials] == ["complete"] * 2
    assert len({kept(spec).accuracies for spec in trials}) == 2
    trials = begin(f"train.weights={uri},none", "train.dropout=0.1,0.2", name="another")
    storage.write(uri, trained[1])
    assert "it was changed or damaged" in trial(trials[0]).error


def test_settings_that_cannot_be_trained_fail_their_trial_only(registered, monkeypatch):
    trials = begin("train.learning_rate=0.05,10", "train.clip_norm=0,1", trials=4)
    advance = trainer.Trainer.train_epoch

    def diverging(training, progress):
        if training.settings.learning_rate == 10:
            raise InputError("the training loss became nan")
        return advance(training, progress)

    monkeypatch.setattr(trainer.Trainer, "train_epoch", diverging)
    done = [trial(spec) for spec in trials]
    assert [found.state for found in done] == ["complete", "complete", "failed", "failed"]
    assert done[3].error == "the training loss became nan"
    swept = conclude(ConcludeSpec(sweep_uri=trials[0].sweep_uri))
    assert swept.best in (1, 2)


def test_a_sweep_without_a_complete_trial_fails_with_the_reasons(registered):
    (spec, other) = begin("train.learning_rate=0.05,0.04")
    study = Study(spec.sweep_uri)
    study.write(study.begin(1).model_copy(update={"state": "failed", "error": "the loss became nan"}))
    study.begin(other.number)
    why = "no trial of sweep .* was completed: the loss became nan; trial 2 was broken off"
    with pytest.raises(InputError, match=why):
        conclude(ConcludeSpec(sweep_uri=spec.sweep_uri))


def test_the_fragment_is_toml_that_a_pipeline_file_takes():
    values = {"learning_rate": 1.5e-7, "batch_size": 64, "flip": True, "optimizer": "adamw"}
    text = fragment(Trial(number=5, parameters={f"train.{k}": v for k, v in values.items()}), "98.4 %")
    assert text.splitlines()[:2] == ["# 98.4 %", "[train]"]
    assert tomllib.loads(text) == {"train": values}
    assert Pipeline.model_validate({"name": "tiny", **tomllib.loads(text)}).train.learning_rate == 1.5e-7
