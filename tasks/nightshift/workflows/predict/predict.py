"""Stage `predict`: the images of one queue message become rows of predictions, a Parquet file for each part.

The same decoding as for training: every file ends as a row or as a refusal with its reason. A part's record
is written after its file: where it exists, the part is done and is not done again.
"""

import time
from collections import deque
from collections.abc import Iterator, Set
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from nightshift import storage
from nightshift.data import drift, quarantine
from nightshift.data.decoding.pool import Decoded, DecoderPool, decode_for_shard
from nightshift.data.formats import UnreadableError
from nightshift.data.index import SCHEMA
from nightshift.data.prefetch import fetch
from nightshift.data.transforms import Pixels, inner
from nightshift.errors import InputError
from nightshift.hardware.processor import threads
from nightshift.inference import classifier, model_file, prediction_table
from nightshift.inference.classifier import Classifier
from nightshift.inference.runtime import Prediction
from nightshift.records import (
    LowConfidence,
    Part,
    PartList,
    PartPredictions,
    Predicted,
    PredictionPlan,
    Refusal,
)
from nightshift.records.specs import PredictSpec
from nightshift.runner.json_logs import one_line
from nightshift.workflows.predict import layout

MEASURED = ["label", "width", "height", "brightness", "contrast", "sharpness"]  # what a profile counts


class Row(NamedTuple):
    key: str
    sha256: str
    facts: dict[str, Any]  # of MEASURED, but for the label


def predict(spec: PredictSpec) -> Predicted:
    """Predict every part of the message that nobody has done yet. Raises InputError for an unfit model."""
    started = time.monotonic()
    forecast = spec.forecast
    parts = storage.read_record(spec.message.parts_uri, PartList).parts
    processes = threads()
    results = []
    if parts:
        model = Classifier(_model(forecast), images=spec.message.images)
        _reopen(forecast, {part.batch for part in parts})
        with DecoderPool(decode_for_shard, forecast.preprocess, processes=processes) as decoders:
            results = [_part(part, forecast, decoders, model) for part in parts]
    images = sum(result.images for result in results)
    refused = sum(len(result.refusals) for result in results)
    seconds = time.monotonic() - started
    print(f"predict: {images} images predicted, {refused} refused, {len(parts)} parts, {seconds:.1f} s")
    return Predicted(parts=len(parts), images=images, refused=refused, seconds=seconds)


def _reopen(forecast: PredictionPlan, names: Set[str]) -> None:
    """Take away what says that an earlier cut of a batch is whole, before other tables lie there."""
    for name in names:
        place = layout.folder(forecast.pipeline.name, forecast.version, name)
        found = layout.done(place)
        if found is not None and found.digest != forecast.batches[name].digest:
            storage.delete(storage.join(place, layout.DONE))


def _model(forecast: PredictionPlan) -> model_file.ModelFile:
    """The version that the work was planned with, its bytes checked."""
    uri = f"models:/{forecast.pipeline.name}/{forecast.version}"
    model = model_file.load(uri)
    if model.sha256 != forecast.sha256:
        raise InputError(
            f"{uri} has SHA-256 {model.sha256}, the run was planned with {forecast.sha256}: start it again"
        )
    if not model.preprocess.same_pixels(forecast.preprocess):
        raise InputError(
            f"{uri} prepares its images otherwise ({model.preprocess.pixel_settings()}) than its tag says "
            f"({forecast.preprocess.pixel_settings()}): do not use it"
        )
    return model


