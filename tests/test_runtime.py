"""Running one file in whatever is installed, trusting only what agrees with the reference."""

import subprocess
import sys
import time
from typing import ClassVar

import numpy as np
import pytest

from tasks import runtime, storage
from tasks.dataset import load_split
from tasks.errors import InputError
from tasks.runtime import Session, fastest, measure


@pytest.fixture
def model(ml_night) -> bytes:
    return storage.read_artifact(ml_night.candidates["int8"].model)


@pytest.fixture
def images(ml_night) -> np.ndarray:
    return load_split(ml_night.dataset, "test").images.numpy()


def test_it_imports_where_only_numpy_and_onnxruntime_are_installed():
    code = (
        "import sys, tasks.runtime; "
        "heavy = {'torch', 'openvino', 'onnx', 'mlflow', 'boto3', 'cv2', 'pydantic'} & set(sys.modules); "
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", runtime.installed())
def test_every_runtime_predicts_the_same(model, images, name):
    probabilities, labels = Session(model, name).predict(images)
    expected, _ = Session(model).predict(images)
    assert (probabilities.dtype, probabilities.shape) == (np.float32, (24, 4))
    assert (labels.dtype, labels.shape) == (np.int64, (24,))
    np.testing.assert_allclose(probabilities, expected, atol=0.05)


@pytest.mark.parametrize("name", runtime.installed())
def test_results_are_not_overwritten_by_the_next_call(model, images, name):
    session = Session(model, name)
    first, _ = session.predict(images[:1])
    kept = first.copy()
    session.predict(images[1:2])
    assert np.array_equal(first, kept)


def test_many_images_go_in_pieces(model, images, monkeypatch):
    whole = Session(model).predict(images)
    monkeypatch.setattr(runtime, "CHUNK", 7)
    pieces = Session(model).predict(images)
    np.testing.assert_allclose(pieces[0], whole[0], atol=1e-6)
    assert pieces[1].tolist() == whole[1].tolist()


@pytest.mark.parametrize(
    "wrong",
    [np.zeros((1, 8, 8, 3), np.float32), np.zeros((8, 8, 3), np.uint8), np.zeros((1, 9, 9, 3), np.uint8)],
)
def test_images_of_another_shape_or_type_are_refused(model, wrong):
    with pytest.raises(InputError, match=r"must be uint8 \[N,8,8,3\]"):
        Session(model).predict(wrong)


def test_a_broken_file_is_refused_in_a_sentence():
    with pytest.raises(InputError, match="onnxruntime cannot load the model"):
        Session(b"no model")


def test_a_runtime_that_is_not_installed_names_those_that_are(model, monkeypatch):
    monkeypatch.setattr(runtime, "installed", lambda: ("onnxruntime",))
    with pytest.raises(InputError, match="'openvino' is not installed; installed are onnxruntime"):
        Session(model, "openvino")


class Other(Session):
    """The reference made slow, and a second runtime that gives the first `wrong` labels wrong."""

    wrong: ClassVar[int] = 0

    def __init__(self, model: bytes, runtime: runtime.Runtime = "onnxruntime") -> None:
        super().__init__(model, "onnxruntime")
        real, self.runtime = self._run, runtime

        def slow(images):
            time.sleep(0.005)
            return real(images)

        def quick(images):
            probabilities, labels = real(images)
            labels[: self.wrong] = (labels[: self.wrong] + 1) % 4
            return probabilities, labels

        self._run = slow if runtime == "onnxruntime" else quick


@pytest.mark.parametrize(("wrong", "expected"), [(0, "openvino"), (1, "onnxruntime")])
def test_the_fastest_runtime_that_agrees_is_taken(model, images, monkeypatch, capsys, wrong, expected):
    monkeypatch.setattr(runtime, "installed", lambda: ("onnxruntime", "openvino"))
    monkeypatch.setattr(runtime, "Session", Other)
    monkeypatch.setattr(Other, "wrong", wrong)
    assert fastest(model, images).runtime == expected
    assert ("openvino is passed over: 95.83%" in capsys.readouterr().out) == (wrong == 1)


def test_models_are_timed_in_turns(model, images):
    calls: list[str] = []

    def session(name: str) -> Session:
        made = Session(model)
        run = made._run
        made._run = lambda pixels: calls.append(f"{name}{len(pixels)}") or run(pixels)
        return made

    timings = measure({"a": session("a"), "b": session("b")}, {"a": images, "b": images}, runs=10, batch=48)
    warm = runtime.WARM_UP
    assert calls == ["a1", "b1"] * (warm + 10) + ["a48", "b48"] * (warm + 5)
    for timing in timings.values():
        assert 0 < timing.latency_ms_p50 <= timing.latency_ms_p99
        assert timing.images_per_second > 0


def test_threads_are_capped_by_the_environment(monkeypatch):
    monkeypatch.setenv("NIGHTSHIFT_THREADS", "3")
    assert runtime._threads() == 3
