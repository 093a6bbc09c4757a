"""Stage 2: commit the data set version, one manifest over the shards of all parts of the night.

Only manifests are read, never pixels: counts and statistics were taken when the shards were written.
"""

import math
from collections import Counter

from pydantic import BaseModel, TypeAdapter

from tasks import storage
from tasks.config import digest_of, store_root
from tasks.errors import InputError
from tasks.records import SPLITS, AssembleSpec, Dataset, Part, PartResult, Plan, Shard, Split


class Assembled(BaseModel):
    """Where the manifest is, and the numbers people ask for first."""

    dataset_uri: str
    digest: str
    classes: int
    images: int
    refused: int


def assemble(spec: AssembleSpec) -> Assembled:
    """Write `datasets/<digest>.json`. Raises InputError when there is nothing that can be learnt."""
    plan = spec.plan
    parts = TypeAdapter(list[Part]).validate_json(storage.read(plan.parts_uri))
    results = [
        storage.read_record(storage.join(store_root(), "shards", part.digest, "part.json"), PartResult)
        for part in parts
    ]
    dataset = build(plan, results)
    uri = storage.join(store_root(), "datasets", f"{dataset.digest}.json")
    storage.write_record(uri, dataset)
    images = sum(shard.images for shard in dataset.shards)
    classes = len(dataset.classes)
    print(f"data set {dataset.digest[:12]}: {images} images, {classes} classes, {dataset.refused} refused")
    if plan.mlflow_run_id:
        _track(plan, dataset, uri)
    return Assembled(
        dataset_uri=uri,
        digest=dataset.digest,
        classes=classes,
        images=images,
        refused=dataset.refused,
    )


def build(plan: Plan, results: list[PartResult]) -> Dataset:
    """The data set of these parts. The digest is the plan's: same parts and settings, same data set."""
    shards = tuple(shard for result in results for shard in result.shards)
    counts: dict[Split, dict[str, int]] = {
        split: dict(sum((Counter(s.counts) for s in shards if s.split == split), Counter()))
        for split in SPLITS
    }
    classes = tuple(sorted({name for split in SPLITS for name in counts[split]}))
    refused = sum(len(result.refusals) for result in results)
    _check(plan.source, classes, counts, refused)
    mean, std = statistics([shard for shard in shards if shard.split == "train"])
    return Dataset(
        digest=digest_of([plan.data_digest, classes]),
        classes=classes,
        shards=shards,
        counts=counts,
        mean=mean,
        std=std,
        refused=refused,
        image_size=plan.pipeline.preprocess.image_size,
        preprocess=plan.pipeline.preprocess,
        source=plan.source,
    )


def statistics(shards: list[Shard]) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Mean and standard deviation per channel over all pixels of the shards, on the scale 0 to 1."""
    total = sum(shard.images for shard in shards)
    mean = [sum(s.mean[c] * s.images for s in shards) / total for c in range(3)]
    square = [sum(s.mean_square[c] * s.images for s in shards) / total for c in range(3)]
    # A constant channel has no deviation; a floor keeps the division in the graph finite.
    std = [math.sqrt(max(square[c] - mean[c] ** 2, 1e-6)) for c in range(3)]
    return (mean[0], mean[1], mean[2]), (std[0], std[1], std[2])


def _check(source: str, classes: tuple[str, ...], counts: dict[Split, dict[str, int]], refused: int) -> None:
    if not classes:
        raise InputError(
            f"no image of {source} could be used ({refused} refused); quarantine has the reasons"
        )
    if len(classes) == 1:
        raise InputError(
            f"source {source} has one class only ({classes[0]!r}); a classifier needs at least two"
        )
    for split in SPLITS:
        if not counts[split]:
            raise InputError(
                f"the {split} split of {source} is empty; add images or raise its fraction in [preprocess]"
            )


def _track(plan: Plan, dataset: Dataset, uri: str) -> None:
    from tasks import tracking

    run_id = plan.mlflow_run_id or ""
    images = sum(shard.images for shard in dataset.shards)
    tracking.log_dataset(run_id, name=plan.pipeline.name, digest=dataset.digest, source=uri, rows=images)
    rows = [(f"images_{split}", float(sum(dataset.counts[split].values())), 0) for split in SPLITS]
    tracking.log_metrics(run_id, [*rows, ("images_refused", float(dataset.refused), 0)])
