"""Runs a Nightshift ONNX file: ONNX Runtime on the CPU is the reference, others are taken when they agree.

Needs numpy and onnxruntime only, so a machine that just predicts can import it. Threads come from
NIGHTSHIFT_THREADS: without a cap, two processes on the same cores slow each other down many times over.
"""

import importlib.util
import os
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, NamedTuple

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from tasks.errors import InputError

Pixels = NDArray[np.uint8]
Prediction = tuple[NDArray[np.float32], NDArray[np.int64]]
Shape = tuple[int | None, int | None, int | None]
Loaded = tuple[Callable[[Pixels], Prediction], Shape]
Runtime = Literal["onnxruntime", "onnxruntime-cuda", "openvino", "openvino-f32"]
AGREEMENT: Final = 0.999  # share of equal top-1 labels below which a faster runtime is not trusted
CHUNK: Final = 256  # images per call when many are predicted
TURNS: Final = 30  # of each runtime when the fastest is looked for, fewer when they take long
LEAST_TURNS: Final = 3
LOOK_SECONDS: Final = 1.0
PIECES: Final = (1, 4, 16, 64)  # images that a stream of OpenVINO computes at once; more gain nothing
PIECE_PIXELS: Final = 64 * 64 * 64  # in such a piece: of larger images fewer suffice, and memory counts


class Session:
    """One loaded ONNX file. `shape` is that of an image, [H,W,C], None where the file takes any number."""

    def __init__(self, model: bytes, runtime: Runtime = "onnxruntime") -> None:
        """Raises InputError when the runtime is not installed or refuses the file."""
        if runtime not in installed():
            raise InputError(f"runtime {runtime!r} is not installed; installed are {', '.join(installed())}")
        self.runtime: Runtime = runtime
        self.size = len(model)
        try:
            self._run, self.shape = LOADERS[runtime](model)
        except Exception as error:  # the runtimes raise kinds that are not public
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
        return self._run(images)


class Choice(NamedTuple):
    """The fastest runtime's session, the share of its labels that are the reference's, and a sentence on each
    runtime that was passed over because it refuses the file or disagrees."""

    session: Session
    agreement: float
    passed_over: tuple[str, ...]


def installed() -> tuple[Runtime, ...]:
    """The runtimes that can be used here, the reference first."""
    cuda = "CUDAExecutionProvider" in onnxruntime.get_available_providers()  # in the onnxruntime-gpu wheel
    openvino = importlib.util.find_spec("openvino") is not None
    usable: dict[Runtime, bool] = {
        "onnxruntime": True,
        "onnxruntime-cuda": cuda,
        "openvino": openvino,
        "openvino-f32": openvino,
    }
    return tuple(name for name, there in usable.items() if there)


def threads() -> int:
    """Threads that a model may use: NIGHTSHIFT_THREADS, or as many as there are cores."""
    return int(os.environ.get("NIGHTSHIFT_THREADS") or os.cpu_count() or 1)


def fastest(model: bytes, images: Pixels, *, batch: int = 1) -> Choice:
    """The installed runtime that predicts `batch` images fastest, of those that agree with the reference.

    A runtime agrees when 99.9 % of its labels on `images`, uint8 [N,H,W,C], are those of ONNX Runtime on the
    CPU. Those that agree take turns with `batch` of these images at once, for a second or three turns each;
    the median counts. Raises InputError when the reference cannot load the file.
    """
    reference = Session(model)
    _, expected = reference.predict(images)
    agreeing: dict[str, tuple[Session, float]] = {reference.runtime: (reference, 1.0)}
    passed_over = []
    for name in installed()[1:]:
        try:
            session = Session(model, name)
            _, labels = session.predict(images)
        except Exception as error:  # OpenVINO finds some faults only when it runs
            passed_over.append(f"{name} is passed over: {' '.join(str(error).split())[:300]}")
            continue
        agreement = float(np.mean(labels == expected))
        if agreement >= AGREEMENT:
            agreeing[name] = (session, agreement)
        else:
            passed_over.append(
                f"{name} is passed over: {agreement:.2%} of its labels are those of onnxruntime"
            )
    if len(agreeing) == 1:
        return Choice(reference, 1.0, tuple(passed_over))
    seconds = _take_turns({name: session for name, (session, _) in agreeing.items()}, images[:batch])
    session, agreement = agreeing[min(seconds, key=lambda name: statistics.median(seconds[name]))]
    return Choice(session, agreement, tuple(passed_over))


