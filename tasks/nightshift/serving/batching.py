"""Images on their way through the model: decoded by a few processes, predicted together.

Images that arrive together become one call of the model: it takes whatever waits when it is free, and waits
for nothing else. A runtime with several lanes computes as many calls side by side, so that no core waits for
the end of another's; one image alone has all of them. An image is prepared and predicted by the same model,
also while another takes over.
"""

import asyncio
import itertools
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

import numpy as np

from nightshift.errors import StageError
from nightshift.hardware.processor import threads
from nightshift.inference.runtime import Pixels
from nightshift.serving.decoding import Decoding, File
from nightshift.serving.events import say
from nightshift.serving.loaded_model import LoadedModel, Options
from nightshift.serving.metrics import Metrics
from nightshift.serving.recent_images import RecentImages


class QueueFullError(Exception):
    """There is no room for more images now."""


class ShuttingDownError(Exception):
    """No more images are taken."""


class FailedError(Exception):
    """The model could not compute what it was given."""


class Row(NamedTuple):
    """What the model says of one image: probabilities float32 [K] and the label's index."""

    probabilities: "np.ndarray[tuple[int], np.dtype[np.float32]]"
    label: int


class PendingImage(NamedTuple):
    """One prepared image, and where its answer is awaited."""

    served: LoadedModel
    pixels: Pixels
    answer: "asyncio.Future[Row]"


class Batch(NamedTuple):
    """Images that a model computes at once, by `all_threads` or by one stream's."""

    served: LoadedModel
    images: list[PendingImage]
    all_threads: bool
    waiting: int  # images that came together, these among them


class Batcher:
    """Dynamic batching, from an image file to its answer. Its methods are for one thread, the loop's."""

    def __init__(self, options: Options, metrics: Metrics, recent: RecentImages) -> None:
        self.stopping = False
        self._options, self._metrics, self._recent = options, metrics, recent
        self._inside = 0  # images that were let in and are not answered yet
        self._bytes = 0  # of their requests' bodies
        self._decoding = Decoding(threads())
        self._ready: deque[PendingImage] = deque()
        self._change = threading.Condition()
        self._end = False
        self._computing = 0  # calls of a model
        self._lanes = [threading.Thread(target=self._run, name=f"model-{n}") for n in range(threads())]
        metrics.waiting.set_function(lambda: self._inside)
        metrics.ready.set_function(lambda: len(self._ready))

    def start(self) -> None:
        """Begin to work for the event loop that runs."""
        self._loop = asyncio.get_running_loop()
        self._decoding.start()
        for lane in self._lanes:
            lane.start()

    def stop(self) -> None:
        """Finish what is inside and take no more."""
        self.stopping = True
        self._decoding.stop()
        with self._change:
            self._end = True
            self._change.notify_all()
        for lane in self._lanes:
            lane.join()

    @contextmanager
    def admit(self, images: int) -> Iterator[Callable[[int], None]]:
        """Room for so many images, and what is called for each piece of their bytes, in bytes.

        Both raise FullError; to begin with also StoppingError at the end.
        """
        if self.stopping:
            raise ShuttingDownError
        if self._inside + images > self._options.queue:
            raise QueueFullError
        self._inside += images
        held = 0

        def take(size: int) -> None:
            nonlocal held
            if self._bytes + size > self._options.queue_bytes:
                raise QueueFullError
            self._bytes += size
            held += size

        try:
            yield take
        finally:
            self._inside -= images
            self._bytes -= held

    def ask(self, served: LoadedModel, data: bytes) -> "asyncio.Future[Row]":
        """What `served` will say of an image file; Unreadable or FailedError when it says nothing."""
        answer = self._loop.create_future()
        self._decoding.submit(File(data, served.settings, partial(self._decoded, served, answer)))
        return answer

    def _decoded(self, served: LoadedModel, answer: "asyncio.Future[Row]", found: Pixels | Exception) -> None:
        if isinstance(found, StageError):
            found = FailedError("the decoders failed")
        if isinstance(found, Exception):
            self._loop.call_soon_threadsafe(_fail, [answer], found)
            return
        with self._change:
            self._ready.append(PendingImage(served, found, answer))
            self._change.notify()

    def _run(self) -> None:
        """One lane: a call of the model after the other."""
        while call := self._take():
            try:
                self._compute(call)
            finally:
                with self._change:
                    self._computing -= 1
                    self._change.notify()

    def _take(self) -> Batch | None:
        """What waits for the model of the first one, as much as a lane takes; nothing at the end."""
        with self._change:
            self._change.wait_for(lambda: self._has_lane() if self._ready else self._end)
            if not self._ready:
                return None
            served = self._ready[0].served
            together = itertools.takewhile(lambda image: image.served is served, self._ready)
            waiting = len(list(itertools.islice(together, self._options.max_batch)))
            whole = waiting == 1 and not self._computing
            size = 1 if whole else served.session.lane_size(waiting // served.session.lanes)
            self._computing += 1
            return Batch(served, [self._ready.popleft() for _ in range(size)], whole, waiting)

    def _has_lane(self) -> bool:
        return self._computing < self._ready[0].served.session.lanes

    def _compute(self, batch: Batch) -> None:
        served, answers = batch.served, [image.answer for image in batch.images]
        session = served.session
        try:
            pixels = np.stack([image.pixels for image in batch.images])
            probabilities, labels = (session.predict if batch.all_threads else session.share)(pixels)
        except Exception as error:  # the runtimes raise kinds that are not public
            found = {"images": len(answers), "error": repr(error)[:300]}
            say("prediction_failed", version=served.model.version, **found)
            self._loop.call_soon_threadsafe(_fail, answers, FailedError("the model failed"))
            return
        rows = [Row(row, int(label)) for row, label in zip(probabilities, labels, strict=True)]
        self._metrics.batches.observe(len(answers))  # first, so that who has an answer finds it counted
        self._metrics.images.inc(len(answers))
        self._loop.call_soon_threadsafe(_answer, answers, rows)
        self._recent.add(served.settings, [image.pixels for image in batch.images], batch.waiting)


def _answer(answers: "list[asyncio.Future[Row]]", rows: list[Row]) -> None:
    for answer, row in zip(answers, rows, strict=True):
        if not answer.done():
            answer.set_result(row)


def _fail(answers: "list[asyncio.Future[Row]]", error: Exception) -> None:
    for answer in answers:
        if not answer.done():
            answer.set_exception(error)
