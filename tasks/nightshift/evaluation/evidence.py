"""What the test images show of each model: put together from the metrics, for report and gates."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray
from torch import nn

from nightshift import storage
from nightshift.data import index
from nightshift.data.dataset import Images, originals
from nightshift.evaluation.contenders import Contender, Labels
from nightshift.evaluation.metrics import activation_maps, examples
from nightshift.evaluation.metrics.curves import curves
from nightshift.evaluation.metrics.paired import compare
from nightshift.evaluation.metrics.reliability import reliability
from nightshift.evaluation.metrics.slices import Answers, slices
from nightshift.inference.runtime import Pixels
from nightshift.records import Dataset, Evidence, Example, PartResult, Robustness

FACTS: Final = ["key", "width", "height", "brightness", "extra"]


def collect(
    there: Mapping[str, Contender],
    chosen: str,
    labels: Labels,
    dataset: Dataset,
    robustness: Robustness | None,
) -> Evidence:
    """All evidence beside `robustness`; `labels` int64 [N] are those of the test images."""
    ours = there[chosen]
    keys = originals(dataset, "test")
    answers = {name: Answers(each.predicted == labels, each.known) for name, each in there.items()}

    def shown(rows: Labels) -> tuple[Example, ...]:
        return tuple(_example(int(row), keys, ours, labels, dataset.classes) for row in rows)

    return Evidence(
        reliability={
            name: reliability(each.probabilities[each.known].max(1), answers[name].right[each.known])
            for name, each in there.items()
        },
        curves=curves(labels, ours.probabilities, dataset.classes),
        paired={
            name: compare(answers[chosen].right[each.known], answers[name].right[each.known])
            for name, each in there.items()
            if name != chosen
        },
        slices=slices(columns(dataset, keys), answers),
        hardest=shown(examples.hardest(labels, ours.probabilities)),
        confidently_wrong=shown(examples.confidently_wrong(labels, ours.predicted, ours.probabilities)),
        suspects=shown(examples.suspects(labels, ours.probabilities)),
        robustness=robustness,
    )


def columns(dataset: Dataset, keys: Sequence[str]) -> dict[str, list[Any]]:
    """What is known about each test image, by column.

    These are the manifest's own, `brightness` (mean luma, 0 to 1) and `image size` (the shorter side of the
    original in pixels).

    A value that is not known is None. What is known stands in the indexes beside the shards.
    """
    folders = dict.fromkeys(
        shard.file.uri.rpartition("/")[0] for shard in dataset.shards if shard.split == "test"
    )
    facts: dict[str, dict[str, Any]] = {}
    for folder in folders:
        facts |= _facts(storage.join(folder, "part.json"))
    rows = [facts.get(key, {}) for key in keys]
    extras = [json.loads(row["extra"]) if row.get("extra") else {} for row in rows]
    found = {
        "brightness": [row.get("brightness") for row in rows],
        "image size": [min(row["width"], row["height"]) if row else None for row in rows],
    }
    names = sorted({name for extra in extras for name in extra})
    found |= {name: [extra.get(name) for extra in extras] for name in names}
    # One value for all images tells nothing.
    return {name: values for name, values in found.items() if len(set(map(str, values))) > 1}


def overlays(evidence: Evidence, network: nn.Module, test: Images, dataset: Dataset) -> dict[int, Pixels]:
    """Where the float network looked in each example, uint8 [H,W,3] by the row of the test split."""
    every = (*evidence.hardest, *evidence.confidently_wrong, *evidence.suspects)
    rows = sorted({example.row for example in every})
    if not rows:
        return {}
    images = test.images[rows].numpy()
    drawn = activation_maps.overlay(images, activation_maps.maps(network, images, dataset))
    return dict(zip(rows, drawn, strict=True))


def _facts(uri: str) -> dict[str, dict[str, Any]]:
    """Rows of the index of one part by key; none where it was cleaned away."""
    try:
        table = index.read(storage.read_record(uri, PartResult).index, columns=[*FACTS, "split"])
    except storage.MissingError:
        return {}
    rows = table.filter(pc.field("split") == "test").select(FACTS).to_pylist()
    return {row["key"]: row for row in rows}


def _example(
    row: int, keys: Sequence[str], ours: Contender, labels: Labels, classes: Sequence[str]
) -> Example:
    label, predicted = int(labels[row]), int(ours.predicted[row])
    shares: NDArray[np.float32] = ours.probabilities[row]
    return Example(
        row=row,
        key=keys[row],
        label=classes[label],
        predicted=classes[predicted],
        confidence=float(shares[predicted]),
        own=float(shares[label]),
    )
