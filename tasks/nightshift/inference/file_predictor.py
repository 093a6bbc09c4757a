"""What a model says of files from anywhere: each is read, decoded, predicted, and answered in order."""

import hashlib
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nightshift.config import PreprocessSettings
from nightshift.data.decoding.pool import DecoderPool
from nightshift.data.formats import UnreadableError
from nightshift.data.images import prepare
from nightshift.data.sources.batch import Item
from nightshift.data.sources.upload import in_order
from nightshift.data.transforms import Pixels
from nightshift.errors import InputError
from nightshift.inference import classifier
from nightshift.inference.classifier import Classifier
from nightshift.inference.embeddings import Embedder
from nightshift.inference.model_file import ModelFile
from nightshift.inference.prediction_table import table

POOLED: Final = 64  # files from which processes that only decode repay their start


class Read(NamedTuple):
    key: str
    sha256: str
    data: bytes
    why: UnreadableError | None = None  # it could not be read


class Answer(NamedTuple):
    """Of one file: probabilities float32 [K], the label's place among the classes, or why not."""

    key: str
    probabilities: NDArray[np.float32] | None
    label: int
    why: UnreadableError | None = None


class Answered(NamedTuple):
    """Some files that follow each other, and a table of those that could be read."""

    answers: list[Answer]
    rows: pa.Table | None


class Answerer:
    """Answers with one model; with `embed` in ONNX Runtime, and its tables hold embeddings too."""

    def __init__(self, model: ModelFile, *, images: int, embed: bool, processes: int) -> None:
        self.model = model
        self._images, self._processes = images, processes
        self._classifier = None if embed else Classifier(model, images=images)
        self._embedder = Embedder(model.data, model.uri, model.runtime) if embed else None
        if embed and model.warning:
            print(model.warning, file=sys.stderr)

    def answers(self, items: Sequence[Item]) -> Iterator[Answered]:
        """Answers in the order of the items."""
        waiting: list[tuple[Read, Pixels | UnreadableError]] = []
        for pair in self._decoded(in_order(_read, items)):
            waiting.append(pair)
            if len(waiting) == classifier.BATCH:
                yield self._answered(waiting)
                waiting = []
        if waiting:
            yield self._answered(waiting)

    def _answered(self, pairs: Sequence[tuple[Read, Pixels | UnreadableError]]) -> Answered:
        good = [(read, seen) for read, seen in pairs if not isinstance(seen, UnreadableError)]
        rows, given = None, iter(list[tuple[Any, Any]]())
        if good:
            pixels, embeddings = np.stack([seen for _, seen in good]), None
            if self._embedder:
                probabilities, labels, embeddings = self._embedder.embed(pixels)
                runtime: str = self.model.runtime
            elif self._classifier:
                probabilities, labels = self._classifier.predict(pixels)
                runtime = self._classifier.runtime
            files = [(read.key, read.sha256) for read, _ in good]
            rows = table(self.model, runtime, files, probabilities, labels, embeddings)
            given = iter(list(zip(probabilities, labels, strict=True)))
        answers = []
        for read, seen in pairs:
            if isinstance(seen, UnreadableError):
                answers.append(Answer(read.key, None, -1, seen))
            else:
                shares, label = next(given)
                answers.append(Answer(read.key, shares, int(label)))
        return Answered(answers, rows)

    def _decoded(self, files: Iterable[Read]) -> Iterator[tuple[Read, Pixels | UnreadableError]]:
        """Each file with its pixels; many are decoded by processes of their own, which may crash or hang."""
        if self._images < POOLED:
            for read in files:
                yield read, read.why or _prepared(read.data, self.model.preprocess)
            return
        with ExitStack() as opened:
            pool = opened.enter_context(
                DecoderPool(prepare, self.model.preprocess, processes=self._processes)
            )
            sent: deque[Read] = deque()

            def contents() -> Iterator[bytes]:
                for read in files:
                    sent.append(read)
                    yield read.data

            for seen in pool.map(contents()):
                read = sent.popleft()
                yield read, read.why or seen


def _read(item: Item) -> Read:
    try:
        data = item.read()
    except InputError as error:
        return Read(item.key, "", b"", UnreadableError("unreadable-file", str(error)))
    return Read(item.key, hashlib.sha256(data).hexdigest(), data)


def _prepared(data: bytes, settings: PreprocessSettings) -> Pixels | UnreadableError:
    try:
        return prepare(data, settings)
    except UnreadableError as error:
        return error
