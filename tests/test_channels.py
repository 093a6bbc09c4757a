"""Images of other channels than three, from an array file to a prediction."""

import io
import json

import numpy as np
import onnx
import pytest
from safetensors.numpy import load
from typer.testing import CliRunner

from nightshift import storage
from nightshift.cli import app
from nightshift.config import Pipeline, PreprocessSettings, QuantizeSettings, TrainSettings
from nightshift.data.images import UnreadableError, prepare
from nightshift.data.sources import find, ingest
from nightshift.errors import InputError
from nightshift.inference.runtime import Session
from nightshift.preprocess import preprocess
from nightshift.quantize import quantize
from nightshift.records import Dataset
from nightshift.records.specs import AssembleSpec, PlanSpec, PreprocessSpec, QuantizeSpec, TrainSpec
from nightshift.train import train
from nightshift.workflows.retrain.assemble import assemble
from nightshift.workflows.retrain.plan import plan

SIDE, CHANNELS = 12, 5
SETTINGS = PreprocessSettings(image_size=SIDE, channels=CHANNELS)


def array(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, pixels)
    return buffer.getvalue()


def bands(seed: int, height: int = SIDE, width: int = SIDE, channels: int = CHANNELS) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)


@pytest.mark.parametrize("resize", ["crop", "letterbox", "stretch"])
@pytest.mark.parametrize("channels", [1, 2, 5, 32])
def test_every_channel_is_resized_as_if_it_were_alone(resize, channels):
    pixels = bands(0, 40, 60, channels)
    settings = SETTINGS.model_copy(update={"channels": channels, "resize": resize})
    together = prepare(array(pixels), settings)
    assert together.shape == (SIDE, SIDE, channels)
    alone = settings.model_copy(update={"channels": 1})
    for number in range(channels):
        single = prepare(array(pixels[..., number]), alone)
        assert np.array_equal(single[..., 0], together[..., number])


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
@pytest.mark.parametrize("shape", [(SIDE, SIDE), (SIDE, SIDE, 1), (SIDE, SIDE, 3)])
def test_grey_arrays_and_colours_of_either_depth_become_both(kind, shape):
    """OpenCV drops the axis of a single channel where it converts."""
    grey = np.full(shape, 200 if kind is np.uint8 else 200 * 257, kind)
    for channels in (1, 3):
        pixels = prepare(array(grey), PreprocessSettings(image_size=SIDE, channels=channels))
        assert pixels.shape == (SIDE, SIDE, channels)
        assert set(pixels.ravel()) == {200}


def test_sixteen_bits_become_eight():
    deep = np.random.default_rng(0).integers(0, 65536, (SIDE, SIDE, CHANNELS), np.uint16)
    for order in ("<u2", ">u2"):
        pixels = prepare(array(deep.astype(order)), SETTINGS)
        assert np.abs(pixels - deep / 257).max() <= 0.5


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (array(bands(0, channels=4)), "channels"),
        (array(bands(0))[:-1], "truncated"),
        (array(np.asfortranarray(bands(0))), "unsupported"),
        (array(np.zeros((4, 4, 5))), "unsupported"),
        (array(np.zeros((4, 4), np.uint8)), "channels"),
        (array(np.zeros((4, 0, 5), np.uint8)), "damaged"),
        (array(np.zeros(4, np.uint8)), "unsupported"),
        (b"\x93NUMPY\x01\0" + b"\xff" * 200, "unsupported"),
        (b"\x93NUMPY", "unsupported"),
    ],
)
def test_an_array_of_another_kind_is_refused(data, reason):
    with pytest.raises(UnreadableError) as refused:
        prepare(data, SETTINGS)
    assert refused.value.reason == reason


def test_objects_are_never_unpickled(tmp_path):
    buffer = io.BytesIO()
    np.save(buffer, np.array([{"a": 1}], object), allow_pickle=True)
    with pytest.raises(UnreadableError, match="something else than a uint8 or uint16 array"):
        prepare(buffer.getvalue(), SETTINGS)