def _take_turns(sessions: Mapping[str, Session], images: Pixels) -> dict[str, list[float]]:
    """Seconds of predictions of the same images by every session; the first of each is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in sessions}
    end = time.perf_counter() + LOOK_SECONDS
    for turn in range(TURNS + 1):
        for name, session in sessions.items():
            begun = time.perf_counter()
            session.predict(images)
            if turn:
                seconds[name].append(time.perf_counter() - begun)
        if turn >= LEAST_TURNS and time.perf_counter() > end:
            break
    return seconds


def _joined(parts: list[Prediction]) -> Prediction:
    return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])


def _load_cpu(model: bytes) -> Loaded:
    return _load_onnxruntime(model, "CPUExecutionProvider")


def _load_cuda(model: bytes) -> Loaded:
    onnxruntime.preload_dlls()  # CUDA's libraries from the wheels that torch brings along
    return _load_onnxruntime(model, "CUDAExecutionProvider")


def _load_onnxruntime(model: bytes, provider: str) -> Loaded:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model, options, providers=[provider])
    if provider not in session.get_providers():  # it falls back to the CPU without an error
        raise RuntimeError(f"{provider} does not start on this machine")

    def run(images: Pixels) -> Prediction:
        parts = [images[start : start + CHUNK] for start in range(0, max(1, len(images)), CHUNK)]
        return _joined([session.run(["probabilities", "label"], {"images": part}) for part in parts])

    height, width, channels = (
        size if isinstance(size, int) else None for size in session.get_inputs()[0].shape[1:]
    )
    return run, (height, width, channels)


def _load_openvino(model: bytes) -> Loaded:
    """What is float in the file is computed in bfloat16 where the processor has it."""
    loaded = OpenVINO(model)
    return loaded.run, loaded.shape


def _load_openvino_f32(model: bytes) -> Loaded:
    """What is float in the file stays so: a little slower, and nearer to the reference."""
    loaded = OpenVINO(model, {"INFERENCE_PRECISION_HINT": "f32"})
    return loaded.run, loaded.shape


class OpenVINO:
    """One image is computed by all threads together, many in pieces by streams of threads side by side.

    Every size of a piece is a compiled model of fixed shapes, made when it is first asked for: an int8
    ResNet-18 runs up to a third faster so than with a batch of any size.
    """

    def __init__(self, model: bytes, settings: Mapping[str, str] | None = None) -> None:
        import openvino

        self._settings = settings or {}
        self._openvino, self._core = openvino, openvino.Core()
        self._network = self._core.read_model(model, b"")
        sizes = list(self._network.input("images").get_partial_shape())[1:]
        height, width, channels = (size.get_length() if size.is_static else None for size in sizes)
        self.shape: Shape = (height, width, channels)
        self._made: dict[tuple[object, ...], Streams] = {}
        if None not in self.shape:
            self._streams("LATENCY", (1, *self.shape))

    def run(self, images: Pixels) -> Prediction:
        if len(images) == 1:
            return self._streams("LATENCY", images.shape).alone(images)
        return self._streams("THROUGHPUT", (piece_size(images.shape), *images.shape[1:])).many(images)

    def _streams(self, hint: str, shape: tuple[int | None, ...]) -> "Streams":
        if (hint, shape) not in self._made:
            self._network.reshape({"images": list(shape)})
            settings = {"INFERENCE_NUM_THREADS": threads(), "PERFORMANCE_HINT": hint, **self._settings}
            compiled = self._core.compile_model(self._network, "CPU", settings)
            jobs = compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")
            self._made[hint, shape] = Streams(self._openvino.AsyncInferQueue(compiled, jobs))
        return self._made[hint, shape]


class Streams:
    """Requests of one compiled model. Images are copied into their memory and results out of it: handing over
    arrays instead takes a fifth of the time of a small model."""

    def __init__(self, queue: Any) -> None:
        self._queue, self._requests = queue, list(queue)
        self._memory = [
            tuple(request.get_tensor(name).data for name in ("images", "probabilities", "label"))
            for request in self._requests
        ]

    def alone(self, image: Pixels) -> Prediction:
        """What one image gives in a model of one, without the queue's own time."""
        given, probabilities, labels = self._memory[0]
        given[:] = image
        self._requests[0].infer()
        return probabilities.copy(), labels.copy()

    def many(self, images: Pixels) -> Prediction:
        size, classes = self._memory[0][1].shape
        probabilities, labels = np.empty((len(images), classes), np.float32), np.empty(len(images), np.int64)
        running: dict[int, int] = {}  # first image of the piece that each request computes

        def keep(request: int) -> None:
            start = running.pop(request)
            count = len(labels[start : start + size])
            _, given_probabilities, given_labels = self._memory[request]
            probabilities[start : start + count] = given_probabilities[:count]
            labels[start : start + count] = given_labels[:count]

        for start in range(0, len(images), size):
            request = self._queue.get_idle_request_id()  # waits for one
            if request in running:
                keep(request)
            piece = images[start : start + size]
            self._memory[request][0][: len(piece)] = piece  # what is left of an earlier piece does no harm
            running[request] = start
            self._queue.start_async()  # that request
        self._queue.wait_all()
        for request in list(running):
            keep(request)
        return probabilities, labels


def piece_size(shape: tuple[int, ...]) -> int:
    """How many of [N,H,W,C] images a stream computes at once: a share for each, and no more than pay."""
    count, height, width = shape[:3]
    wanted = min(count // threads(), PIECE_PIXELS // (height * width))
    return max(size for size in PIECES if size <= max(1, wanted))


LOADERS: Final[Mapping[Runtime, Callable[[bytes], Loaded]]] = {
    "onnxruntime": _load_cpu,
    "onnxruntime-cuda": _load_cuda,
    "openvino": _load_openvino,
    "openvino-f32": _load_openvino_f32,
}
