"""The manifest of a data set version: classes, shards, splits, counts, statistics over all parts."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nightshift.config import digest_of
from nightshift.data.drift import profile
from nightshift.data.index import Index
from nightshift.data.labels import look_alike
from nightshift.errors import InputError
from nightshift.records import SPLITS, BatchSeen, Dataset, Duplicates, PartResult, Plan, Shard, Split


def build(
    plan: Plan,
    batches: Mapping[str, BatchSeen],
    results: Sequence[PartResult],
    index: Index,
    drop: NDArray[np.bool_],
    duplicates: Duplicates,
    untrained: dict[str, int],
) -> Dataset:
    """The data set of these parts without the rows that `drop`, bool [N], marks.

    Its digest covers the data and the settings that decide what is left out. Raises InputError when nothing
    can be learnt from it.
    """
    counts = count(index.rows, ~drop)
    classes = tuple(sorted({name for split in SPLITS for name in counts[split]}))
    refused = sum(len(result.refusals) for result in results)
    check(plan.source, classes, counts, refused, untrained, duplicates)
    check_spellings(plan.source, classes, index.rows)
    left_out = index.places(drop)
    shards = tuple(
        shard.model_copy(update={"drop": left_out[number]}) if number in left_out else shard
        for number, shard in enumerate(shard for result in results for shard in result.shards)
    )
    mean, std = statistics([shard for shard in shards if shard.split == "train"])
    settings = plan.pipeline.assemble.model_dump(mode="json")
    # The times of uploads decide which labels are corrected, and are not part of the data's digest.
    corrected = sorted(left_out.items()) if duplicates.corrected else []
    return Dataset(
        digest=digest_of([plan.data_digest, classes, settings, corrected]),
        classes=classes,
        shards=shards,
        counts=counts,
        mean=mean,
        std=std,
        refused=refused,
        image_size=plan.pipeline.preprocess.image_size,
        preprocess=plan.pipeline.preprocess,
        source=plan.source,
        batches=dict(batches),
        profile=profile(index.rows, ~drop),
        duplicates=duplicates,
        untrained=untrained,
    )


def without_training_images(index: pa.Table, drop: NDArray[np.bool_]) -> dict[str, int]:
    """Classes that no training image is of, which no network can learn, with their images."""
    counts = count(index, ~drop)
    found = dict(sorted({**counts["validation"], **counts["test"]}.items()))
    return {
        name: counts["validation"].get(name, 0) + counts["test"].get(name, 0)
        for name in found
        if not counts["train"].get(name)
    }


def count(index: pa.Table, keep: NDArray[np.bool_]) -> dict[Split, dict[str, int]]:
    """Images per split and class."""
    kept = index.select(["split", "label"]).filter(pa.array(keep))
    rows = kept.group_by(["split", "label"]).aggregate([([], "count_all")]).to_pylist()
    return {
        split: {
            row["label"]: row["count_all"]
            for row in sorted(rows, key=lambda row: str(row["label"]))
            if row["split"] == split
        }
        for split in SPLITS
    }


def statistics(shards: Sequence[Shard]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel over all pixels of the shards, on the scale 0 to 1.

    Rows that are left out count too: their pixels are those of rows that stay, or much like them.
    """
    total = sum(shard.images for shard in shards)
    channels = range(len(shards[0].mean))
    mean = [sum(s.mean[c] * s.images for s in shards) / total for c in channels]
    square = [sum(s.mean_square[c] * s.images for s in shards) / total for c in channels]
    # A constant channel has no deviation; a floor keeps the division in the graph finite.
    std = [math.sqrt(max(square[c] - mean[c] ** 2, 1e-6)) for c in channels]
    return tuple(mean), tuple(std)


def check_spellings(source: str, classes: tuple[str, ...], rows: pa.Table) -> None:
    """InputError when two classes look like one that is written in two ways, with a batch of each."""
    if found := look_alike(classes):
        first = [rows["key"][rows["label"].index(pa.scalar(name)).as_py()].as_py() for name in found]
        (one, other), (here, there) = found, [key.partition("/")[0] for key in first]
        raise InputError(
            f"classes {one!r} (batch {here}) and {other!r} (batch {there}) of {source} differ only in case "
            "or in zeros before a number; make them one: remove one of the batches and ingest it again with "
            "the other spelling"
        )


def check(
    source: str,
    classes: tuple[str, ...],
    counts: dict[Split, dict[str, int]],
    refused: int,
    untrained: Mapping[str, int],
    duplicates: Duplicates,
) -> None:
    if untrained and len(classes) < 2:
        names = ", ".join(list(untrained)[:5])
        raise InputError(
            f"source {source} has training images of {len(classes)} classes; a classifier needs two: "
            f"add some of {names}, of which only validation and test images are there"
        )
    if not classes:
        raise InputError(
            f"no image of {source} could be used: {refused:,} are refused, and of {duplicates.conflicting:,} "
            "another copy has another label; nightshift quarantine has the reasons of the former, and of the "
            "latter the copy that is right must be uploaded last, or the others be removed"
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
