"""What a training shows in a real MLflow server, live, after outages, and when it is tried or found again."""

import itertools

import mlflow
import numpy as np
import pytest
import torch
from mlflow.entities import ViewType
from PIL import Image
from waiting import patience

from nightshift.config import TrainSettings
from nightshift.errors import OutageError
from nightshift.records.models import Epoch
from nightshift.records.specs import TrainSpec
from nightshift.tracking import runs
from nightshift.train import train
from nightshift.training import mlflow_logger, trainer
from nightshift.training.mlflow_logger import TrainingHistory

QUICK = TrainSettings(width=0.125, epochs=4, batch_size=16, learning_rate=0.05, crop_padding=0)
NIGHTS = itertools.count()


@pytest.fixture
def spec(mlflow_server, ml_dataset_uri, monkeypatch) -> TrainSpec:
    # The store's fixture takes the server's address away from trainings that are to stay on their own.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{mlflow_server.server_port}")
    monkeypatch.setattr(runs, "PATIENCE", patience(5))
    monkeypatch.setattr(runs, "FAILED_PATIENCE", patience(5))
    return TrainSpec(dataset_uri=ml_dataset_uri, settings=QUICK, mlflow_run_id=new_night())


def new_night() -> str:
    return runs.open_run("shown", f"night {next(NIGHTS)}", params={})


def child_of(spec: TrainSpec) -> mlflow.entities.Run:
    client = mlflow.MlflowClient()
    experiment = client.get_run(spec.mlflow_run_id).info.experiment_id
    where = f"tags.`mlflow.parentRunId` = '{spec.mlflow_run_id}'"
    (run,) = client.search_runs([experiment], where, ViewType.ACTIVE_ONLY)
    return client.get_run(run.info.run_id)


def steps_of(run: mlflow.entities.Run, name: str) -> list[int]:
    return [point.step for point in mlflow.MlflowClient().get_metric_history(run.info.run_id, name)]


def test_a_training_shows_every_epoch_and_what_it_was(spec, ml_dataset):
    checkpoint = train(spec)
    run = child_of(spec)
    assert run.info.status == "FINISHED"
    for name in Epoch._fields[1:]:
        assert steps_of(run, name) == [1, 2, 3, 4], name
        assert run.data.metrics[name] == pytest.approx(checkpoint.metrics[name]), name
    assert run.data.params["dataset"] == ml_dataset.digest
    assert run.data.params["parameters"] == f"{checkpoint.metrics['parameters']:.0f}"
    assert run.data.params["train_images"] == "80"
    assert run.data.tags["nightshift.torch"] == torch.__version__
    assert run.data.tags["nightshift.threads"] == "1"
    assert len(run.data.tags["nightshift.models.device"]) > 3
    assert "system/cpu_utilization_percentage" in run.data.metrics
    (entry,) = run.inputs.dataset_inputs
    assert (entry.dataset.name, entry.dataset.digest) == ("shown", ml_dataset.digest[:36])
    path = mlflow.artifacts.download_artifacts(run_id=run.info.run_id, artifact_path="curves.png")
    assert np.asarray(Image.open(path).convert("RGB")).shape == (900, 800, 3)


def test_accuracy_is_shown_against_time(spec, monkeypatch):
    real = trainer.Trainer.train_epoch

    def slowly(training, progress):
        epoch = real(training, progress)
        training.epochs[-1] = epoch._replace(seconds=epoch.number * 10.4)
        return training.epochs[-1]

    monkeypatch.setattr(trainer.Trainer, "train_epoch", slowly)
    checkpoint = train(spec)
    assert steps_of(child_of(spec), "validation_accuracy_by_second") == [10, 21, 31, 42]
    assert checkpoint.metrics["seconds_to_best"] in (10.4, 20.8, 31.2, 41.6)
    assert child_of(spec).data.metrics["seconds_to_best"] == checkpoint.metrics["seconds_to_best"]


