"""OpenVINO's side of `runtime`: one image by all threads together, many by streams side by side.

Every size of a piece is a compiled model of fixed shapes, made when it is first asked for: an int8 ResNet-18
runs up to a third faster so than with a batch of any size.
"""

import queue
import threading
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from nightshift.inference.runtime import Pixels, Prediction, Shape

PIECES: Final = (1, 4, 16, 64)  # images that a stream computes at once; more gain nothing
PIECE_PIXELS: Final = 64 * 64 * 64  # in such a piece: of larger images fewer suffice, and memory counts


class Request(NamedTuple):
    """One computation at a time, and the memory of what goes in and comes out.

    Images are copied in and results out: handing over arrays instead takes a fifth of the time of a small
    model.
    """

    request: Any
    images: "Pixels"
    probabilities: "np.ndarray[tuple[int, int], np.dtype[np.float32]]"
    labels: "np.ndarray[tuple[int], np.dtype[np.int64]]"

    @classmethod
    def of(cls, request: Any) -> "Request":
        return cls(request, *(request.get_tensor(name).data for name in ("images", "probabilities", "label")))

    def infer(self, images: "Pixels") -> "Prediction":
        """What is left in the memory of an earlier, larger piece does no harm."""
        count = len(images)
        self.images[:count] = images
        self.request.infer()
        return self.probabilities[:count].copy(), self.labels[:count].copy()


class OpenVINO:
    """A model in its compiled forms. `run` is for one caller at a time, `share` for one in each lane."""

    def __init__(self, model: bytes, threads: int, settings: dict[str, str] | None = None) -> None:
        import openvino

        self._threads, self._settings = threads, settings or {}
        self._openvino, self._core = openvino, openvino.Core()
        self._network = self._core.read_model(model, b"")
        sizes = list(self._network.input("images").get_partial_shape())[1:]
        height, width, channels = (size.get_length() if size.is_static else None for size in sizes)
        self.shape: Shape = (height, width, channels)
        self._made: dict[tuple[object, ...], Streams] = {}
        self._making = threading.Lock()
        if None not in self.shape:
            self._streams("LATENCY", (1, *self.shape))

    @property
    def lanes(self) -> int:
        """Streams of threads, each of which can compute something else."""
        return 1 if None in self.shape else self._streams("THROUGHPUT", (1, *self.shape)).jobs

    def run(self, images: "Pixels") -> "Prediction":
        if len(images) == 1:
            return self._streams("LATENCY", images.shape).alone(images)
        _, height, width, _ = images.shape
        size = piece_size(len(images) // self._threads, height * width)
        return self._streams("THROUGHPUT", (size, *images.shape[1:])).many(images)

    def share(self, images: "Pixels") -> "Prediction":
        """By one stream, while others compute something else; as many images as `lane_size` says."""
        return self._streams("THROUGHPUT", images.shape).beside(images)

    def lane_size(self, images: int) -> int:
        """How many of so many images one stream takes at once."""
        height, width, _ = self.shape
        return piece_size(images, (height or 1) * (width or 1))

    def _streams(self, hint: str, shape: tuple[int | None, ...]) -> "Streams":
        with self._making:
            if (hint, shape) not in self._made:
                self._network.reshape({"images": list(shape)})
                hints = {"INFERENCE_NUM_THREADS": self._threads, "PERFORMANCE_HINT": hint}
                compiled = self._core.compile_model(self._network, "CPU", {**hints, **self._settings})
                self._made[hint, shape] = Streams(self._openvino, compiled)
            return self._made[hint, shape]


class Streams:
    """The requests of one compiled model."""

    def __init__(self, openvino: Any, compiled: Any) -> None:
        self.jobs = int(compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))
        self._compiled = compiled
        self._queue = openvino.AsyncInferQueue(compiled, self.jobs)
        self._requests = [Request.of(request) for request in self._queue]
        self._spare: queue.SimpleQueue[Request] = queue.SimpleQueue()

    def alone(self, image: "Pixels") -> "Prediction":
        """What one image gives in a model of one, without the queue's own time."""
        return self._requests[0].infer(image)

    def beside(self, images: "Pixels") -> "Prediction":
        """What one piece gives, in the caller's thread, beside other callers."""
        try:
            request = self._spare.get_nowait()
        except queue.Empty:
            request = Request.of(self._compiled.create_infer_request())
        try:
            return request.infer(images)
        finally:
            self._spare.put(request)

    def many(self, images: "Pixels") -> "Prediction":
        size, classes = self._requests[0].probabilities.shape
        probabilities, labels = np.empty((len(images), classes), np.float32), np.empty(len(images), np.int64)
        running: dict[int, int] = {}  # first image of the piece that each request computes

        def keep(number: int) -> None:
            start, request = running.pop(number), self._requests[number]
            count = len(labels[start : start + size])
            probabilities[start : start + count] = request.probabilities[:count]
            labels[start : start + count] = request.labels[:count]

        for start in range(0, len(images), size):
            number = self._queue.get_idle_request_id()  # waits for one
            if number in running:
                keep(number)
            piece = images[start : start + size]
            self._requests[number].images[: len(piece)] = piece
            running[number] = start
            self._queue.start_async()  # that request
        self._queue.wait_all()
        for number in list(running):
            keep(number)
        return probabilities, labels


def piece_size(images: int, pixels: int) -> int:
    """How many of so many images, each of so many pixels, a stream computes at once: no more than pay."""
    wanted = min(images, PIECE_PIXELS // pixels)
    return max(size for size in PIECES if size <= max(1, wanted))
