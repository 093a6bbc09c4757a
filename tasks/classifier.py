"""Predicts images with one model, in the fastest runtime where there are many."""

import sys
from typing import Final

from tasks import runtime
from tasks.model_file import ModelFile
from tasks.runtime import Pixels, Prediction, Session

BATCH: Final = 64  # images per call of the model
LOOK: Final = 16  # of them are timed in each runtime
MANY: Final = 512  # images from which looking for the fastest runtime repays itself


class Classifier:
    """A model that is loaded. `session` is the runtime it is in, the reference until the first images
    came."""

    def __init__(self, model: ModelFile, *, images: int) -> None:
        """`images` are expected. Raises InputError when ONNX Runtime refuses the file."""
        self.model = model
        self.session = Session(model.data)
        self._choose = images >= MANY

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
        return choice.session
