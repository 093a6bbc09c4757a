"""Running one file in whatever is installed, trusting only what agrees with the reference."""

import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import joblib
import numpy as np
import onnx
import onnxruntime
import pytest

from nightshift import storage
from nightshift.data.dataset import load_split
from nightshift.errors import InputError
from nightshift.hardware import processor
from nightshift.inference import openvino_streams, runtime
from nightshift.inference.portability import PAIR_SUM
from nightshift.inference.runtime import EXACT, Session, fastest


@pytest.fixture
def model(ml_night) -> bytes:
    return storage.read_artifact(ml_night.candidates["int8"].model)


@pytest.fixture
def images(ml_night) -> np.ndarray:
    return load_split(ml_night.dataset, "test").images.numpy()


def test_it_imports_where_only_numpy_and_onnxruntime_are_installed():
    code = (
        "import sys, nightshift.inference.runtime; "
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


@pytest.mark.parametrize("name", runtime.installed())
@pytest.mark.parametrize("count", [0, 2, 13, 24])
def test_many_images_go_in_pieces_and_come_back_in_order(model, images, monkeypatch, name, count):
    monkeypatch.setattr(runtime, "CHUNK", 7)
    session = Session(model, name)
    probabilities, labels = session.predict(images[:count])
    assert (probabilities.shape, labels.shape) == ((count, 4), (count,))
    for number in range(count):
        alone, label = session.predict(images[number : number + 1])
        np.testing.assert_allclose(probabilities[number], alone[0], atol=1e-2)
        assert labels[number] == label[0]


@pytest.mark.parametrize(
    ("images", "side", "size"),
    [
        *((0, 8, 1), (1, 8, 1), (4, 8, 4), (15, 8, 4), (16, 8, 16), (64, 8, 64)),
        *((9999, 8, 64), (64, 224, 4), (64, 2000, 1)),
    ],
)
def test_a_piece_is_not_too_large(images, side, size):
    assert openvino_streams.piece_size(images, side**2) == size


@pytest.mark.skipif("openvino" not in runtime.installed(), reason="OpenVINO is not installed")
@pytest.mark.skipif(joblib.cpu_count() < 2, reason="OpenVINO has one lane on one core")
def test_lanes_compute_side_by_side_what_one_caller_gets(model, images, monkeypatch):
    monkeypatch.setenv("NIGHTSHIFT_THREADS", "2")
    session = Session(model, "openvino")
    assert session.lanes == 2
    assert Session(model).lanes == 1
    size = session.lane_size(4)
    pieces = [images[start : start + size] for start in range(0, len(images) - size + 1, size)]
    assert (size, len(pieces) > 1) == (4, True)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(session.share, pieces * 20))
    for piece, (probabilities, labels) in zip(pieces * 20, found, strict=True):
        expected, wanted = session.predict(piece)
        np.testing.assert_allclose(probabilities, expected, atol=1e-2)
        assert np.array_equal(labels, wanted)


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


def loads(seconds: float, wrong: int = 0) -> Callable[[bytes], runtime.Loaded]:
    """A runtime that takes so long for each call, and gives that many of the first labels wrong."""

    def load(model: bytes) -> runtime.Loaded:
        real, shape, *_ = runtime._load_cpu(model)

        def run(images: np.ndarray) -> runtime.Prediction:
            time.sleep(seconds)
            probabilities, labels = real(images)
            labels[:wrong] = (labels[:wrong] + 1) % 4
            return probabilities, labels

        return runtime.Loaded(run, shape)

    return load


def fails(model: bytes) -> runtime.Loaded:
    raise RuntimeError("no kernel for\nthis")


@pytest.fixture
def two(monkeypatch) -> Callable[..., None]:
    """Makes ONNX Runtime slow, and OpenVINO whatever is given; exact arithmetic stays as it is."""

    def install(loader: Callable[[bytes], runtime.Loaded]) -> None:
        monkeypatch.setattr(runtime, "installed", lambda: ("onnxruntime", EXACT, "openvino"))
        loaders = {"onnxruntime": loads(0.01), EXACT: runtime._load_exact, "openvino": loader}
        monkeypatch.setattr(runtime, "LOADERS", loaders)

    return install


