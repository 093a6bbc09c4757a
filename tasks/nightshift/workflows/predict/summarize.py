"""Stage `summarise`: finish the batches of a prediction run, and say in MLflow what was seen.

A batch's `_SUCCESS` is written last and names its files. What an earlier cut of the same batch left there is
removed before, so that a folder never shows an image twice.
"""

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from pydantic import BaseModel

from nightshift import storage
from nightshift.data import drift, quarantine
from nightshift.errors import InputError
from nightshift.records import (
    BatchPredictions,
    PartList,
    PartPredictions,
    PredictionPlan,
    Profile,
    Refusal,
    lengths,
)
from nightshift.records.specs import SummariseSpec
from nightshift.tracking import ledger
from nightshift.workflows.predict import layout

LOOKUPS = 32  # records that are read at a time


class Summary(BaseModel):
    """What a run came to. `uri` is the folder of the version's predictions."""

    version: str
    sha256: str
    uri: str
    batches: tuple[str, ...]
    images: int
    refused: int
    unsure: int
    drift: dict[str, float]  # population stability index by property, against the training data
    page: str = ""  # address of the run in MLflow's web interface


class Whole(NamedTuple):
    """All that was predicted, added up."""

    profile: Profile
    confidences: list[int]  # images by the probability of their label, in equal bins from 0 to 1
    refused: Counter[str]  # by reason
    drift: dict[str, float]
    training: Profile | None  # of the model's data set, where it is still there


def summarise(spec: SummariseSpec) -> Summary:
    """Finish every batch. Raises InputError for one of which too much is refused; the others are finished."""
    forecast = spec.forecast
    work = storage.read_record(forecast.parts_uri, PartList)
    places = [layout.marker(_place(forecast, part.batch), part.digest) for part in work.parts]
    with ThreadPoolExecutor(LOOKUPS) as pool:
        results = list(pool.map(lambda uri: storage.read_record(uri, PartPredictions), places))
    batches: dict[str, list[PartPredictions]] = {}
    for result in results:
        batches.setdefault(result.batch, []).append(result)
    finished, failed = [], []
    for name, parts in batches.items():
        try:
            finished.append(_finish(forecast, name, parts))
        except InputError as error:
            failed.append(str(error))
    whole = _whole(forecast, results)
    summary = Summary(
        version=forecast.version,
        sha256=forecast.sha256,
        uri=_place(forecast, ""),
        batches=tuple(batch.batch for batch in finished),
        images=sum(batch.images for batch in finished),
        refused=sum(batch.refused for batch in finished),
        unsure=sum(batch.unsure for batch in finished),
        drift=whole.drift,
        page=_log(forecast, finished, whole, "; ".join(failed)),
    )
    if failed:
        raise InputError("; ".join(failed))
    print(
        f"summarise: {summary.images:,} images in {len(finished)} batches by version {forecast.version}, "
        f"{summary.refused:,} refused, {summary.unsure:,} to label: {summary.uri}"
    )
    return summary


def _place(forecast: PredictionPlan, batch: str) -> str:
    return layout.folder(forecast.pipeline.name, forecast.version, batch).rstrip("/")


def _finish(forecast: PredictionPlan, name: str, parts: Sequence[PartPredictions]) -> BatchPredictions:
    pipeline, place = forecast.pipeline, _place(forecast, name)
    refusals = [refusal for part in parts for refusal in part.refusals]
    images = sum(part.images for part in parts)
    quarantine.write_batch(quarantine.unlabelled(pipeline.name), name, refusals)
    share, limit = len(refusals) / (images + len(refusals)), pipeline.assemble.max_refused_fraction
    if share > limit:
        raise InputError(
            f"batch {name}: {len(refusals):,} of {images + len(refusals):,} files ({share:.0%}) are refused "
            f"({quarantine.commonest(refusals)}); assemble.max_refused_fraction allows {limit:.0%}: mend or "
            f"remove the batch in {forecast.source}"
        )
    unsure = sorted((row for part in parts for row in part.unsure), key=lambda row: row.confidence)
    files = tuple(part.file for part in parts)
    kept = {file.uri for file in files} | {layout.marker(place, part.part) for part in parts}
    for stored in list(storage.listing(place)):
        uri = storage.join(place, stored.key)
        if uri not in kept:
            storage.delete(uri)
    listed = unsure[: pipeline.predict.max_to_label]
    storage.write(storage.join(place, layout.TO_LABEL), layout.to_label(listed))
    batch = BatchPredictions(
        batch=name,
        digest=forecast.batches[name].digest,
        version=forecast.version,
        sha256=forecast.sha256,
        files=files,
        images=images,
        refused=len(refusals),
        unsure=len(listed),
        at=ledger.now(),
    )
    storage.write_record(storage.join(place, layout.DONE), batch)
    return batch


def _whole(forecast: PredictionPlan, results: Sequence[PartPredictions]) -> Whole:
    refused: Counter[str] = Counter()
    refusals: list[Refusal] = [refusal for result in results for refusal in result.refusals]
    refused.update(refusal.reason for refusal in refusals)
    profile = drift.merged([result.profile for result in results])
    trained = ledger.dataset(forecast.dataset) if forecast.dataset else None
    moved = drift.drift(trained.profile, profile) if trained and profile.images else {}
    bins = [sum(counts) for counts in zip(*(result.confidences for result in results), strict=True)]
    return Whole(profile, bins, refused, moved, trained.profile if trained else None)


def _log(forecast: PredictionPlan, finished: Sequence[BatchPredictions], whole: Whole, failed: str) -> str:
    """A run of its own in MLflow, found again when this runs twice; returns the address of its page."""
    from nightshift.report.predictions import figure  # matplotlib takes a second to import
    from nightshift.tracking import runs

    name = f"{forecast.pipeline.name}-predictions"
    params = {"version": forecast.version, "sha256": forecast.sha256, "source": forecast.source}
    run_id = runs.open_run(name, forecast.run, params=params)
    images = whole.profile.images
    numbers = {
        "images": images,
        "refused": sum(whole.refused.values()),
        "unsure": sum(batch.unsure for batch in finished),
        **{f"refused/{reason}": count for reason, count in whole.refused.items()},
        **{f"share/{label}": count / images for label, count in whole.profile.classes.items()},
        **{f"drift/{of}": index for of, index in whole.drift.items()},
    }
    runs.log_metrics(run_id, [(lengths.metric_name(key), float(value), 0) for key, value in numbers.items()])
    runs.log_artifact(
        run_id, "predictions.png", figure(whole.profile, whole.training, whole.confidences, whole.drift)
    )
    runs.close_run(run_id, failed=bool(failed), reason=failed or "all batches are predicted")
    return runs.run_url(run_id)
