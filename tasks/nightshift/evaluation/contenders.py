"""Who is judged on the test split, and what they predict there: candidates of the night and champions."""

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nightshift import storage
from nightshift.config import PreprocessSettings
from nightshift.data.dataset import originals, room_for
from nightshift.data.sources.upload import in_order
from nightshift.inference import runtime
from nightshift.inference.runtime import Pixels, Runtime
from nightshift.quantization.calibration import calibration_images
from nightshift.records import Candidate, Dataset, FailedCandidate

if TYPE_CHECKING:
    from nightshift.tracking.registry import Champions, Registered

Labels = NDArray[np.int64]
Shares = NDArray[np.float32]
DOWNLOADS: Final = 8  # original images fetched at a time for a champion with other preprocess settings
CALIBRATION: Final = 1024  # images that show a model at its usual work while it is timed


class Entrant(NamedTuple):
    """One model and the N test images as it takes them; it has not answered yet."""

    model: bytes
    sha256: str
    pixels: Pixels  # uint8 [N,H,W,C]
    places: Labels  # its own classes as classes of the data set, -1 where that has no such class
    known: NDArray[np.bool_]  # [N], whether it knows the image's class


class Contender(NamedTuple):
    """One model on the N test images, answering in the K classes of the data set, whatever its own are."""

    model: bytes
    sha256: str
    pixels: Pixels  # as those of Entrant, and so are places and known
    places: Labels
    known: NDArray[np.bool_]
    runtime: Runtime  # that gave the answers, and gives others
    probabilities: Shares  # float32 [N,K]; what it gives to classes that the data set lacks is left out
    predicted: Labels  # [N], -1 for a class that the data set lacks


def made(outcomes: Iterable[Candidate | FailedCandidate]) -> tuple[dict[str, Candidate], dict[str, str]]:
    """The candidates by name, and by name one sentence for each that could not be made."""
    found, missing = {}, {}
    for each in outcomes:
        if isinstance(each, FailedCandidate):
            missing[each.name] = f"{each.name} was not made: {each.reason}"
        else:
            found[each.name] = each
    return found, missing


def champions(name: str) -> "Champions | None":
    """What is promoted at present, or nothing when this machine has no MLflow to ask."""
    if not os.environ.get("MLFLOW_TRACKING_URI"):
        return None
    from nightshift.tracking import registry  # imports mlflow, which takes seconds

    return registry.champions(name)


def distinct(found: "Champions | None") -> "dict[str, Registered]":
    """The present champion and, when it is another version, the best one so far."""
    if found is None or found.current is None:
        return {}
    best = found.best or found.current
    return {"champion": found.current} | ({} if best.version == found.current.version else {"best": best})


def calibration(dataset: Dataset, seed: int) -> Pixels:
    """Training images as the network sees them, spread over the classes, uint8 [N,H,W,C]."""
    return calibration_images(dataset, CALIBRATION, seed).images.contiguous().numpy()


def of_candidate(model: bytes, candidate: Candidate, images: Pixels, classes: int) -> Entrant:
    """A candidate for the test images."""
    index, known = np.arange(classes), np.ones(len(images), dtype=bool)
    return Entrant(model, candidate.model.sha256, images, index, known)


def of_registered(registered: "Registered", dataset: Dataset, images: Pixels, labels: Labels) -> Entrant:
    """A champion for the test images, through its own preprocess settings, labels compared by class name.

    One that takes other channels than the images have knows none of them.
    """
    names = {name: number for number, name in enumerate(dataset.classes)}
    index = np.array([names.get(name, -1) for name in registered.classes], dtype=np.int64)
    model, sha256 = registered.model, registered.sha256
    if not registered.preprocess.reads(dataset.preprocess):
        return Entrant(model, sha256, images, index, np.zeros(len(images), bool))
    if not registered.preprocess.same_pixels(dataset.preprocess):
        # What may be too large to read is the data set's to say.
        settings = dataset.preprocess.model_copy(update=registered.preprocess.pixel_settings())
        images = _originals(dataset, settings)
    return Entrant(model, sha256, images, index, np.isin(labels, index))


def answered(entrant: Entrant, chosen: Runtime, classes: int) -> Contender:
    """The answers of a model, in a runtime that gives the labels of its file's exact arithmetic."""
    own, predicted = runtime.Session(entrant.model, chosen).predict(entrant.pixels)
    there = entrant.places >= 0
    probabilities = np.zeros((len(entrant.pixels), classes), np.float32)
    probabilities[:, entrant.places[there]] = own[:, there]
    return Contender(*entrant, chosen, probabilities, entrant.places[predicted])


def _originals(dataset: Dataset, settings: PreprocessSettings) -> Pixels:
    """The test images read again from the source and prepared with other settings, in shard order."""
    from nightshift.data import images  # imports OpenCV, which most nights don't need here

    keys = originals(dataset, "test")

    def prepared(key: str) -> Pixels:
        return images.prepare(storage.read(storage.join(dataset.source, key)), settings)

    side = settings.image_size
    pixels = room_for((len(keys), side, side, settings.channels)).numpy()
    for row, image in enumerate(in_order(prepared, keys, DOWNLOADS)):
        pixels[row] = image
    return pixels