def test_the_fastest_runtime_is_taken(model, images, two):
    two(loads(0.001))
    choice = fastest(model, images)
    assert (choice.session.runtime, choice.agreement, choice.rejected) == ("openvino", 1.0, ())


def test_a_slower_runtime_is_not_taken(model, images, two):
    two(loads(0.03))
    assert fastest(model, images).session.runtime == "onnxruntime"


def test_a_runtime_that_disagrees_is_passed_over(model, images, two):
    two(loads(0.001, wrong=1))
    choice = fastest(model, images)
    assert (choice.session.runtime, choice.agreement) == ("onnxruntime", 1.0)
    assert choice.agreements == {EXACT: 1.0, "onnxruntime": 1.0, "openvino": 23 / 24}
    (sentence,) = choice.rejected
    assert sentence.startswith("openvino is rejected: it gives 1 of 24 images another label than")


@pytest.fixture
def without_dot_products(monkeypatch, tmp_path) -> None:
    (tmp_path / "cpuinfo").write_text("model name : Old One\nflags : fpu avx2\n")
    monkeypatch.setattr(processor, "CPUINFO", tmp_path / "cpuinfo")


def nearly(gap: float) -> Callable[[bytes], runtime.Loaded]:
    """Exact arithmetic by which the second class of the first image is that much less probable."""

    def load(model: bytes) -> runtime.Loaded:
        loaded = runtime._load_exact(model)

        def run(images: np.ndarray) -> runtime.Prediction:
            probabilities, labels = loaded.run(images)
            first, second = 0.4 + gap, 0.4
            probabilities[0] = (0.6 - gap) / 2
            probabilities[0, labels[0]], probabilities[0, (labels[0] + 1) % 4] = first, second
            return probabilities, labels

        return loaded._replace(run=run)

    return load


@pytest.mark.parametrize(
    ("gap", "expected"), [(0.01, "openvino"), (0.049, "openvino"), (0.06, "onnxruntime")]
)
def test_a_tie_that_rounding_decides_is_no_disagreement(model, images, two, gap, expected):
    two(loads(0.001, wrong=1))
    runtime.LOADERS[EXACT] = nearly(gap)
    choice = fastest(model, images)
    assert choice.session.runtime == expected
    assert choice.agreements["openvino"] == 23 / 24  # it is told all the same


def test_where_onnx_runtime_is_the_one_that_is_wrong_the_others_are_right(model, images, two):
    two(loads(0.02))
    runtime.LOADERS["onnxruntime"] = loads(0.001, wrong=1)
    choice = fastest(model, images)
    assert (choice.session.runtime, choice.reference, choice.agreement) == ("openvino", EXACT, 1.0)
    assert [sentence.split()[0] for sentence in choice.rejected] == ["onnxruntime"]


def test_where_every_fast_runtime_is_wrong_the_exact_one_is_used(model, images, two):
    two(loads(0.001, wrong=2))
    runtime.LOADERS["onnxruntime"] = loads(0.001, wrong=1)
    choice = fastest(model, images)
    assert (choice.session.runtime, choice.reference, choice.agreement) == (EXACT, EXACT, 1.0)
    assert len(choice.rejected) == 2
    assert runtime.reference(model, images).session.runtime == EXACT


def test_few_images_are_compared_with_exact_arithmetic_too(model, images, two):
    two(fails)
    choice = runtime.reference(model, images)
    assert (choice.session.runtime, choice.agreement, choice.rejected) == ("onnxruntime", 1.0, ())


def told(model: bytes, pair_sum: str | None) -> bytes:
    """The file with another largest sum in its metadata, or with none."""
    changed = onnx.load_model_from_string(model)
    facts = {fact.key: fact.value for fact in changed.metadata_props if fact.key != PAIR_SUM}
    onnx.helper.set_model_props(changed, facts if pair_sum is None else {**facts, PAIR_SUM: pair_sum})
    return bytes(changed.SerializeToString())


