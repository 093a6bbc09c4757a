"""A model in another program: labels and probabilities of image files and arrays, pixels as in training."""

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nightshift.data.formats import UnreadableError
from nightshift.data.images import prepare
from nightshift.errors import InputError
from nightshift.inference import model_file as model_file
from nightshift.inference.classifier import BATCH, Classifier
from nightshift.inference.model_file import ModelFile

Image = str | os.PathLike[str] | bytes | NDArray[np.uint8] | NDArray[np.uint16]


class Prediction(NamedTuple):
    """Class of one image, how probable it is, and probabilities float32 [K] in the order of `classes`."""

    label: str
    probability: float
    probabilities: NDArray[np.float32]


class Model:
    """Loaded model, in a runtime that gives the labels of the file's exact arithmetic."""

    def __init__(self, file: ModelFile) -> None:
        self.file = file
        self.classes: tuple[str, ...] = file.classes
        self.version: str = file.version
        self.sha256: str = file.sha256
        self._classifier = Classifier(file, images=1)

    def predict(self, images: Image | Sequence[Image]) -> list[Prediction]:
        """One prediction for each image, in order.

        An image is the path of a file, its bytes, or an array uint8 or uint16 [H,W] or [H,W,C] of any size;
        an array [N,H,W,C] is N images. Raises InputError at the first that cannot be read.
        """
        return [each for part in _parts(_listed(images)) for each in self._predict(part)]

    def _predict(self, part: Sequence[tuple[str, Image]]) -> list[Prediction]:
        pixels = np.stack([self._prepared(name, image) for name, image in part])
        probabilities, labels = self._classifier.predict(pixels)
        return [
            Prediction(self.classes[label], float(shares.max()), shares)
            for shares, label in zip(probabilities, labels, strict=True)
        ]

    def _prepared(self, name: str, image: Image) -> NDArray[np.uint8]:
        try:
            return prepare(_bytes(image), self.file.preprocess)
        except OSError as error:
            raise InputError(
                f"{name} cannot be read ({error.strerror}); give the path of an image"
            ) from error
        except UnreadableError as error:
            raise InputError(f"{name} cannot be read ({error.reason}): {error.detail}") from error


def _listed(images: Image | Sequence[Image]) -> list[tuple[str, Image]]:
    """Each image with what an error calls it."""
    several: Sequence[Image]
    if isinstance(images, np.ndarray):
        several = [images] if images.ndim < 4 else list(images)
    else:
        several = [images] if isinstance(images, (str, os.PathLike, bytes)) else images
    return [
        (str(image) if isinstance(image, (str, os.PathLike)) else f"image {place}", image)
        for place, image in enumerate(several)
    ]


def _parts(images: list[tuple[str, Image]]) -> list[list[tuple[str, Image]]]:
    return [images[start : start + BATCH] for start in range(0, len(images), BATCH)]


def _bytes(image: Image) -> bytes:
    """An image as a file: an array as .npy, which has the same rules as one that is ingested."""
    if isinstance(image, bytes):
        return image
    if isinstance(image, np.ndarray):
        file = io.BytesIO()
        np.save(file, np.ascontiguousarray(image), allow_pickle=False)
        return file.getvalue()
    return Path(image).expanduser().read_bytes()