def test_grey_and_colours_become_each_other():
    grey = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE), np.uint8)
    colours = prepare(array(grey), SETTINGS.model_copy(update={"channels": 3}))
    assert (colours == grey[..., None]).all()
    one = SETTINGS.model_copy(update={"channels": 1})
    assert np.array_equal(prepare(array(colours), one), grey[..., None])


def test_denoising_is_for_colours():
    with pytest.raises(ValueError, match="denoise and smoothing need 3 channels, got 5"):
        PreprocessSettings(channels=5, denoise="median")


@pytest.fixture
def source(tmp_path):
    """80 images of 5 channels in one npz file; the class says which of two channels is brighter."""
    labels = np.arange(80) % 2
    images = np.stack([bands(seed) // 2 for seed in range(80)])
    images[labels == 0, ..., 3] += 120
    images[labels == 1, ..., 4] += 120
    path = tmp_path / "scenes.npz"
    np.savez(path, images=images, labels=np.array(["fourth", "fifth"])[labels])
    return path, images


@pytest.fixture
def dataset_uri(source, tmp_path, monkeypatch):
    monkeypatch.setenv("NIGHTSHIFT_STORE", f"file://{tmp_path}/store")
    monkeypatch.setenv("NIGHTSHIFT_THREADS", "1")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr("nightshift.workflows.retrain.plan.open_run", lambda draft: None)
    with find(source[0]) as batch:
        ingest(batch, f"file://{tmp_path}/store/incoming/scenes")
    pipeline = Pipeline(name="scenes", preprocess=SETTINGS)
    planned = plan(PlanSpec(pipeline=pipeline, night="n"))
    for message in planned.messages:
        preprocess(PreprocessSpec(message=message, source=planned.source, settings=SETTINGS))
    return assemble(AssembleSpec(plan=planned)).dataset_uri


def test_all_channels_are_trained_on_and_predicted_with(source, dataset_uri, tmp_path):
    dataset = storage.read_record(dataset_uri, Dataset)
    assert sum(shard.images for shard in dataset.shards) == 80
    assert len(dataset.mean) == len(dataset.std) == CHANNELS
    stored = np.concatenate([load(storage.read_artifact(shard.file))["images"] for shard in dataset.shards])
    assert np.array_equal(np.sort(stored.reshape(80, -1), axis=0), np.sort(source[1].reshape(80, -1), axis=0))
    settings = TrainSettings(width=0.25, epochs=8, batch_size=16, learning_rate=0.05, crop_padding=0)
    checkpoint = train(TrainSpec(dataset_uri=dataset_uri, settings=settings))
    spec = QuantizeSpec(recipe="int8", checkpoints=(checkpoint,), settings=QuantizeSettings())
    data = storage.read_artifact(quantize(spec).model)
    facts = {entry.key: entry.value for entry in onnx.load_model_from_string(data).metadata_props}
    assert json.loads(facts["nightshift.preprocess"])["channels"] == CHANNELS
    session = Session(data)
    assert session.shape == (SIDE, SIDE, CHANNELS)
    with pytest.raises(InputError, match=r"must be uint8 \[N,12,12,5\], got uint8 \[1, 12, 12, 3\]"):
        session.predict(np.zeros((1, SIDE, SIDE, 3), np.uint8))
    (tmp_path / "model.onnx").write_bytes(data)
    unseen = tmp_path / "unseen.npy"
    pixels = bands(99) // 2
    for bright, label in ((3, "fourth"), (4, "fifth")):
        seen = pixels.copy()
        seen[..., bright] += 120
        unseen.write_bytes(array(seen))
        found = CliRunner().invoke(app, ["predict", str(tmp_path / "model.onnx"), str(unseen), "--json"])
        assert json.loads(found.stdout)["label"] == label, found.output
