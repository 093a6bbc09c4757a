"""Runs a Nightshift ONNX file in the fastest runtime whose labels are those of the file's exact arithmetic.

Exact is ONNX Runtime without optimization: it computes integer layers in float32, whose rounding is far below
a step of their integers, 2 to 4 times slower than integer kernels, which may saturate: see
`nightshift.inference.pair_sums`.

Needs numpy and onnxruntime, so a machine that just predicts can import it. Threads come from
NIGHTSHIFT_THREADS: without a cap, two processes on the same cores slow each other down many times over.
"""

import importlib.util
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final, Literal, NamedTuple

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from nightshift.errors import InputError
from nightshift.hardware import processor
from nightshift.hardware.processor import threads
from nightshift.inference.openvino_streams import OpenVINO
from nightshift.inference.portability import pair_sum_of, saturates_here

Pixels = NDArray[np.uint8]
Prediction = tuple[NDArray[np.float32], NDArray[np.int64]]
Shape = tuple[int | None, int | None, int | None]
Runtime = Literal["onnxruntime", "onnxruntime-exact", "onnxruntime-cuda", "openvino", "openvino-f32"]
Reference = Literal["onnxruntime", "onnxruntime-exact"]
EXACT: Final = "onnxruntime-exact"
AGREEMENT: Final = 0.999  # share of images with the exact label, or as good as, below which none is trusted
TIE: Final = 0.05  # two classes that are nearer to each other in probability may be told apart by rounding
SAMPLE: Final = 256  # images that the exact arithmetic is computed for, at most
CHUNK: Final = 256  # images per call when many are predicted
EXACT_CHUNK: Final = 32  # without optimization every layer's output is kept twice, in float32
TURNS: Final = 3  # of each runtime when the fastest is looked for
TURN_SECONDS: Final = 0.2


class Loaded(NamedTuple):
    """A file in one runtime: how it predicts, the shape of an image, and OpenVINO where that runs it."""

    run: Callable[[Pixels], Prediction]
    shape: Shape
    openvino: OpenVINO | None = None
    facts: Mapping[str, str] = MappingProxyType({})  # metadata of the file, where ONNX Runtime reads it


class Session:
    """One loaded ONNX file. `shape` is that of an image, [H,W,C], None where the file takes any number."""

    def __init__(self, model: bytes, runtime: Runtime = "onnxruntime") -> None:
        """Raises InputError when the runtime is not installed or refuses the file."""
        if runtime not in installed():
            raise InputError(f"runtime {runtime!r} is not installed; installed are {', '.join(installed())}")
        self.runtime: Runtime = runtime
        self.size = len(model)
        try:
            self._run, self.shape, self._openvino, self.facts = LOADERS[runtime](model)
        except Exception as error:  # the runtimes raise kinds that are not public
            reason = " ".join(str(error).split())[:300]
            raise InputError(
                f"{runtime} cannot load the model ({reason}); use another recipe or runtime"
            ) from error

    def predict(self, images: Pixels) -> Prediction:
        """Probabilities float32 [N,K] and labels int64 [N] of uint8 [N,H,W,C]; many images go in pieces.

        All threads work for it: it is for one caller at a time.
        """
        self._check(images)
        return self._run(images)

    @property
    def lanes(self) -> int:
        """How many callers gain by `share`, each with its own images; 1 where all threads work together."""
        return self._openvino.lanes if self._openvino else 1

    def lane_size(self, images: int) -> int:
        """How many of so many images a lane takes at once."""
        return self._openvino.lane_size(images) if self._openvino else images

    def share(self, images: Pixels) -> Prediction:
        """`predict` for as many images as `lane_size` says, by one lane's threads."""
        self._check(images)
        return self._openvino.share(images) if self._openvino else self._run(images)

    def _check(self, images: Pixels) -> None:
        fits = images.ndim == 4 and all(
            wanted in (None, given) for wanted, given in zip(self.shape, images.shape[1:], strict=True)
        )
        if images.dtype != np.uint8 or not fits:
            wanted = ",".join(str(size or name) for size, name in zip(self.shape, "HWC", strict=True))
            raise InputError(
                f"images must be uint8 [N,{wanted}], got {images.dtype} {list(images.shape)}; prepare them "
                "with nightshift.data.images.prepare"
            )


