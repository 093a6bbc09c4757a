"""Two processes train one network together."""

import json
import os
import subprocess
import sys

import pytest
import torch
from waiting import patience

from nightshift import storage
from nightshift.config import TrainSettings
from nightshift.data.dataset import load_split
from nightshift.errors import InputError, PrunedError
from nightshift.models import build
from nightshift.records.specs import TrainSpec
from nightshift.train import train
from nightshift.training import distributed
from nightshift.training.distributed import ProcessGroup
from nightshift.training.trainer import score

SETTINGS = TrainSettings(width=0.125, epochs=12, batch_size=16, learning_rate=0.05, crop_padding=0, ema=0.8)


def test_two_processes_train_as_well_as_one(ml_dataset_uri, ml_dataset, capfd):
    pieces = SETTINGS.model_copy(
        update={"gradient_accumulation": 4}
    )  # so that batch norm sees four images in both
    alone = train(TrainSpec(dataset_uri=ml_dataset_uri, settings=pieces))
    capfd.readouterr()
    watched = []

    def watch(epoch):
        watched.append(epoch.number)
        raise PrunedError("most did better")

    together = train(
        TrainSpec(
            dataset_uri=ml_dataset_uri,
            settings=SETTINGS.model_copy(update={"processes": 2, "gradient_accumulation": 2}),
        ),
        watch,
    )
    assert watched == list(range(1, 13))  # at the end, and nothing that ended is pruned
    said = capfd.readouterr().out
    assert said.count("epoch 12/12") == 1
    assert "trained in" in said
    assert together.weights.sha256 != alone.weights.sha256
    assert together.metrics["train_loss"] == pytest.approx(alone.metrics["train_loss"], rel=0.25)
    network = build.restore(
        storage.read_artifact(together.weights), together.settings, classes=4, image_size=8
    )
    reached, _ = score(network, load_split(ml_dataset, "validation"), ml_dataset)
    assert reached == pytest.approx(together.metrics["validation_accuracy"])
    assert reached >= alone.metrics["validation_accuracy"] - 0.1


def test_what_one_process_refuses_is_said_once(ml_dataset_uri):
    damaged = storage.read_json(ml_dataset_uri)
    damaged["preprocess"]["channels"] = 2
    uri = ml_dataset_uri.replace(".json", "-damaged.json")
    storage.write(uri, json.dumps(damaged).encode())
    with pytest.raises(InputError, match="holds images"):
        train(TrainSpec(dataset_uri=uri, settings=SETTINGS.model_copy(update={"processes": 2})))


def test_shares_of_rows_cover_all_of_them_once():
    for world in (1, 2, 3, 7):
        rows = [row for rank in range(world) for row in range(100)[ProcessGroup(rank, world).shard(100)]]
        assert rows == list(range(100))


TOLD = """
import sys
from nightshift.training import distributed
with distributed.process_group() as group:
    taken = group.from_main(0.25 * (group.rank + 1))
    sys.stderr.write(f"rank {group.rank} takes {taken}\\n")  # at once, since both write
"""


def test_all_processes_take_the_learning_rate_that_the_first_found(tmp_path):
    script = tmp_path / "told.py"
    script.write_text(TOLD)
    words = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        str(script),
    ]
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": distributed.LOOPBACK, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        words, env=environment, capture_output=True, text=True, check=False, timeout=patience(60)
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert ProcessGroup().from_main(0.3) == 0.3
    for rank in range(2):
        assert f"rank {rank} takes 0.25\n" in done.stderr


def test_one_process_for_each_accelerator_and_one_without(monkeypatch):
    assert distributed.process_count(3) == 3
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    assert distributed.process_count(0) == 1
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 4)
    assert distributed.process_count(0) == 4