def _part(
    part: Part, forecast: PredictionPlan, decoders: DecoderPool[Decoded], model: Classifier
) -> PartPredictions:
    place = layout.folder(forecast.pipeline.name, forecast.version, part.batch)
    done = layout.marker(place, part.digest)
    if storage.exists(done):
        print(f"batch {one_line(part.batch)}: part {part.digest[:12]} is already done")
        return storage.read_record(done, PartPredictions)
    started, refusals = time.monotonic(), list[Refusal]()
    rows, probabilities, labels = _predicted(part, forecast, decoders, model, refusals)
    runtime, classes = model.runtime, model.model.classes
    files = [(row.key, row.sha256) for row in rows]
    written = prediction_table.encoded(
        prediction_table.table(model.model, runtime, files, probabilities, labels)
    )
    file = storage.write(storage.join(place, f"{part.digest[:16]}.parquet"), written)
    sure = prediction_table.confidences(probabilities, labels)
    result = PartPredictions(
        part=part.digest,
        batch=part.batch,
        file=file,
        images=len(rows),
        refusals=tuple(sorted(refusals, key=lambda refusal: refusal.key)),
        profile=_profile(rows, [classes[label] for label in labels]),
        confidences=tuple(np.histogram(sure, layout.BINS, (0, 1))[0].tolist()),
        unsure=_unsure(rows, [classes[label] for label in labels], sure.tolist(), forecast),
        runtime=runtime,
        seconds=time.monotonic() - started,
    )
    storage.write_record(done, result)
    return result


def _predicted(
    part: Part,
    forecast: PredictionPlan,
    decoders: DecoderPool[Decoded],
    model: Classifier,
    refusals: list[Refusal],
) -> tuple[list[Row], Any, Any]:
    """Rows with their probabilities float32 [N,K] and labels int64 [N]; many images at a time."""
    rows: list[Row] = []
    given: list[Prediction] = [(np.empty((0, len(model.model.classes)), np.float32), np.empty(0, np.int64))]
    waiting: list[Pixels] = []
    for row, pixels in _rows(part, forecast, decoders, refusals):
        rows.append(row)
        waiting.append(pixels)
        if len(waiting) == classifier.BATCH:
            given.append(model.predict(np.stack(waiting)))
            waiting.clear()
    if waiting:
        given.append(model.predict(np.stack(waiting)))
    return rows, np.concatenate([each[0] for each in given]), np.concatenate([each[1] for each in given])


def _rows(
    part: Part, forecast: PredictionPlan, decoders: DecoderPool[Decoded], refusals: list[Refusal]
) -> Iterator[tuple[Row, Pixels]]:
    """What can be read, as the model takes it; what cannot is added to `refusals`."""
    files: deque[tuple[str, str]] = deque()
    for seen in decoders.map(_contents(part, forecast, files, refusals)):
        key, sha256 = files.popleft()
        if isinstance(seen, UnreadableError):
            refusals.append(quarantine.refusal(key, seen, sha256))
            continue
        measured = {"width": seen.width, "height": seen.height, **seen.features._asdict()}
        facts = {name: measured[name] for name in MEASURED if name != "label"}
        yield Row(key, sha256, facts), inner(seen.pixels, forecast.preprocess)


def _contents(
    part: Part, forecast: PredictionPlan, files: deque[tuple[str, str]], refusals: list[Refusal]
) -> Iterator[bytes]:
    """The bytes of every file that can be fetched, in order; the file itself is added to `files`."""
    batch = storage.join(forecast.source, part.batch)
    uris = [storage.join(batch, key) for key in part.keys]
    limit = int(forecast.preprocess.max_megabytes * 2**20)
    for key, fetched in zip(part.keys, fetch(uris, limit), strict=True):
        name = f"{part.batch}/{key}"
        if isinstance(fetched, UnreadableError):
            refusals.append(quarantine.refusal(name, fetched))
        else:
            files.append((name, fetched.sha256))
            yield fetched.data


def _profile(rows: list[Row], labels: list[str]) -> Any:
    columns = {name: [row.facts[name] for row in rows] for name in MEASURED if name != "label"}
    fields = pa.schema([SCHEMA.field(name) for name in MEASURED])
    return drift.profile(pa.table({"label": labels, **columns}, schema=fields), np.ones(len(rows), np.bool_))


def _unsure(
    rows: list[Row], labels: list[str], sure: list[float], forecast: PredictionPlan
) -> tuple[LowConfidence, ...]:
    policy = forecast.pipeline.predict
    found = [
        LowConfidence(key=row.key, label=label, confidence=confidence)
        for row, label, confidence in zip(rows, labels, sure, strict=True)
        if confidence < policy.low_confidence
    ]
    return tuple(sorted(found, key=lambda each: each.confidence)[: policy.max_to_label])