class Choice(NamedTuple):
    """The fastest runtime's session, and how far every runtime agrees with the file's exact arithmetic."""

    session: Session
    agreements: dict[Runtime, float]  # share of labels that are the exact ones
    rejected: tuple[str, ...]  # a sentence on each runtime that refuses the file or disagrees
    reference: Reference  # the runtime that gives the labels: ONNX Runtime's own kernels where they agree

    @property
    def agreement(self) -> float:
        """That of the session's runtime."""
        return self.agreements[self.session.runtime]


def installed() -> tuple[Runtime, ...]:
    """The runtimes that can be used here."""
    cuda = "CUDAExecutionProvider" in onnxruntime.get_available_providers()  # in the onnxruntime-gpu wheel
    openvino = importlib.util.find_spec("openvino") is not None
    usable: dict[Runtime, bool] = {
        "onnxruntime": True,
        EXACT: True,
        "onnxruntime-cuda": cuda,
        "openvino": openvino,
        "openvino-f32": openvino,
    }
    return tuple(name for name, there in usable.items() if there)


def fastest(model: bytes, images: Pixels, *, batch: int = 1) -> Choice:
    """The installed runtime that predicts `batch` images fastest, of those that agree with exact arithmetic.

    A runtime agrees when 99.9 % of its labels on the first SAMPLE of `images`, uint8 [N,H,W,C], are those of
    the file's exact arithmetic, ties aside. Exact arithmetic is taken where none does, and where sums of the
    file may saturate on this processor.
    Those that agree take turns with `batch` of these images at once; the median counts. Raises InputError
    when ONNX Runtime cannot load the file.
    """
    choice, agreeing = _compared(model, [name for name in installed() if name != EXACT], images[:SAMPLE])
    if len(agreeing) < 2:
        return choice._replace(session=next(iter(agreeing.values()), choice.session))
    seconds = _take_turns(agreeing, images[:batch])
    quickest = min(agreeing, key=lambda name: statistics.median(seconds[name]))
    return choice._replace(session=agreeing[quickest])


def reference(model: bytes, images: Pixels) -> Choice:
    """ONNX Runtime's own kernels where they agree with exact arithmetic on these images, that elsewhere."""
    choice, agreeing = _compared(model, ["onnxruntime"], images[:SAMPLE])
    return choice._replace(session=agreeing.get("onnxruntime", choice.session))


def _compared(
    model: bytes, names: Iterable[Runtime], images: Pixels
) -> tuple[Choice, dict[Runtime, Session]]:
    """The choice of exact arithmetic, and the sessions of the runtimes that agree with it."""
    exact = Session(model, EXACT)
    agreements: dict[Runtime, float] = {EXACT: 1.0}
    agreeing: dict[Runtime, Session] = {}
    if saturates_here(pair_sum_of(exact.facts, model)):  # some images do not show it
        lacking = f"{processor.name()} has {processor.missing_dot_products()}"
        sentence = f"all but exact arithmetic is rejected: the file is not portable, and {lacking}"
        return Choice(exact, agreements, (sentence,), EXACT), agreeing
    expected = exact.predict(images)
    rejected = []
    for name in names:
        try:
            session = Session(model, name)
            given = session.predict(images)
        except Exception as error:  # OpenVINO finds some faults only when it runs
            rejected.append(f"{name} is rejected: {' '.join(str(error).split())[:300]}")
            continue
        agreements[name] = float(np.mean(given[1] == expected[1]))
        wrong = int(_wrong(expected, given).sum())
        if wrong <= (1 - AGREEMENT) * len(images):
            agreeing[name] = session
        else:
            rejected.append(
                f"{name} is rejected: it gives {wrong} of {len(images)} images another label than the "
                "file's exact arithmetic"
            )
    taken: Reference = "onnxruntime" if "onnxruntime" in agreeing else EXACT
    return Choice(exact, agreements, tuple(rejected), taken), agreeing


