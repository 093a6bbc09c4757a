"""Stage 2: commit the data set version, one manifest over the shards of all parts of the night.

Only manifests and indexes are read, and a few pixels for the data card: counts and statistics were taken when
the shards were written. Duplicates and drift are found here, because only here all parts are seen together.
"""

import functools
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import BaseModel

from nightshift import storage
from nightshift.config import store_root
from nightshift.data import drift, duplicates, manifest, near_duplicates, quarantine, uploads
from nightshift.data.duplicates import DuplicateRow
from nightshift.data.index import Index
from nightshift.errors import InputError
from nightshift.records import Dataset, Drift, Duplicates, PartList, PartResult, Plan, Profile, Refusal
from nightshift.records.specs import AssembleSpec
from nightshift.tracking import ledger

LOOKUPS = 32  # manifests that are read at a time


class Assembled(BaseModel):
    """Where the manifest is, how far the images drifted, and whether the night goes on to training."""

    dataset_uri: str
    digest: str
    classes: int
    images: int
    refused: int
    drifts: tuple[Drift, ...]
    proceed: bool
    reason: str


def assemble(spec: AssembleSpec) -> Assembled:
    """Write `datasets/<digest>.json`. Raises InputError when there is nothing that can be learnt."""
    plan, work = spec.plan, storage.read_record(spec.plan.parts_uri, PartList)
    uris = [storage.join(store_root(), "shards", part.digest, "part.json") for part in work.parts]
    with ThreadPoolExecutor(LOOKUPS) as pool:
        results = list(pool.map(lambda uri: storage.read_record(uri, PartResult), uris))
        check_refusals(plan, results)
        index = Index.of(pool, results)
    drop, found, twice = left_out(plan, index)
    untrained = manifest.without_training_images(index.rows, drop)
    if untrained:
        names = ", ".join(f"{name!r} ({images:,} images)" for name, images in list(untrained.items())[:20])
        print(f"no training image is of {len(untrained)} classes, which are left out: {names}", flush=True)
        labels = pc.is_in(index.rows["label"], value_set=pa.array(list(untrained), pa.string()))
        drop = drop | labels.to_numpy(zero_copy_only=False)
    dataset = manifest.build(plan, work.batches, results, index, drop, found, untrained)
    uri = storage.join(store_root(), "datasets", f"{dataset.digest}.json")
    storage.write_record(uri, dataset)
    references = compare(plan, dataset, index, drop)
    drifts = tuple(found for found, _ in references)
    proceed, reason = decide(plan, drifts)
    images = dataset.profile.images
    print(f"data set {dataset.digest[:12]}: {images:,} images, {len(dataset.classes)} classes; {reason}")
    if plan.mlflow_run_id:
        from nightshift.workflows.retrain import (
            data_card,  # imports mlflow and matplotlib, which take seconds
        )

        data_card.log(plan, dataset, uri, index, drop, references, results, twice)
    return Assembled(
        dataset_uri=uri,
        digest=dataset.digest,
        classes=len(dataset.classes),
        images=images,
        refused=dataset.refused,
        drifts=drifts,
        proceed=proceed,
        reason=reason,
    )


def check_refusals(plan: Plan, results: Sequence[PartResult]) -> None:
    """Write the reasons of all batches down; InputError when a batch has more refusals than allowed."""
    refused: dict[str, list[Refusal]] = {result.batch: [] for result in results if result.refusals}
    files: Counter[str] = Counter()
    for result in results:
        files[result.batch] += len(result.refusals) + sum(shard.images for shard in result.shards)
        if result.refusals:
            refused[result.batch] += result.refusals
    quarantine.write(plan.pipeline.name, refused)
    limit = plan.pipeline.assemble.max_refused_fraction
    for batch, refusals in refused.items():
        share = len(refusals) / files[batch]
        if share > limit:
            raise InputError(
                f"batch {batch}: {len(refusals):,} of {files[batch]:,} files ({share:.0%}) are refused "
                f"({quarantine.commonest(refusals)}); assemble.max_refused_fraction allows {limit:.0%}: "
                f"mend or remove the batch, see nightshift quarantine {plan.pipeline.name}"
            )


def left_out(plan: Plan, index: Index) -> tuple[NDArray[np.bool_], Duplicates, list[DuplicateRow]]:
    """Rows that the data set leaves out, bool [N], their counts, and every duplicate for people to read."""
    settings, settle = plan.pipeline.assemble, plan.pipeline.settle_minutes * 60
    said = functools.partial(uploads.said, plan.source, settle_seconds=settle)
    exact = duplicates.exact(index.rows, settings.conflicting_labels, said)
    pairs = near_duplicates.near(
        index.rows, index.thumbnails, bits=settings.near_duplicate_bits, keep=~exact.drop
    )
    near = np.zeros(len(exact.drop), np.bool_)
    near[[pair.row for pair in pairs]] = True
    training = pc.equal(index.rows["split"], "train").to_numpy()
    excluded = settings.near_duplicates == "exclude"
    found = Duplicates(
        merged=exact.merged,
        conflicting=exact.conflicting,
        corrected=exact.corrected,
        near=int((near & training).sum()),
        near_validation=int((near & ~training).sum()),
        near_excluded=excluded,
    )
    lines = duplicates.found(index.rows, exact, pairs)
    return (exact.drop | near if excluded else exact.drop), found, lines


def compare(
    plan: Plan, dataset: Dataset, index: Index, drop: NDArray[np.bool_]
) -> list[tuple[Drift, Profile]]:
    """Drift against the data set of the last decision and that of the champion, with what those looked like.

    Against the last decision's also of the new batches alone, which a large old data set would hide.
    """
    promoted = ledger.champion(plan.pipeline.name)
    known = {"previous": plan.previous, "champion": promoted.dataset if promoted else ""}
    found = []
    for against, digest in known.items():
        other = ledger.dataset(digest) if digest and digest != dataset.digest else None
        if other is None:
            continue
        psi = drift.drift(other.profile, dataset.profile)
        whole = {"of": "data", "against": against, "dataset": digest, "psi": psi}
        found.append((Drift.model_validate(whole), other.profile))
        if against == "previous" and (new := _new_rows(dataset, other, index, drop)).any():
            psi = drift.drift(other.profile, drift.profile(index.rows, new))
            moved = Drift(of="new", against="previous", dataset=digest, psi=psi)
            found.append((moved, other.profile))
    return found


def decide(plan: Plan, drifts: Sequence[Drift]) -> tuple[bool, str]:
    """Whether to train, and why, on a night that only drift can make worth it."""
    if plan.drift_limit is None:
        return True, "training goes on"
    new = next((found for found in drifts if found.of == "new"), None)
    if new is None:
        return False, "no new image stayed, so nothing drifts: the night ends without training"
    name = max(new.psi, key=lambda key: new.psi[key])
    words = f"new images drift by {new.largest:.3f} ({name}), retrain.max_drift is {plan.drift_limit:g}"
    if new.largest > plan.drift_limit:
        return True, f"{words}: training goes on"
    return False, f"{words}: the night ends without training"


def _new_rows(dataset: Dataset, other: Dataset, index: Index, drop: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Rows, bool [N], of batches that `other` did not have or had differently."""
    new = [name for name, seen in dataset.batches.items() if other.batches.get(name) != seen]
    batch = pc.list_element(pc.split_pattern(index.rows["key"], "/", max_splits=1), 0)
    inside = pc.is_in(batch, value_set=pa.array(new, pa.string())).to_numpy(zero_copy_only=False)
    return np.asarray(inside & ~drop, np.bool_)
