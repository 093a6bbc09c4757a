"""Stage `look`: which batches without labels are to be predicted, cut into messages.

Like planning a night it reads listings, never images. What the version has predicted is found, not redone.
"""

import math
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence, Set

from nightshift import storage
from nightshift.config import PreprocessSettings, store_root
from nightshift.config.pipelines import unlabelled_source
from nightshift.data import batches
from nightshift.data.batches import Batch, message, store
from nightshift.errors import InputError
from nightshift.records import Part, PredictionPlan
from nightshift.records.specs import LookSpec
from nightshift.runner.json_logs import one_line
from nightshift.tracking import registry
from nightshift.workflows.predict import layout

DAY = 86_400.0  # seconds


def look(spec: LookSpec) -> PredictionPlan:
    """Decide what is predicted. Raises InputError for a version or a batch that does not exist."""
    pipeline, waiting, clutter = spec.pipeline, list[str](), Counter[str]()
    source = unlabelled_source(pipeline)
    nothing = PredictionPlan(pipeline=pipeline, run=spec.run, reason="", source=source)
    seen = {
        batch.name: batch
        for batch in batches.complete(storage.listing(source), pipeline.settle_minutes * 60, waiting, clutter)
    }
    for line in batches.left_out(clutter):
        print(line)
    _check_names(spec.batches, seen.keys() | set(waiting), source)
    version = spec.version or registry.alias_version(pipeline.name, registry.CHAMPION)
    if not seen or version is None:
        reason = (
            f"source {source} holds no complete batch ({len(waiting)} still arriving)"
            if version
            else f"models:/{pipeline.name} has no champion yet, so nothing is predicted"
        )
        print(one_line(f"look: {reason}"))
        return nothing.model_copy(update={"reason": reason})
    chosen = _chosen(seen.values(), spec, version)
    forecast = _forecast(nothing, chosen, version) if chosen else nothing
    reason = (
        f"version {version} predicts {len(chosen)} of {len(seen)} batches, {forecast.images:,} images"
        if chosen
        else f"all {len(seen)} batches that the policy names are predicted"
    )
    print(one_line(f"look: {reason}"))
    return forecast.model_copy(update={"reason": reason})


def _forecast(draft: PredictionPlan, chosen: Sequence[Batch], version: str) -> PredictionPlan:
    pipeline = draft.pipeline
    tags = registry.version_tags(pipeline.name, version)
    if registry.PREPROCESS not in tags:
        raise InputError(
            f"version {version} of {pipeline.name} does not say how its images are prepared; give one that "
            "Nightshift registered"
        )
    trained = PreprocessSettings.model_validate_json(tags[registry.PREPROCESS])
    # Pixels as the model knows them; what is refused, and how the work is cut, as the pipeline says now.
    settings = PreprocessSettings.model_validate(pipeline.preprocess.model_dump() | trained.pixel_settings())
    parts = [part for batch in chosen for part in batches.cut(batch, settings, draft.source)]
    todo = [part for part in parts if not storage.exists(_marker(pipeline.name, version, part))]
    groups = batches.grouped(todo, settings.part_seconds)
    # Batches whose parts are all done still send one message, an empty one, and are then summarised.
    messages = [message(group) for group in groups] or [message([])]
    return draft.model_copy(
        update={
            "version": version,
            "sha256": tags.get(registry.SHA256, ""),
            "dataset": tags.get(registry.DATASET, ""),
            "preprocess": settings,
            "batches": {batch.name: batch.seen() for batch in chosen},
            "parts_uri": store({}, parts),
            "messages": tuple(messages),
        }
    )


def _check_names(named: Sequence[str], known: set[str], source: str) -> None:
    missing = [name for name in named if name not in known]
    if missing:
        raise InputError(
            f"source {source} holds no batch {missing[0]!r}; it holds {', '.join(sorted(known)) or 'none'}"
        )


def _chosen(seen: Iterable[Batch], spec: LookSpec, version: str) -> list[Batch]:
    """Batches that the version is to predict: named by a person or by the policy, and not yet done."""
    pipeline, policy = spec.pipeline.name, spec.pipeline.predict
    todo = []
    for batch in seen:
        found = layout.done(layout.folder(pipeline, version, batch.name))
        named = not spec.batches or batch.name in spec.batches
        if named and (found is None or found.digest != batch.seen().digest):
            todo.append(batch)
    if spec.batches or policy.repredict == "all":
        return todo
    since = time.time() - policy.recent_days * DAY if policy.repredict == "recent" else math.inf
    old = {batch.name for batch in todo if batch.newest < since}
    known = _predicted(pipeline, old) if old else {}
    return [batch for batch in todo if batch.seen().digest not in known.get(batch.name, ())]


def _predicted(pipeline: str, names: Set[str]) -> dict[str, set[str]]:
    """Digests with which these batches were predicted, by any version."""
    root, found = storage.join(store_root(), "predictions", pipeline), defaultdict[str, set[str]](set)
    for stored in storage.listing(root):
        place, _, name = stored.key.rpartition("/")
        if name == layout.DONE and place.partition("/")[2] in names:
            finished = layout.done(storage.join(root, place))
            if finished:
                found[finished.batch].add(finished.digest)
    return found


def _marker(pipeline: str, version: str, part: Part) -> str:
    return layout.marker(layout.folder(pipeline, version, part.batch), part.digest)
