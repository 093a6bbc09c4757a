"""Which batches without labels are predicted, by which version, and how the work is cut."""

import os
import time
from pathlib import Path

import pytest
from predicting import Lights, png

from nightshift import storage
from nightshift.config import PredictPolicy, store_root
from nightshift.errors import InputError
from nightshift.records import PartList

MONTHS = 100 * 86_400.0


def aged(lights: Lights, batch: str) -> None:
    """Let all files of a batch be a hundred days old."""
    folder = Path(store_root().removeprefix("file://"), "unlabelled", lights.pipeline.name, batch)
    then = time.time() - MONTHS
    for path in folder.rglob("*"):
        os.utime(path, (then, then))


def policy(lights: Lights, **values: object) -> None:
    found = PredictPolicy.model_validate(values)
    lights.pipeline = lights.pipeline.model_copy(update={"predict": found})


def test_without_a_champion_or_a_batch_nothing_is_done_and_it_is_said(lights: Lights) -> None:
    assert "holds no complete batch" in lights.look(version="1").reason
    lights.batch("b1", [0, 255])
    found = lights.look()
    assert found.reason == f"models:/{lights.pipeline.name} has no champion yet, so nothing is predicted"
    assert found.messages == ()


def test_new_batches_are_cut_into_messages_for_the_champion(lights: Lights) -> None:
    lights.batch("b1", [0, 255])
    lights.batch("b2", [0])
    version = lights.register()
    found = lights.look()
    assert found.version == version
    assert found.images == 3
    assert found.preprocess.resize == "stretch"  # the model's own
    (message,) = found.messages
    parts = storage.read_record(message.parts_uri, PartList).parts
    assert [(part.batch, part.keys) for part in parts] == [
        ("b1", ("000.png", "001.png")),
        ("b2", ("000.png",)),
    ]


def test_a_batch_that_still_arrives_waits(lights: Lights) -> None:
    lights.register()
    lights.pipeline = lights.pipeline.model_copy(update={"settle_minutes": 10})
    lights.batch("b1", [0])
    assert "1 still arriving" in lights.look().reason
    lights.file("b1", "_READY", b"{}")
    assert list(lights.look().batches) == ["b1"]


def test_what_the_champion_predicted_is_found_and_what_grew_is_not(lights: Lights) -> None:
    lights.register()
    lights.batch("b1", [0, 255])
    lights.batch("b2", [0])
    assert lights.run() is not None
    assert lights.look().messages == ()
    assert "are predicted" in lights.look().reason
    lights.file("b2", "new.png", png(7))
    assert list(lights.look().batches) == ["b2"]


@pytest.mark.parametrize(("again", "names"), [("none", []), ("recent", ["new"]), ("all", ["new", "old"])])
def test_a_new_champion_predicts_again_what_the_policy_names(
    lights: Lights, again: str, names: list[str]
) -> None:
    policy(lights, repredict=again)
    lights.register()
    lights.batch("new", [0])
    lights.batch("old", [255])
    aged(lights, "old")
    assert lights.run() is not None
    lights.register()
    assert list(lights.look().batches) == names


@pytest.mark.parametrize("again", ["none", "recent"])
def test_what_nobody_predicted_is_predicted_however_old_it_is(lights: Lights, again: str) -> None:
    policy(lights, repredict=again)
    lights.register()
    lights.batch("old", [255])
    aged(lights, "old")
    assert list(lights.look().batches) == ["old"]


def test_a_person_names_version_and_batches(lights: Lights) -> None:
    policy(lights, repredict="none")
    first = lights.register()
    lights.batch("b1", [0])
    lights.batch("b2", [0])
    assert lights.run() is not None
    lights.register()
    found = lights.look(batches=("b2",))
    assert list(found.batches) == ["b2"]
    assert found.version != first
    assert lights.look(version=first, batches=("b2",)).messages == ()  # it has done that
    with pytest.raises(InputError, match="holds no batch 'b3'; it holds b1, b2"):
        lights.look(batches=("b3",))
    with pytest.raises(InputError, match="99"):
        lights.look(version="99", batches=("b2",))


def test_a_version_that_nobody_here_made_is_refused(lights: Lights) -> None:
    from small_models import onnx_model

    from nightshift.tracking import registry, runs

    lights.batch("b1", [0])
    run = runs.open_run(lights.pipeline.name, "n", params={})
    model = onnx_model(1, classes=())
    registry.register_version(run, lights.pipeline.name, model, classes=2, shape=(4, 4, 3), tags={})
    with pytest.raises(InputError, match="does not say how its images are prepared"):
        lights.look(version="1")
