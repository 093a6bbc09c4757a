"""What is tried next and what is given up, by the records of the other trials in the store."""

import json

import pytest

from nightshift import storage
from nightshift.config import Pipeline, TrainSettings
from nightshift.workflows.sweep.records import Sweep, Trial
from nightshift.workflows.sweep.search_space import parse
from nightshift.workflows.sweep.study import Study

OVER = ("train.learning_rate=log:0.01..1", "train.batch_size=16,32,64", "train.stem_kernel=3..7:2")


@pytest.fixture
def begin(ml_store):
    """Begins a sweep over some settings and gives the address of its record."""

    def begin(*over: str, trials: int = 8, **settings) -> str:
        pipeline = Pipeline(name="tiny", train=TrainSettings(epochs=10, **settings))
        uri = f"file://{ml_store}/sweeps/tiny/one/sweep.json"
        spaces = parse(over or OVER, pipeline)
        sweep = Sweep(name="one", pipeline=pipeline, dataset_uri="", spaces=spaces, trials=trials, starts={})
        storage.write_record(uri, sweep)
        return uri

    return begin


def ended(number: int, rate: float, accuracy: float, **changes) -> Trial:
    """A complete trial that was as good from its first epoch to its last."""
    parameters = {"train.learning_rate": rate, "train.batch_size": 16, "train.stem_kernel": 3}
    fields = {"state": "complete", "value": accuracy, "accuracies": (accuracy,) * 10}
    return Trial(number=number, **{"parameters": parameters, **fields, **changes})


def test_suggestions_are_in_their_ranges_short_and_reproducible(begin, ml_store):
    def suggested(**settings) -> list[dict]:
        for file in ml_store.rglob("trial-*.json"):
            file.unlink()
        uri, found = begin(trials=30, **settings), []
        for number in range(1, 13):
            trial = Study(uri).begin(number)
            rate = trial.parameters["train.learning_rate"]
            assert 0.01 <= rate <= 1
            assert rate == float(f"{rate:.4g}")
            assert trial.parameters["train.batch_size"] in (16, 32, 64)
            assert trial.parameters["train.stem_kernel"] in (3, 5, 7)
            Study(uri).write(trial.model_copy(update={"state": "complete", "value": rate}))
            found.append(trial.parameters)
        return found

    first = suggested()
    assert suggested() == first
    assert suggested(seed=1) != first


def test_later_suggestions_follow_what_did_well(begin):
    """Accuracy grows with the learning rate, so that late rates are high."""
    study, rates = Study(begin(trials=40)), []
    for number in range(1, 41):
        trial = study.begin(number)
        rates.append(trial.parameters["train.learning_rate"])
        study.write(trial.model_copy(update={"state": "complete", "value": rates[-1]}))
    assert sorted(rates[:10])[5] < 0.5 < sorted(rates[-10:])[5]


def test_a_trial_that_begins_again_keeps_its_settings(begin):
    uri = begin()
    first = Study(uri).begin(3)
    Study(uri).write(ended(1, 0.5, 0.9))
    assert Study(uri).begin(3) == first


def test_trials_at_the_same_time_try_different_things(begin):
    uri = begin()
    tried = [Study(uri).begin(number).parameters for number in (1, 2, 3, 4)]
    assert len({json.dumps(parameters) for parameters in tried}) == 4


def test_where_trials_suffice_every_combination_is_tried_once(begin):
    uri = begin("train.batch_size=16,32", "train.stem_kernel=3..7:2", trials=6)
    tried = {tuple(Study(uri).begin(number).parameters.values()) for number in range(6, 0, -1)}
    assert tried == {(size, kernel) for size in (16, 32) for kernel in (3, 5, 7)}


def test_settings_that_were_tried_are_not_tried_again_at_once(begin):
    uri = begin("train.batch_size=16,32,64,128", "train.stem_kernel=3..7:2", trials=8)
    tried = {tuple(Study(uri).begin(number).parameters.values()) for number in range(1, 9)}
    assert len(tried) == 8


def test_only_a_trial_below_most_complete_ones_is_hopeless_and_not_at_first(begin):
    study = Study(begin())
    bad = ended(9, 0.01, 0.3, state="running", value=None)
    for number, value in ((1, 0.8), (2, 0.9)):
        study.write(ended(number, 0.1 * number, value))
    assert not study.is_hopeless(bad)  # two are no measure
    study.write(ended(3, 0.3, 0.7))
    assert study.is_hopeless(bad)
    assert not study.is_hopeless(bad.model_copy(update={"accuracies": (0.3, 0.3)}))
    assert not study.is_hopeless(bad.model_copy(update={"accuracies": (0.85,) * 5}))


def test_trials_of_other_lengths_are_compared_at_the_same_share(begin):
    """Half of 20 epochs is compared with half of 10, not with the tenth epoch."""
    study = Study(begin("train.epochs=10,20", "train.learning_rate=log:0.01..1"))
    course = tuple(number / 10 for number in range(1, 11))  # half way, 0.5
    for number in (1, 2, 3):
        parameters = {"train.epochs": 10, "train.learning_rate": 0.1 * number}
        study.write(ended(number, 0, 1.0, accuracies=course, parameters=parameters))
    parameters = {"train.epochs": 20, "train.learning_rate": 0.5}
    half = Trial(number=4, parameters=parameters, accuracies=(0.6,) * 10)
    assert not study.is_hopeless(half)
    assert study.is_hopeless(half.model_copy(update={"accuracies": (0.4,) * 10}))


def test_rates_at_which_training_fails_are_left_alone(begin):
    study = Study(begin())
    for number in range(1, 7):
        study.write(ended(number, 0.02 * number, 0.9 + number / 100))
    for number in range(7, 13):
        failed = {"state": "failed", "value": None, "accuracies": (), "error": "not a number"}
        study.write(ended(number, number / 12, 0.0, **failed))
    rates = [study.begin(number).parameters["train.learning_rate"] for number in range(13, 23)]
    assert max(rates) < 7 / 12
