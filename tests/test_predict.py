"""The stage that predicts a message: rows as Parquet, refusals with reasons, done once."""

import hashlib
import io

import numpy as np
import pyarrow.parquet as pq
import pytest
from predicting import Lights, png

from nightshift import storage
from nightshift.config import PreprocessSettings
from nightshift.data import images
from nightshift.errors import InputError
from nightshift.inference import classifier, model_file
from nightshift.inference.runtime import Session
from nightshift.records import PartList, PartPredictions
from nightshift.records.specs import PredictSpec
from nightshift.tracking import registry
from nightshift.workflows.predict import layout
from nightshift.workflows.predict.predict import predict


def only_part(lights: Lights, version: str) -> PartPredictions:
    (key,) = [key for key in lights.keys(version) if "/_parts/" in key]
    root = layout.folder(lights.pipeline.name, version, "")
    return storage.read_record(storage.join(root, key), PartPredictions)


def test_rows_say_who_predicted_what_of_which_file(lights: Lights) -> None:
    version = lights.register()
    lights.batch("b1", [250, 3, 130])
    lights.file("b1", "torn.png", png(9)[:40])
    lights.file("b1", "deep/day.png", png(251))
    assert lights.run() is not None
    part = only_part(lights, version)
    table = pq.read_table(io.BytesIO(storage.read_artifact(part.file)))
    assert table["key"].to_pylist() == ["b1/000.png", "b1/001.png", "b1/002.png", "b1/deep/day.png"]
    assert table["label"].to_pylist() == ["bright", "dark", "bright", "bright"]
    assert table["sha256"][0].as_py() == hashlib.sha256(png(250)).hexdigest()
    shares = np.array(table["probabilities"].to_pylist(), np.float32)
    assert shares.shape == (4, 2)
    assert np.allclose(shares.max(1), table["confidence"].to_pylist())
    digest = registry.version_tags(lights.pipeline.name, version)[registry.SHA256]
    assert set(zip(table["model_version"].to_pylist(), table["model_sha256"].to_pylist(), strict=True)) == {
        (version, digest)
    }
    assert table.schema.metadata[b"nightshift.classes"] == b'["dark", "bright"]'
    assert [(refusal.key, refusal.reason) for refusal in part.refusals] == [("b1/torn.png", "truncated")]
    assert part.profile.classes == {"bright": 3, "dark": 1}
    assert sum(part.confidences) == 4


def test_the_model_sees_the_pixels_that_it_was_trained_on(
    lights: Lights, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit for bit those of nightshift.data.images.prepare, the function behind the training shards."""
    lights.register()
    noise = np.random.default_rng(0).integers(0, 256, (40, 30, 3), np.uint8)
    import cv2

    data = cv2.imencode(".png", noise)[1].tobytes()
    lights.file("b1", "noise.png", data)
    taken: list[np.ndarray] = []
    real = Session.predict
    monkeypatch.setattr(
        Session, "predict", lambda self, pixels: (taken.append(pixels.copy()), real(self, pixels))[1]
    )
    assert lights.run() is not None
    settings = PreprocessSettings(image_size=8, resize="stretch")
    assert np.array_equal(taken[-1], images.prepare(data, settings)[None])


def test_many_images_go_in_batches_and_keep_their_order(
    lights: Lights, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(classifier, "BATCH", 4)
    version = lights.register()
    lights.batch("b1", [255 * (number % 3 == 0) for number in range(10)])
    assert lights.run() is not None
    table = pq.read_table(io.BytesIO(storage.read_artifact(only_part(lights, version).file)))
    assert [label == "bright" for label in table["label"].to_pylist()] == [n % 3 == 0 for n in range(10)]


def test_a_done_part_is_not_done_again(lights: Lights, capsys: pytest.CaptureFixture[str]) -> None:
    lights.register()
    lights.batch("b1", [0, 255])
    forecast = lights.look()
    spec = PredictSpec(forecast=forecast, message=forecast.messages[0])
    first = predict(spec)
    before = lights.keys(forecast.version)
    assert (first.images, first.refused) == (2, 0)
    capsys.readouterr()
    assert predict(spec).images == 2
    assert "is already done" in capsys.readouterr().out
    assert lights.keys(forecast.version) == before
    assert lights.look().messages[0].parts == 0  # what is left is to summarise


def test_a_part_without_a_readable_file_is_a_part_without_rows(lights: Lights) -> None:
    version = lights.register()
    lights.file("b1", "a.txt", b"words")
    forecast = lights.look()
    predict(PredictSpec(forecast=forecast, message=forecast.messages[0]))
    part = only_part(lights, version)
    assert part.images == 0
    assert pq.read_table(io.BytesIO(storage.read_artifact(part.file))).num_rows == 0


def test_a_model_that_changed_since_the_look_is_refused(
    lights: Lights, monkeypatch: pytest.MonkeyPatch
) -> None:
    lights.register()
    lights.batch("b1", [0])
    forecast = lights.look()
    other = forecast.model_copy(update={"sha256": "0" * 64})
    with pytest.raises(InputError, match="was planned with 0000"):
        predict(PredictSpec(forecast=other, message=forecast.messages[0]))
    larger = forecast.preprocess.model_copy(update={"image_size": 16})
    other = forecast.model_copy(update={"preprocess": larger})
    with pytest.raises(InputError, match="prepares its images otherwise"):
        predict(PredictSpec(forecast=other, message=forecast.messages[0]))


def test_an_interrupted_part_leaves_nothing_that_counts(
    lights: Lights, monkeypatch: pytest.MonkeyPatch
) -> None:
    lights.register()
    lights.batch("b1", [0, 255])
    forecast = lights.look()
    real = storage.write

    def full(uri: str, *pieces: bytes) -> object:
        raise storage.OutageError("the disk is full")

    monkeypatch.setattr(storage, "write", full)
    with pytest.raises(storage.OutageError):
        predict(PredictSpec(forecast=forecast, message=forecast.messages[0]))
    monkeypatch.setattr(storage, "write", real)
    assert lights.keys(forecast.version) == []
    assert model_file.load(f"models:/{lights.pipeline.name}@champion").version == forecast.version
    assert len(storage.read_record(lights.look().messages[0].parts_uri, PartList).parts) == 1
