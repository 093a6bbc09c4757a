"""Who is judged on the test split, and what they predict there: candidates of the night and champions."""

import json
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from tasks import runtime, storage
from tasks.calibration import calibration_images
from tasks.config import PreprocessSettings
from tasks.dataset import stratified
from tasks.errors import InputError
from tasks.records import Candidate, Dataset, Unmade
from tasks.runtime import Pixels

if TYPE_CHECKING:
    from tasks.registry import Champions, Registered

Labels = NDArray[np.int64]
DOWNLOADS: Final = 8  # original images fetched at a time for a champion with other preprocess settings
CALIBRATION: Final = 1024  # images that show a model at its usual work while it is timed


class Contender(NamedTuple):
    """One model on the test split: `known` marks the images of classes it knows, `predicted` are indices into
    the classes of the data set (-1: a class that the data set lacks), for all images. One that takes other
    pixels than the data set's has some of them to be timed on, uint8 [n,H,W,C]."""

    model: bytes
    sha256: str
    predicted: Labels
    known: NDArray[np.bool_]
    pixels: Pixels | None = None


def made(outcomes: Iterable[Candidate | Unmade]) -> tuple[dict[str, Candidate], dict[str, str]]:
    """The candidates by name, and by name one sentence for each that could not be made."""
    found, missing = {}, {}
    for each in outcomes:
        if isinstance(each, Unmade):
            missing[each.name] = f"{each.name} was not made: {each.reason}"
        else:
            found[each.name] = each
    return found, missing


def champions(name: str) -> "Champions | None":
    """What is promoted at present, or nothing when this machine has no MLflow to ask."""
    if not os.environ.get("MLFLOW_TRACKING_URI"):
        return None
    from tasks import registry  # imports mlflow, which takes seconds

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


def of_candidate(model: bytes, candidate: Candidate, images: Pixels) -> Contender:
    """A candidate on the test images."""
    _, predicted = runtime.Session(model).predict(images)
    return Contender(model, candidate.model.sha256, predicted, np.ones(len(images), dtype=bool))


def of_registered(registered: "Registered", dataset: Dataset, images: Pixels, labels: Labels) -> Contender:
    """A champion on the test images, through its own preprocess settings, labels compared by class name.

    One that takes other channels than the images have knows none of them.
    """
    if not registered.preprocess.reads(dataset.preprocess):
        nothing = np.zeros(len(images), np.int64)
        return Contender(registered.model, registered.sha256, nothing, nothing.astype(np.bool_))
    own = None
    if not registered.preprocess.same_pixels(dataset.preprocess):
        # What may be too large to read is the data set's to say.
        settings = dataset.preprocess.model_copy(update=registered.preprocess.pixel_settings())
        own = _originals(dataset, settings)
    _, predicted = runtime.Session(registered.model).predict(images if own is None else own)
    index = {name: number for number, name in enumerate(dataset.classes)}
    translated = np.array([index.get(name, -1) for name in registered.classes], dtype=np.int64)
    known = np.isin(labels, translated)
    some = None if own is None else own[stratified(torch.from_numpy(labels), CALIBRATION, 0)]
    return Contender(registered.model, registered.sha256, translated[predicted], known, some)


def _originals(dataset: Dataset, settings: PreprocessSettings) -> Pixels:
    """The test images read again from the source and prepared with other settings, in shard order."""
    from tasks import images  # imports OpenCV, which most nights don't need here

    keys: list[str] = []
    for shard in dataset.shards:
        if shard.split == "test":
            named = _keys(storage.read_artifact(shard.file), shard.file.uri, shard.images)
            dropped = set(shard.drop)
            keys += [key for row, key in enumerate(named) if row not in dropped]

    def prepared(key: str) -> Pixels:
        return images.prepare(storage.read(storage.join(dataset.source, key)), settings)

    with ThreadPoolExecutor(DOWNLOADS) as pool:
        return np.stack(list(pool.map(prepared, keys)))


def _keys(shard: bytes, uri: str, count: int) -> list[str]:
    """`batch/key` of each row, from the metadata in the header of a safetensors file."""
    length = int.from_bytes(shard[:8], "little")
    facts = json.loads(shard[8 : 8 + length]).get("__metadata__", {})
    keys: list[str] = json.loads(facts.get("keys", "[]"))
    if len(keys) != count:
        raise InputError(f"shard {uri} names {len(keys)} originals for {count} images; preprocess it again")
    return keys
