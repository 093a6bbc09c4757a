"""Predicts images with one model, in a runtime that gives the labels of the file's exact arithmetic."""

import contextlib
import json
import sys
from typing import Final

from nightshift import storage
from nightshift.config import digest_of
from nightshift.errors import InputError, OutageError
from nightshift.inference import hardware, runtime
from nightshift.inference.model_file import ModelFile
from nightshift.inference.runtime import Pixels, Prediction, Runtime, Session
from nightshift.storage import cache

BATCH: Final = 64  # images per call of the model
LOOK: Final = 16  # of them are timed in each runtime
MANY: Final = 512  # images from which looking for the fastest runtime repays itself


class Classifier:
    """A model in the runtime that the first images decide on: the fastest for many, ONNX Runtime for few.

    Whatever it is gives the labels of the file's exact arithmetic. What was found with BATCH images or more
    is kept on the local disk, in NIGHTSHIFT_CACHE, by the file's digest and the machine: to find it takes
    seconds, which every message of a large batch would pay again.
    """

    def __init__(self, model: ModelFile, *, images: int) -> None:
        """`images` are expected."""
        self.model = model
        self._many = images >= MANY
        if model.warning:
            print(model.warning, file=sys.stderr)
        self._session = self._found_before()

    @property
    def runtime(self) -> Runtime:
        """The one it predicts in; before the first images, one that is right whatever they are."""
        return self._session.runtime if self._session else self.model.runtime

    def predict(self, pixels: Pixels) -> Prediction:
        """Probabilities float32 [N,K] and labels int64 [N] of uint8 [N,H,W,C].

        Raises InputError when ONNX Runtime refuses the file.
        """
        if self._session is None:
            self._session = self._chosen(pixels)
        return self._session.predict(pixels)

    def _chosen(self, pixels: Pixels) -> Session:
        """The runtime that the first images decide on; said on stderr where it is not the usual one."""
        data = self.model.data
        choice = runtime.fastest(data, pixels, batch=LOOK) if self._many else runtime.reference(data, pixels)
        name = choice.session.runtime
        for sentence in choice.rejected:
            print(sentence, file=sys.stderr)
        if self._many:
            print(
                f"{name} is the fastest runtime here, with {choice.agreement:.2%} of the first "
                f"{min(len(pixels), runtime.SAMPLE)} labels those of exact arithmetic",
                file=sys.stderr,
            )
        if len(pixels) >= BATCH:
            with contextlib.suppress(OutageError):  # a full disk costs the next one a few seconds
                storage.write(self._note(), json.dumps({"runtime": name}).encode())
        return choice.session

    def _found_before(self) -> Session | None:
        """The session that was found for this file, on this machine with these versions."""
        try:
            name = storage.read_json(self._note())["runtime"]
            session = Session(self.model.data, name)
        except (InputError, OSError, ValueError, KeyError, TypeError):  # nothing there, or nothing that helps
            return None
        if self._many:
            print(f"{name} was the fastest runtime here for this model", file=sys.stderr)
        return session

    def _note(self) -> str:
        """Where it is kept."""
        key = digest_of([self.model.sha256, self._many, hardware.describe().model_dump(mode="json")])
        return f"file://{cache.folder()}/runtimes/{key}.json"
