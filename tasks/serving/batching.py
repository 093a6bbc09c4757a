"""Images on their way through the model: decoded by a few threads, predicted together by one.

Images that arrive together become one call of the model: it takes whatever waits when it is free, and waits
for nothing else. An image is prepared and predicted by the same model, also while another takes over.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import NamedTuple

import cv2
import numpy as np

from tasks import runtime
from tasks.images import Unreadable, prepare
from tasks.runtime import Pixels
from tasks.serving.events import say
from tasks.serving.meters import Meters
from tasks.serving.recent import Recent
from tasks.serving.served import Options, Served


class FullError(Exception):
    """There is no room for more images now."""


class StoppingError(Exception):
    """No more images are taken."""


class FailedError(Exception):
    """The model could not compute what it was given."""


class Row(NamedTuple):
    """What the model says of one image: probabilities float32 [K] and the label's index."""

    probabilities: "np.ndarray[tuple[int], np.dtype[np.float32]]"
    label: int


class Waiting(NamedTuple):
    """One prepared image, and where its answer is awaited."""

    served: Served
    pixels: Pixels
    answer: "asyncio.Future[Row]"


class Line:
    """The way from an image file to what the model says of it. Its methods are for one thread, the loop's."""

    def __init__(self, options: Options, meters: Meters, recent: Recent) -> None:
        self.stopping = False
        self._options, self._meters, self._recent = options, meters, recent
        self._inside = 0  # images that were let in and are not answered yet
        self._ready: deque[Waiting] = deque()
        self._change = threading.Condition()
        self._end = False
        self._model = threading.Thread(target=self._run, name="model")
        meters.waiting.set_function(lambda: self._inside)

    def start(self) -> None:
        """Begin to work for the event loop that runs."""
        cv2.setNumThreads(1)  # images are decoded side by side instead
        self._loop = asyncio.get_running_loop()
        self._decoders = ThreadPoolExecutor(runtime.threads(), thread_name_prefix="decoder")
        self._model.start()

    def stop(self) -> None:
        """Finish what is inside and take no more."""
        self.stopping = True
        self._decoders.shutdown()
        with self._change:
            self._end = True
            self._change.notify()
        self._model.join()

    @contextmanager
    def room(self, images: int) -> Iterator[None]:
        """Room for so many images; raises FullError, and StoppingError at the end."""
        if self.stopping:
            raise StoppingError
        if self._inside + images > self._options.queue:
            raise FullError
        self._inside += images
        try:
            yield
        finally:
            self._inside -= images

    def ask(self, served: Served, data: bytes) -> "asyncio.Future[Row]":
        """What `served` will say of an image file; Unreadable or FailedError when it says nothing."""
        answer = self._loop.create_future()
        self._decoders.submit(self._decode, served, data, answer)
        return answer

    def _decode(self, served: Served, data: bytes, answer: "asyncio.Future[Row]") -> None:
        try:
            pixels = prepare(data, served.settings)
        except Unreadable as refusal:
            self._loop.call_soon_threadsafe(_fail, [answer], refusal)
        except Exception as error:  # what nobody foresaw costs one image too
            self._loop.call_soon_threadsafe(_fail, [answer], Unreadable("crashed", f"{error!r:.200}"))
        else:
            with self._change:
                self._ready.append(Waiting(served, pixels, answer))
                self._change.notify()

    def _run(self) -> None:
        """The one thread that calls the model."""
        while batch := self._take():
            self._compute(batch)

    def _take(self) -> list[Waiting]:
        """What waits for the model of the first one, at most a batch; nothing at the end."""
        with self._change:
            self._change.wait_for(lambda: self._ready or self._end)
            batch = [self._ready.popleft()] if self._ready else []
            while self._ready and len(batch) < self._options.max_batch:
                if self._ready[0].served is not batch[0].served:
                    break
                batch.append(self._ready.popleft())
            return batch

    def _compute(self, batch: list[Waiting]) -> None:
        served, answers = batch[0].served, [image.answer for image in batch]
        try:
            probabilities, labels = served.session.predict(np.stack([image.pixels for image in batch]))
        except Exception as error:  # the runtimes raise kinds that are not public
            say("prediction_failed", version=served.model.version, images=len(batch), error=repr(error)[:300])
            self._loop.call_soon_threadsafe(_fail, answers, FailedError("the model failed"))
            return
        rows = [Row(row, int(label)) for row, label in zip(probabilities, labels, strict=True)]
        self._loop.call_soon_threadsafe(_answer, answers, rows)
        self._meters.batches.observe(len(batch))
        self._meters.images.inc(len(batch))
        self._recent.add(served.settings, [image.pixels for image in batch])


def _answer(answers: "list[asyncio.Future[Row]]", rows: list[Row]) -> None:
    for answer, row in zip(answers, rows, strict=True):
        if not answer.done():
            answer.set_result(row)


def _fail(answers: "list[asyncio.Future[Row]]", error: Exception) -> None:
    for answer in answers:
        if not answer.done():
            answer.set_exception(error)