@pytest.mark.parametrize("look", [fastest, runtime.reference])
def test_where_sums_may_saturate_nothing_but_exact_arithmetic_is_trusted(
    model, images, two, without_dot_products, look
):
    """A few images on which the others are right show nothing of the rest."""
    two(loads(0.001))
    choice = look(told(model, "64770"), images)
    assert (choice.session.runtime, choice.reference, choice.agreements) == (EXACT, EXACT, {EXACT: 1.0})
    (sentence,) = choice.rejected
    assert "Old One has neither VNNI (avx512_vnni, avx_vnni) nor AMX (amx_int8)" in sentence


@pytest.mark.parametrize("pair_sum", [None, "nonsense", "32640"])
def test_a_portable_file_is_run_by_the_fastest_whether_it_says_so_or_not(
    model, images, two, without_dot_products, pair_sum
):
    two(loads(0.001))
    assert fastest(told(model, pair_sum), images).session.runtime == "openvino"


def test_probabilities_that_are_no_numbers_are_no_agreement(model, images, two):
    def load(data: bytes) -> runtime.Loaded:
        run = runtime._load_cpu(data).run
        return runtime.Loaded(lambda pixels: (run(pixels)[0] * np.float32(np.nan), run(pixels)[1]), (8, 8, 3))

    two(load)
    assert fastest(model, images).session.runtime == "onnxruntime"


@pytest.mark.parametrize("when", ["it loads", "it runs"])
def test_a_runtime_that_refuses_the_file_is_passed_over_with_a_sentence(model, images, two, when):
    two(fails if when == "it loads" else lambda model: runtime.Loaded(fails, (8, 8, 3)))
    choice = fastest(model, images)
    assert choice.session.runtime == "onnxruntime"
    assert len(choice.rejected) == 1
    assert choice.rejected[0].startswith("openvino is rejected: ")
    assert "no kernel for this" in choice.rejected[0]


def test_what_the_runtime_before_leaves_behind_does_not_count(model, images, two):
    """The reference's threads hold a core for a while after each call, and OpenVINO is slow meanwhile."""
    held = [0.0]

    def load(model: bytes) -> runtime.Loaded:
        run, shape, *_ = runtime._load_cpu(model)

        def quick(pixels: np.ndarray) -> runtime.Prediction:
            time.sleep(0.03 if time.perf_counter() < held[0] else 0.001)
            return run(pixels)

        return runtime.Loaded(quick, shape)

    def reference(model: bytes) -> runtime.Loaded:
        run, shape, *_ = loads(0.01)(model)

        def holds(pixels: np.ndarray) -> runtime.Prediction:
            found = run(pixels)
            held[0] = time.perf_counter() + 0.05
            return found

        return runtime.Loaded(holds, shape)

    two(load)
    runtime.LOADERS["onnxruntime"] = reference
    assert fastest(model, images).session.runtime == "openvino"


def test_how_many_images_at_once_decides_what_is_fastest(model, images, two):
    def load(model: bytes) -> runtime.Loaded:
        run, shape, *_ = runtime._load_cpu(model)
        return runtime.Loaded(lambda pixels: time.sleep(0.03 * (len(pixels) == 1)) or run(pixels), shape)

    two(load)
    assert fastest(model, images).session.runtime == "onnxruntime"
    assert fastest(model, images, batch=8).session.runtime == "openvino"


def test_cuda_is_among_the_runtimes_where_onnxruntime_has_it(monkeypatch):
    assert "onnxruntime-cuda" not in runtime.installed()
    providers = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: providers)
    assert "onnxruntime-cuda" in runtime.installed()


def test_cuda_is_taken_when_it_is_fastest(model, images, monkeypatch):
    monkeypatch.setattr(runtime, "installed", lambda: ("onnxruntime", EXACT, "onnxruntime-cuda"))
    loaders = {"onnxruntime": loads(0.01), EXACT: runtime._load_exact, "onnxruntime-cuda": loads(0.001)}
    monkeypatch.setattr(runtime, "LOADERS", loaders)
    assert fastest(model, images).session.runtime == "onnxruntime-cuda"


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_cuda_that_does_not_start_is_not_taken_for_the_cpu(model, images, monkeypatch):
    monkeypatch.setattr(runtime, "installed", lambda: ("onnxruntime", EXACT, "onnxruntime-cuda"))
    choice = fastest(model, images)
    assert choice.session.runtime == "onnxruntime"
    assert "CUDAExecutionProvider does not start on this machine" in choice.rejected[0]
