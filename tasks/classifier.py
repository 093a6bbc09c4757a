"""Predicts images with one model, in the fastest runtime where there are many."""

import contextlib
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Final

from tasks import machine, runtime, storage
from tasks.config import digest_of
from tasks.errors import InputError, OutageError
from tasks.model_file import ModelFile
from tasks.runtime import Pixels, Prediction, Session

BATCH: Final = 64  # images per call of the model
LOOK: Final = 16  # of them are timed in each runtime
MANY: Final = 512  # images from which looking for the fastest runtime repays itself


class Classifier:
    """A model that is loaded. `session` is the runtime it is in, the reference until the first images came.

    Which runtime is the fastest is kept on the local disk, in NIGHTSHIFT_CACHE: to find it takes seconds,
    which every message of a large batch would pay again.
    """

    def __init__(self, model: ModelFile, *, images: int) -> None:
        """`images` are expected. Raises InputError when ONNX Runtime refuses the file."""
        self.model = model
        self._choose = images >= MANY
        known = self._found_before() if self._choose else None
        self.session = known or Session(model.data)
        self._choose = self._choose and known is None

    def predict(self, pixels: Pixels) -> Prediction:
        """Probabilities float32 [N,K] and labels int64 [N] of uint8 [N,H,W,C]."""
        if self._choose:
            self._choose = False
            self.session = self._fastest(pixels)
        return self.session.predict(pixels)

    def _fastest(self, pixels: Pixels) -> Session:
        """The runtime for many images, as the first of them tell; said on stderr with how far it agrees."""
        choice = runtime.fastest(self.model.data, pixels, batch=LOOK)
        for sentence in choice.passed_over:
            print(sentence, file=sys.stderr)
        print(
            f"{choice.session.runtime} is the fastest runtime here, with {choice.agreement:.2%} of the first "
            f"{len(pixels)} labels those of onnxruntime",
            file=sys.stderr,
        )
        with contextlib.suppress(OutageError):  # a full disk costs the next one a few seconds
            storage.write(self._note(), json.dumps({"runtime": choice.session.runtime}).encode())
        return choice.session

    def _found_before(self) -> Session | None:
        """The session that was found for this file, on this machine with these versions."""
        try:
            name = storage.read_json(self._note())["runtime"]
            session = Session(self.model.data, name)
        except (InputError, OSError, ValueError, KeyError, TypeError):  # nothing there, or nothing that helps
            return None
        print(f"{name} was the fastest runtime here for this model", file=sys.stderr)
        return session

    def _note(self) -> str:
        """Where it is kept."""
        folder = os.environ.get("NIGHTSHIFT_CACHE") or Path(
            tempfile.gettempdir(), f"nightshift-{os.getuid()}"
        )
        key = digest_of([self.model.sha256, machine.describe().model_dump(mode="json")])
        return f"file://{Path(folder).absolute()}/runtimes/{key}.json"
