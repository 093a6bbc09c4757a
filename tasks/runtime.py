"""Runs a Nightshift ONNX file and times it: ONNX Runtime is the reference, OpenVINO is taken when it agrees.

Needs numpy and onnxruntime only, so a machine that just predicts can import it. Threads come from
NIGHTSHIFT_THREADS: without a cap, two processes on the same cores slow each other down many times over.
"""

import importlib.util
import os
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Final, Literal, NamedTuple

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from tasks.errors import InputError

Pixels = NDArray[np.uint8]
Prediction = tuple[NDArray[np.float32], NDArray[np.int64]]
Shape = tuple[int | None, int | None, int | None]
Runtime = Literal["onnxruntime", "openvino"]
RUNTIMES: Final[tuple[Runtime, ...]] = ("onnxruntime", "openvino")
AGREEMENT: Final = 0.999  # share of equal top-1 labels below which a faster runtime is not trusted
WARM_UP: Final = 5
CHUNK: Final = 256  # images per call when many are predicted


class Timing(NamedTuple):
    """Milliseconds for one image alone (median, 99th percentile), and images per second in batches."""

    latency_ms_p50: float
    latency_ms_p99: float
    images_per_second: float


class Session:
    """One loaded ONNX file. `shape` is that of an image, [H,W,C], None where the file takes any number."""

    def __init__(self, model: bytes, runtime: Runtime = "onnxruntime") -> None:
        """Raises InputError when the runtime is not installed or refuses the file."""
        if runtime not in installed():
            raise InputError(f"runtime {runtime!r} is not installed; installed are {', '.join(installed())}")
        self.runtime: Runtime = runtime
        self.size = len(model)
        load = _load_onnxruntime if runtime == "onnxruntime" else _load_openvino
        try:
            self._run, self.shape = load(model)
        except Exception as error:  # both runtimes raise kinds that are not public
            reason = " ".join(str(error).split())[:300]
            raise InputError(
                f"{runtime} cannot load the model ({reason}); use another recipe or runtime"
            ) from error

    def predict(self, images: Pixels) -> Prediction:
        """Probabilities float32 [N,K] and labels int64 [N] of uint8 [N,H,W,C]; many images go in pieces."""
        fits = images.ndim == 4 and all(
            wanted in (None, given) for wanted, given in zip(self.shape, images.shape[1:], strict=True)
        )
        if images.dtype != np.uint8 or not fits:
            wanted = ",".join(str(size or name) for size, name in zip(self.shape, "HWC", strict=True))
            raise InputError(
                f"images must be uint8 [N,{wanted}], got {images.dtype} {list(images.shape)}; prepare them "
                "with tasks.images.prepare"
            )
        if len(images) <= CHUNK:
            return self._run(images)
        pieces = [self._run(images[start : start + CHUNK]) for start in range(0, len(images), CHUNK)]
        return np.concatenate([p for p, _ in pieces]), np.concatenate([label for _, label in pieces])


def installed() -> tuple[Runtime, ...]:
    """The runtimes that can be imported here, the reference first."""
    return tuple(name for name in RUNTIMES if importlib.util.find_spec(name) is not None)


def fastest(model: bytes, images: Pixels, *, runs: int = 30) -> Session:
    """The fastest installed runtime whose labels on `images` agree with ONNX Runtime's, or ONNX Runtime.

    A runtime that refuses the file is passed over, since the reference runs it.
    """
    reference = Session(model)
    _, expected = reference.predict(images)
    agreeing: dict[str, Session] = {reference.runtime: reference}
    for name in installed()[1:]:
        try:
            session = Session(model, name)
            _, labels = session.predict(images)
        except InputError as error:
            print(f"{name} is passed over: {error}", flush=True)
            continue
        agreement = float(np.mean(labels == expected))
        if agreement >= AGREEMENT:
            agreeing[name] = session
        else:
            print(
                f"{name} is passed over: {agreement:.2%} of its labels are those of onnxruntime", flush=True
            )
    if len(agreeing) == 1:
        return reference
    times = latencies(agreeing, images, runs=runs)
    return agreeing[min(times, key=lambda name: statistics.median(times[name]))]


def measure(
    sessions: Mapping[str, Session], images: Mapping[str, Pixels], *, runs: int, batch: int
) -> dict[str, Timing]:
    """Time models side by side on `images` (each model's own, of the size it takes).

    They take turns within one process, so that noise on the machine meets all of them alike. `runs` single
    images are timed for each, and a tenth as many batches, 5 at least.
    """
    single = _take_turns(
        {name: _one_by_one(session, images[name]) for name, session in sessions.items()}, runs
    )
    full = {name: np.resize(images[name], (batch, *images[name].shape[1:])) for name in sessions}
    batched = _take_turns(
        {name: _same_batch(session, full[name]) for name, session in sessions.items()}, max(5, runs // 10)
    )
    return {
        name: Timing(
            latency_ms_p50=1000 * statistics.median(single[name]),
            latency_ms_p99=1000 * float(np.percentile(single[name], 99)),
            images_per_second=batch / statistics.median(batched[name]),
        )
        for name in sessions
    }


def latencies(sessions: Mapping[str, Session], images: Pixels, *, runs: int) -> dict[str, list[float]]:
    """Seconds of each of `runs` single-image predictions of every session, taken in turns."""
    return _take_turns({name: _one_by_one(session, images) for name, session in sessions.items()}, runs)


def _one_by_one(session: Session, images: Pixels) -> Callable[[int], object]:
    return lambda turn: session.predict(images[turn % len(images)][None])


def _same_batch(session: Session, batch: Pixels) -> Callable[[int], object]:
    return lambda turn: session.predict(batch)


def _take_turns(calls: Mapping[str, Callable[[int], object]], runs: int) -> dict[str, list[float]]:
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(-WARM_UP, runs):
        for name, call in calls.items():
            begun = time.perf_counter()
            call(turn)
            if turn >= 0:
                seconds[name].append(time.perf_counter() - begun)
    return seconds


def _threads() -> int:
    return int(os.environ.get("NIGHTSHIFT_THREADS") or os.cpu_count() or 1)


def _load_onnxruntime(model: bytes) -> tuple[Callable[[Pixels], Prediction], Shape]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = _threads()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def run(images: Pixels) -> Prediction:
        probabilities, labels = session.run(["probabilities", "label"], {"images": images})
        return probabilities, labels

    height, width, channels = (
        size if isinstance(size, int) else None for size in session.get_inputs()[0].shape[1:]
    )
    return run, (height, width, channels)


def _load_openvino(model: bytes) -> tuple[Callable[[Pixels], Prediction], Shape]:
    import openvino

    settings = {"INFERENCE_NUM_THREADS": _threads(), "PERFORMANCE_HINT": "LATENCY"}
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(model, b""), "CPU", settings)
    request = compiled.create_infer_request()

    def run(images: Pixels) -> Prediction:
        request.infer({"images": np.ascontiguousarray(images)}, share_inputs=True)
        # The request's memory is used again by the next call.
        return request.get_tensor("probabilities").data.copy(), request.get_tensor("label").data.copy()

    sizes = list(compiled.input("images").get_partial_shape())[1:]
    height, width, channels = (size.get_length() if size.is_static else None for size in sizes)
    return run, (height, width, channels)