def _wrong(exact: Prediction, given: Prediction) -> NDArray[np.bool_]:
    """Which given labels are others than the exact ones, not counting ties; bool [N].

    Kernels round sums differently, which moves the probabilities of deep networks by up to 0.04; saturation
    moves them by 0.3 and more. A tie is a class that is at most TIE less probable than the likeliest, and at
    most a fifth of that.
    """
    (shares, expected), (other, labels) = exact, given
    rows = np.arange(len(labels))
    top = shares[rows, expected]
    tie = top - shares[rows, labels] < np.minimum(TIE, 0.2 * top)
    return np.asarray(((labels != expected) & ~tie) | ~np.isfinite(other).all(1), np.bool_)


def _take_turns(sessions: Mapping[Runtime, Session], images: Pixels) -> dict[Runtime, list[float]]:
    """Seconds of predictions of the same images by every session, TURNS times in turn.

    The first half of a turn is not counted: threads of the runtime before spin on for some 35 ms, and
    while they hold a core the next one takes twice as long.
    """
    seconds: dict[Runtime, list[float]] = {name: [] for name in sessions}
    for _ in range(TURNS):
        for name, session in sessions.items():
            _calls(session, images)
            seconds[name] += _calls(session, images)
    return seconds


def _calls(session: Session, images: Pixels) -> list[float]:
    """Seconds of one prediction after the other, for half a turn."""
    seconds: list[float] = []
    while sum(seconds) < TURN_SECONDS / 2:
        begun = time.perf_counter()
        session.predict(images)
        seconds.append(time.perf_counter() - begun)
    return seconds


def _joined(parts: list[Prediction]) -> Prediction:
    return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])


def _load_cpu(model: bytes) -> Loaded:
    return _load_onnxruntime(model, "CPUExecutionProvider")


def _load_exact(model: bytes) -> Loaded:
    return _load_onnxruntime(
        model, "CPUExecutionProvider", onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    )


def _load_cuda(model: bytes) -> Loaded:
    onnxruntime.preload_dlls()  # CUDA's libraries from the wheels that torch brings along
    return _load_onnxruntime(model, "CUDAExecutionProvider")


def _load_onnxruntime(
    model: bytes,
    provider: str,
    optimization: Any = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
    chunk: int | None = None,
) -> Loaded:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads()
    options.graph_optimization_level = optimization
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model, options, providers=[provider])
    if provider not in session.get_providers():  # it falls back to the CPU without an error
        raise RuntimeError(f"{provider} does not start on this machine")

    def run(images: Pixels) -> Prediction:
        step = chunk or CHUNK
        parts = [images[start : start + step] for start in range(0, max(1, len(images)), step)]
        return _joined([session.run(["probabilities", "label"], {"images": part}) for part in parts])

    height, width, channels = (
        size if isinstance(size, int) else None for size in session.get_inputs()[0].shape[1:]
    )
    facts = session.get_modelmeta().custom_metadata_map
    return Loaded(run, (height, width, channels), facts=facts)


def _load_openvino(model: bytes) -> Loaded:
    """What is float in the file is computed in bfloat16 where the processor has it."""
    loaded = OpenVINO(model, threads())
    return Loaded(loaded.run, loaded.shape, loaded)


def _load_openvino_f32(model: bytes) -> Loaded:
    """What is float in the file stays so: a little slower, and nearer to the reference."""
    loaded = OpenVINO(model, threads(), {"INFERENCE_PRECISION_HINT": "f32"})
    return Loaded(loaded.run, loaded.shape, loaded)


LOADERS: Final[Mapping[Runtime, Callable[[bytes], Loaded]]] = {
    "onnxruntime": _load_cpu,
    EXACT: _load_exact,
    "onnxruntime-cuda": _load_cuda,
    "openvino": _load_openvino,
    "openvino-f32": _load_openvino_f32,
}
