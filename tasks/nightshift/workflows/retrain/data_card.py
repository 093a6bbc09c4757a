"""The data card of a data set version in the night's MLflow run: figures, numbers, duplicates."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load

from nightshift import storage
from nightshift.data.duplicates import DuplicateRow, listing
from nightshift.data.index import Index
from nightshift.records import SPLITS, Dataset, Drift, PartResult, Plan, Profile
from nightshift.report.data_card import Card, Reference, render
from nightshift.report.data_card_figure import figure
from nightshift.tracking import runs

SHOWN_SHARDS = 8  # read for the thumbnail grid, of 32 MiB at most
SHOWN_IMAGES = 8  # of each class


def log(
    plan: Plan,
    dataset: Dataset,
    uri: str,
    index: Index,
    drop: NDArray[np.bool_],
    references: Sequence[tuple[Drift, Profile]],
    results: Sequence[PartResult],
    lines: Sequence[DuplicateRow],
) -> None:
    """Render the card and store it with all its numbers under the night's run."""
    refused = Counter(refusal.reason for result in results for refusal in result.refusals)
    card = Card(
        pipeline=plan.pipeline.name,
        dataset=dataset,
        index=index.rows,
        drop=drop,
        references=[Reference(*reference) for reference in references],
        refused=refused,
        lines=lines,
        pixels=pictures(dataset),
    )
    run_id, images = plan.mlflow_run_id or "", dataset.profile.images
    runs.log_dataset(run_id, name=plan.pipeline.name, digest=dataset.digest, source=uri, rows=images)
    runs.log_metrics(run_id, numbers(dataset, [found for found, _ in references], refused))
    picture = figure(card)
    runs.log_artifact(run_id, "data/card.png", picture)
    runs.log_artifact(run_id, "data/card.html", render(card, picture))
    if lines:
        runs.log_artifact(run_id, "data/duplicates.csv", listing(lines))


def numbers(dataset: Dataset, drifts: Sequence[Drift], refused: Counter[str]) -> list[tuple[str, float, int]]:
    """What can be compared from night to night, as (name, value, step)."""
    counts = {f"images_{split}": sum(dataset.counts[split].values()) for split in SPLITS}
    counts["images_refused"] = dataset.refused
    counts |= {f"refused/{reason}": count for reason, count in refused.items()}
    counts |= dataset.duplicates.model_dump(
        include={"merged", "conflicting", "corrected", "near", "near_validation"}
    )
    sizes = list(dataset.profile.classes.values())
    values = {name: float(count) for name, count in counts.items()}
    values["imbalance"] = max(sizes) / max(1, min(sizes))
    for found in drifts:
        values |= {f"drift/{found.of}/{found.against}/{name}": psi for name, psi in found.psi.items()}
    return [(name, value, 0) for name, value in values.items()]


def pictures(dataset: Dataset) -> dict[str, NDArray[np.uint8]]:
    """A few stored images of each class to look at, uint8 [n,side,side,3], of shards all over the data set.

    Of many channels the first three are shown as red, green and blue, of two the first as grey.
    """
    step = max(1, len(dataset.shards) // SHOWN_SHARDS)
    found: dict[str, list[NDArray[np.uint8]]] = {name: [] for name in dataset.classes}
    shown = [0, 1, 2] if dataset.preprocess.channels > 2 else [0, 0, 0]
    for shard in dataset.shards[::step][:SHOWN_SHARDS]:
        content = load(storage.read_artifact(shard.file))
        for row in np.setdiff1d(np.arange(shard.images), shard.drop):
            images = found[shard.classes[int(content["labels"][row])]]
            if len(images) < SHOWN_IMAGES:
                images.append(content["images"][row][..., shown])
    return {name: np.stack(images) for name, images in found.items() if images}
