"""A night on several machines that share no folder, one of which loses its power in the middle."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
from celery import Celery
from guardian import noted
from machines import Machine, isolated
from rich.console import Console
from waiting import patience, wait_for

from nightshift import storage
from nightshift.cli.airflow_api import Airflow
from nightshift.cli.follow import follow
from nightshift.errors import InputError
from nightshift.records import Dataset
from nightshift.stack import prepare
from nightshift.tracking import registry

IMAGES = 1200
QUEUE = "preprocess"
COMMAND = str(Path(sys.executable).with_name("nightshift"))


@pytest.fixture
def machines(stack) -> Iterator[tuple[Machine, Machine]]:
    """Two workers that alone take the messages of the queue `preprocess`."""
    site = prepare.find_site(stack.home)
    assert site is not None
    site, apart = replace(site, dags=stack.home / "dags"), isolated()
    celery = Celery(broker=site.broker_url, set_as_current=False)
    own = {"destination": ["celery@worker"], "reply": True, "timeout": patience(10)}
    made: list[Machine] = []
    with contextlib.ExitStack() as after:
        after.callback(celery.close)
        after.callback(celery.control.add_consumer, QUEUE, **own)
        assert celery.control.cancel_consumer(QUEUE, **own)
        for number, name in enumerate(("alpha", "beta")):
            made.append(Machine(name, f"127.0.0.{2 + number}", site, QUEUE, apart=apart))
            after.enter_context(noted(made[-1].folder))
            after.callback(made[-1].remove)
        names = [f"celery@{machine.name}" for machine in made]
        ping = partial(celery.control.ping, destination=names, timeout=patience(1))
        wait_for(lambda: len(ping()) == 2, "the two workers")
        yield made[0], made[1]


def begin(airflow: Airflow) -> str:
    """Start the night as soon as Airflow knows its DAG, which takes a while after the start."""
    started: list[str] = []

    def trigger() -> bool:
        with contextlib.suppress(InputError):
            started.append(airflow.trigger("retrain_spread", {}))
        return bool(started)

    wait_for(trigger, "the DAG to be there")
    return started[0]


def test_a_machine_that_loses_power_loses_no_image_and_doubles_none(stack, machines, tmp_path):
    alpha, beta = machines
    for number in range(IMAGES):
        folder = tmp_path / "photos" / ("left", "right")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(10_000 + number).integers(0, 256, (64, 64, 3), np.uint8)
        cv2.imwrite(str(folder / f"{number:04d}.png"), pixels)
    command = [COMMAND, "ingest", str(tmp_path / "photos"), "--pipeline", "spread"]
    subprocess.run(command, cwd=stack.home, check=True, capture_output=True)
    airflow = Airflow()
    night = begin(airflow)
    run = ("retrain_spread", night, QUEUE)
    wait_for(lambda: bool(alpha.logs(*run)) and bool(beta.logs(*run)), "both machines to have work")
    # With the decoders at work, so that it happens in the middle of a part.
    wait_for(lambda: any(stage.children() for stage in alpha.stages("preprocess")), "alpha's decoders")
    alpha.lose_power()
    result = follow(airflow, "spread", night, Console(quiet=True))
    assert result["state"] in ("refused", "promoted"), result
    tries = [each["try_number"] for each in airflow.tasks(*run[:2]) if each["task_id"] == "preprocess"]
    assert len(tries) > 2
    assert max(tries) > 1
    tags = registry.version_tags("spread", result["version"])
    uri = f"{os.environ['NIGHTSHIFT_STORE']}/datasets/{tags[registry.DATASET]}.json"
    dataset = storage.read_record(uri, Dataset)
    assert dataset.profile.images == IMAGES
    assert sum(shard.images for shard in dataset.shards) == IMAGES
    assert (dataset.refused, dataset.duplicates.merged) == (0, 0)
