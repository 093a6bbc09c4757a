"""One checkpoint for one key: trained once, found again, and never half written."""

import pytest
import torch
from safetensors.torch import load

from nightshift import storage
from nightshift.config import TrainSettings
from nightshift.errors import InputError, PrunedError
from nightshift.models import build
from nightshift.records import Checkpoint, InitialWeights
from nightshift.records.specs import TrainSpec
from nightshift.train import train
from nightshift.training import trainer

QUICK = TrainSettings(width=0.125, epochs=2, batch_size=16, learning_rate=0.05, crop_padding=0)


def spec_of(dataset_uri, **changes) -> TrainSpec:
    return TrainSpec(**{"dataset_uri": dataset_uri, "settings": QUICK, **changes})


@pytest.fixture
def trainings(monkeypatch) -> list[int]:
    """The seeds of the trainings that really ran."""
    seeds: list[int] = []
    real = trainer.Trainer

    def counted(*arguments, seed, **options):
        seeds.append(seed)
        return real(*arguments, seed=seed, **options)

    monkeypatch.setattr(trainer, "Trainer", counted)
    return seeds


def test_a_checkpoint_can_be_built_again_and_carries_its_metrics(ml_dataset_uri, ml_dataset):
    checkpoint = train(spec_of(ml_dataset_uri))
    network = build.restore(
        storage.read_artifact(checkpoint.weights), checkpoint.settings, classes=4, image_size=8
    )
    from nightshift.data.dataset import load_split

    accuracy = trainer.score(network, load_split(ml_dataset, "validation"), ml_dataset)[0]
    assert checkpoint.metrics["validation_accuracy"] == pytest.approx(accuracy)
    assert checkpoint.metrics["train_images"] == 80
    assert checkpoint.dataset_uri == ml_dataset_uri
    done = storage.join(checkpoint.weights.uri.rpartition("/")[0], "checkpoint.json")
    assert storage.read_record(done, Checkpoint) == checkpoint


def test_the_same_work_is_found_again(ml_dataset_uri, trainings, capsys):
    first = train(spec_of(ml_dataset_uri))
    assert train(spec_of(ml_dataset_uri)) == first
    assert len(trainings) == 1
    assert "found again, not trained" in capsys.readouterr().out


def test_the_number_of_members_leaves_trained_members_alone(ml_dataset_uri, trainings):
    train(spec_of(ml_dataset_uri))
    train(spec_of(ml_dataset_uri, settings=QUICK.model_copy(update={"members": 3})))
    assert len(trainings) == 1


def test_a_warm_start_is_another_training_for_other_weights(ml_dataset_uri, trainings, capsys):
    settings = QUICK.model_copy(update={"weights": "champion"})
    cold = train(spec_of(ml_dataset_uri, settings=settings))
    start = InitialWeights(name="models:/tiny/1", weights=cold.weights)
    warm = train(spec_of(ml_dataset_uri, settings=settings, start=start))
    said = capsys.readouterr().out
    assert said.index("starts from scratch") < said.index("took 122 of 122 tensors from models:/tiny/1")
    assert warm.metrics["train_loss"] < cold.metrics["train_loss"]
    again = start.model_copy(update={"name": "models:/tiny/2"})  # the same bytes under another version
    assert train(spec_of(ml_dataset_uri, settings=settings, start=again)) == warm
    other = InitialWeights(name="models:/tiny/3", weights=warm.weights)
    assert train(spec_of(ml_dataset_uri, settings=settings, start=other)).weights != warm.weights
    assert len(trainings) == 3


def test_a_frozen_backbone_comes_out_as_it_went_in(ml_dataset_uri):
    start = InitialWeights(name="models:/tiny/1", weights=train(spec_of(ml_dataset_uri)).weights)
    settings = QUICK.model_copy(update={"weights": "champion", "freeze": "backbone"})
    checkpoint = train(spec_of(ml_dataset_uri, settings=settings, start=start))
    before, after = (load(storage.read_artifact(each)) for each in (start.weights, checkpoint.weights))
    assert {name for name in before if not torch.equal(before[name], after[name])} == {"fc.weight", "fc.bias"}


@pytest.mark.parametrize(
    "change", [{"member": 1}, {"cache_salt": "again"}, {"settings": QUICK.model_copy(update={"seed": 1})}]
)
def test_other_work_is_trained_anew(ml_dataset_uri, trainings, change):
    first = train(spec_of(ml_dataset_uri))
    other = train(spec_of(ml_dataset_uri, **change))
    assert len(trainings) == 2
    assert first.weights.uri != other.weights.uri
    assert (first.weights.sha256 == other.weights.sha256) == ("cache_salt" in change)


def test_an_interrupted_training_is_not_taken_for_done(ml_dataset_uri, ml_store, trainings, monkeypatch):
    write_record = storage.write_record
    monkeypatch.setattr(storage, "write_record", _interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(spec_of(ml_dataset_uri))
    assert list(ml_store.rglob("model-*.safetensors"))
    monkeypatch.setattr(storage, "write_record", write_record)
    train(spec_of(ml_dataset_uri))
    assert len(trainings) == 2


def test_a_training_that_is_stopped_leaves_nothing_behind(ml_dataset_uri, ml_store, trainings):
    seen = []

    def watch(epoch):
        seen.append(epoch.number)
        raise PrunedError("not worth finishing")

    with pytest.raises(PrunedError):
        train(spec_of(ml_dataset_uri), watch)
    assert seen == [1]
    assert not list(ml_store.rglob("checkpoints/**/*.*"))
    train(spec_of(ml_dataset_uri))
    assert len(trainings) == 2


def test_one_class_is_refused(ml_build):
    dataset = ml_build(classes=("only",))
    with pytest.raises(InputError, match="at least 2 classes"):
        train(spec_of(f"{dataset.source.split('/incoming')[0]}/datasets/{dataset.digest}.json"))


def _interrupted(uri: str, record: object) -> None:
    raise KeyboardInterrupt