def test_a_training_that_is_found_again_is_shown_as_whole(spec):
    train(spec)
    later = spec.model_copy(update={"mlflow_run_id": new_night()})
    train(later)
    first, again = child_of(spec), child_of(later)
    assert (first.data.tags["nightshift.reused"], again.data.tags["nightshift.reused"]) == ("false", "true")
    assert steps_of(again, "train_loss") == [1, 2, 3, 4]
    assert (
        again.data.metrics["seconds"] == first.data.metrics["seconds"]
    )  # of the training, not of finding it
    assert again.data.params == first.data.params
    assert not any(name.startswith("system/") for name in again.data.metrics)


def test_an_outage_at_the_end_costs_another_try_and_no_epoch(spec, mlflow_server, monkeypatch):
    monkeypatch.setattr(runs, "PATIENCE", 5.0)
    monkeypatch.setattr(runs, "FAILED_PATIENCE", 0.5)
    real = trainer.Trainer.train_epoch

    def broken_off(training, progress):
        if len(training.epochs) == 2:
            mlflow_server.state = "closed"
        return real(training, progress)

    monkeypatch.setattr(trainer.Trainer, "train_epoch", broken_off)
    with pytest.raises(OutageError, match="MLflow at http"):
        train(spec)
    monkeypatch.setattr(trainer.Trainer, "train_epoch", lambda *_: pytest.fail("trained twice"))
    mlflow_server.state = "open"
    train(spec)
    run = child_of(spec)
    assert steps_of(run, "validation_loss") == [1, 2, 3, 4]
    assert (run.info.status, run.data.tags["nightshift.reused"]) == ("FINISHED", "false")


def test_a_training_that_goes_on_logs_no_epoch_twice_and_counts_its_seconds_on(spec, monkeypatch):
    monkeypatch.setattr("nightshift.training.checkpointing.SHARE", 1e9)  # save after every epoch
    real = trainer.Trainer.train_epoch

    def crash(training, progress):
        if len(training.epochs) == 3:
            raise MemoryError
        return real(training, progress)

    monkeypatch.setattr(trainer.Trainer, "train_epoch", crash)
    with pytest.raises(MemoryError):
        train(spec)
    assert steps_of(child_of(spec), "train_loss") == [1, 2, 3]
    assert child_of(spec).info.status == "FAILED"
    monkeypatch.setattr(trainer.Trainer, "train_epoch", real)
    train(spec)
    run = child_of(spec)
    assert steps_of(run, "train_loss") == [1, 2, 3, 4]
    seconds = [point.value for point in mlflow.MlflowClient().get_metric_history(run.info.run_id, "seconds")]
    assert seconds == sorted(seconds)


def test_the_first_of_the_best_epochs_counts():
    epochs = tuple(
        Epoch(n, 1.0, accuracy, 0.5, 0.1, 100.0, 7.0 * n)
        for n, accuracy in enumerate((0.5, 0.9, 0.9, 0.8), 1)
    )
    kept = TrainingHistory(epochs=epochs)
    assert TrainingHistory.model_validate_json(kept.model_dump_json()) == kept
    assert kept.metrics(patience=0)["validation_accuracy"] == 0.8
    assert kept.metrics(patience=3)["validation_accuracy"] == 0.9
    assert kept.metrics(patience=0)["seconds_to_best"] == kept.metrics(patience=3)["seconds"] == 14.0


def test_without_a_run_nothing_is_said(ml_dataset_uri, ml_dataset):
    spec = TrainSpec(dataset_uri=ml_dataset_uri, settings=QUICK)
    with mlflow_logger.mlflow_logger(spec, ml_dataset, reused=False) as show:
        show.log_params({})
        show.epoch(Epoch(1, 1.0, 0.5, 0.5, 0.1, 100.0, 7.0))
        show.finish(TrainingHistory(epochs=()))
