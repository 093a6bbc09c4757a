"""A training that is broken off goes on where it stopped, and ends with the weights of an undisturbed one."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from waiting import patience

from nightshift import storage
from nightshift.config import TrainSettings
from nightshift.data.dataset import load_split
from nightshift.errors import InputError, OutageError
from nightshift.models import build
from nightshift.records import Checkpoint
from nightshift.records.specs import TrainSpec
from nightshift.train import train
from nightshift.training import trainer
from nightshift.training.checkpointing import TrainingCheckpoint
from nightshift.training.loader import InMemoryLoader

QUICK = TrainSettings(width=0.125, epochs=6, batch_size=16, learning_rate=0.01, crop_padding=1, flip=True)
COURSES = [
    {},
    {"optimizer": "adamw", "schedule": "cosine"},
    {"optimizer": "muon", "schedule": "step", "ema": 0.9},
    {"optimizer": "rmsprop", "schedule": "plateau", "learning_rate": 0.001, "imbalance": "sampling"},
    {"optimizer": "adam", "dropout": 0.3, "mixup": 0.4, "auto_augment": "trivial", "patience": 50},
    {"model": "resnet9", "pooling": "gem", "gradient_accumulation": 2, "loss": "bce", "clip_norm": 1.0},
    {"adversarial": "pgd", "adversarial_steps": 2, "dropout": 0.2, "gradient_accumulation": 2},
    {"freeze": "layer3", "unfreeze_epoch": 3, "backbone_lr_factor": 0.3, "ema": 0.9},
    {"freeze": "backbone", "unfreeze_epoch": 2, "optimizer": "muon", "schedule": "plateau"},
    {"freeze": "backbone", "unfreeze_epoch": 4, "optimizer": "adamw", "clip_norm": 1.0},
]


def network_for(dataset, settings):
    return build.build(settings, classes=len(dataset.classes), image_size=dataset.image_size)


def epochs_of(network, dataset, settings, progress=None):
    loader = InMemoryLoader(load_split(dataset, "train"), dataset, settings, 3)
    validation = load_split(dataset, "validation")
    training = trainer.Trainer(network, loader, validation, dataset=dataset, settings=settings, seed=3)
    return training.run(progress)


@pytest.mark.parametrize("changes", COURSES, ids=str)
def test_a_training_broken_off_twice_ends_with_the_same_weights(ml_dataset, ml_store, changes):
    settings = QUICK.model_copy(update=changes)
    undisturbed = network_for(ml_dataset, settings)
    expected = list(epochs_of(undisturbed, ml_dataset, settings))
    progress = TrainingCheckpoint(f"file://{ml_store}/progress.safetensors")
    for stop in (2, 4):
        torch.manual_seed(stop)  # whatever torch's own state is
        running = epochs_of(network_for(ml_dataset, settings), ml_dataset, settings, progress)
        for _ in range(stop):
            next(running)
        running.close()
    resumed = network_for(ml_dataset, settings)
    found = list(epochs_of(resumed, ml_dataset, settings, progress))
    assert build.to_bytes(resumed) == build.to_bytes(undisturbed)
    assert [epoch[:5] for epoch in found] == [epoch[:5] for epoch in expected]


def test_saving_takes_a_small_share_of_the_time(ml_store, monkeypatch):
    now = [100.0]
    monkeypatch.setattr("nightshift.training.checkpointing.time.monotonic", lambda: now[0])

    def slow(uri, data):
        now[0] += 2

    monkeypatch.setattr("nightshift.training.checkpointing.storage.write", slow)
    progress = TrainingCheckpoint("file:///nowhere")
    assert progress.is_due
    progress.save({"a": torch.zeros(1)})
    assert now[0] == 102
    now[0] = 201.9
    assert not progress.is_due
    now[0] = 202.1
    assert progress.is_due


def test_every_kind_of_state_comes_back_as_it_was(ml_store):
    progress = TrainingCheckpoint(f"file://{ml_store}/progress.safetensors")
    state = {
        "tensor": torch.arange(6).view(2, 3),
        "numbers": {0: 1.5, 1: float("-inf"), "text": None},
        "nested": [(0.9, 0.99), [True, {"step": torch.tensor(3.0)}]],
    }
    progress.save(state)
    found = progress.load()
    assert torch.equal(found.pop("tensor"), state.pop("tensor"))
    assert torch.equal(found["nested"][1][1].pop("step"), state["nested"][1][1].pop("step"))
    assert found == state
    progress.delete()
    assert progress.load() is None


@pytest.mark.parametrize("damage", [b"", b"junk", b"\x10" + bytes(40)])
def test_a_state_that_cannot_be_read_is_no_state(ml_store, capsys, damage):
    progress = TrainingCheckpoint(f"file://{ml_store}/progress.safetensors")
    storage.write(progress.uri, damage)
    assert progress.load() is None
    assert "training starts anew" in capsys.readouterr().out


def run_stage(spec: Path, root: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "nightshift", "train", "--spec", spec, "--result", root / "result.json"]
    environment = {**os.environ, "NIGHTSHIFT_STORE": f"file://{root}/store", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def test_a_killed_stage_goes_on_and_leaves_nothing_behind(ml_dataset_uri, tmp_path):
    """SIGKILL in the middle of two epochs; the third try finishes."""
    spec = tmp_path / "spec.json"
    settings = QUICK.model_copy(update={"epochs": 12})
    spec.write_text(TrainSpec(dataset_uri=ml_dataset_uri, settings=settings).model_dump_json())
    (tmp_path / "calm").mkdir()
    (tmp_path / "wild").mkdir()
    calm = run_stage(spec, tmp_path / "calm")
    assert "trained in" in calm.communicate(timeout=patience(120))[0]
    seen = 0
    for _ in range(2):
        stage = run_stage(spec, tmp_path / "wild")
        for line in stage.stdout:
            number = int(line.split()[1].partition("/")[0]) if line.startswith("epoch") else 0
            if number > seen + 2:
                seen = number
                break
        time.sleep(0.02)
        stage.kill()
        stage.communicate()
    last = run_stage(spec, tmp_path / "wild").communicate(timeout=patience(120))[0]
    assert "going on after epoch" in last
    results = [
        Checkpoint.model_validate_json((tmp_path / name / "result.json").read_text())
        for name in ("calm", "wild")
    ]
    assert results[0].weights.sha256 == results[1].weights.sha256
    assert list((tmp_path / "wild").rglob("progress*")) == []


@pytest.mark.parametrize("changes", COURSES[:3], ids=str)
def test_a_training_broken_off_within_epochs_loses_at_most_a_step(ml_dataset, ml_store, monkeypatch, changes):
    settings = QUICK.model_copy(update=changes)
    undisturbed = network_for(ml_dataset, settings)
    expected = list(epochs_of(undisturbed, ml_dataset, settings))
    monkeypatch.setattr("nightshift.training.checkpointing.SHARE", 1e9)  # save whenever minutes allow
    progress = TrainingCheckpoint(f"file://{ml_store}/progress.safetensors", minutes=0)
    steps = 0
    for stop in (3, 9, 14, 28):  # an epoch has 5 steps

        def step(self, *arguments, real=trainer.Trainer.train_step, stop=stop):
            nonlocal steps
            steps += 1
            if steps == stop:
                raise KeyboardInterrupt
            return real(self, *arguments)

        broken = epochs_of(network_for(ml_dataset, settings), ml_dataset, settings, progress)
        with monkeypatch.context() as patch:
            patch.setattr(trainer.Trainer, "train_step", step)
            with pytest.raises(KeyboardInterrupt):
                list(broken)
        steps -= 1  # the one that was interrupted is taken again
    resumed = network_for(ml_dataset, settings)
    found = list(epochs_of(resumed, ml_dataset, settings, progress))
    assert build.to_bytes(resumed) == build.to_bytes(undisturbed)
    assert [epoch[:4] for epoch in found] == [epoch[:4] for epoch in expected]


def test_an_outage_while_the_state_is_kept_ends_the_try_and_the_next_one_goes_on(ml_dataset_uri, monkeypatch):
    spec = TrainSpec(dataset_uri=ml_dataset_uri, settings=QUICK)
    undisturbed = train(spec.model_copy(update={"cache_salt": "calm"}))
    write, saved = storage.write, []

    def flaky(uri, *pieces):
        if "progress" in uri:
            saved.append(uri)
            if len(saved) == 3:
                raise OutageError("S3 cannot be reached")
        return write(uri, *pieces)

    monkeypatch.setattr("nightshift.training.checkpointing.SHARE", 1e9)
    monkeypatch.setattr(storage, "write", flaky)
    with pytest.raises(OutageError, match="S3 cannot be reached"):
        train(spec)
    resumed = train(spec)
    assert len(saved) == 3 + 4  # two epochs of six were kept by the first try
    assert resumed.weights.sha256 == undisturbed.weights.sha256


def test_a_loss_that_stops_being_a_number_leaves_the_last_good_state(ml_dataset_uri, ml_store, monkeypatch):
    step, steps = trainer.Trainer.train_step, []

    def spoiled(self, *arguments):
        steps.append(1)
        loss = step(self, *arguments)
        return loss * float("nan") if len(steps) == 12 else loss  # in the third epoch

    monkeypatch.setattr("nightshift.training.checkpointing.SHARE", 1e9)  # save after every epoch
    monkeypatch.setattr(trainer.Trainer, "train_step", spoiled)
    with pytest.raises(InputError, match="became nan in epoch 3, batch 2"):
        train(TrainSpec(dataset_uri=ml_dataset_uri, settings=QUICK))
    (kept,) = ml_store.rglob("progress.safetensors")
    assert len(TrainingCheckpoint(f"file://{kept}").load()["epochs"]) == 2


def test_a_state_with_a_loss_that_is_no_number_is_never_kept(ml_dataset, ml_store):
    progress = TrainingCheckpoint(f"file://{ml_store}/progress.safetensors", minutes=0)
    network = network_for(ml_dataset, QUICK)
    torch.nn.init.constant_(network.fc.bias, float("nan"))
    with pytest.raises(InputError, match="became nan in epoch 1, batch 1"):
        list(epochs_of(network, ml_dataset, QUICK, progress))
    assert progress.load() is None
