"""Stage 0: list the source, find what is new, decide whether it is worth a night, cut it into messages.

Planning reads listings, never objects, so that a million images are planned in seconds. `outlook` only looks,
which is what `nightshift plan` shows; `plan` also writes down what the other stages read.
"""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from nightshift import storage
from nightshift.config import STAGE_SETTINGS, Pipeline, digest_of
from nightshift.config.pipelines import source_of
from nightshift.data import batches, shards
from nightshift.data.batches import message, store
from nightshift.data.labels import READY
from nightshift.errors import InputError
from nightshift.models import initial_weights
from nightshift.records import BatchSeen, Dataset, Part, Plan
from nightshift.records.specs import PlanSpec
from nightshift.runner.json_logs import one_line
from nightshift.tracking import ledger
from nightshift.workflows.retrain import policy as schedule
from nightshift.workflows.retrain.policy import Facts, Verdict

LOOKUPS = 32  # results of parts that are looked for at a time; each waits for the store


class Outlook(NamedTuple):
    """What a night would do. `todo` are the parts that no earlier night has preprocessed."""

    verdict: Verdict
    batches: dict[str, BatchSeen]
    previous: Dataset | None  # of the last decision
    waiting: list[str]  # batches that are still arriving
    parts: list[Part]
    todo: list[Part]
    clutter: Counter[str]  # objects that systems left in batches
    newest: float  # when the newest object of a complete batch was written, seconds since 1970


def plan(spec: PlanSpec) -> Plan:
    """Decide what the night does. Raises InputError when the source holds no complete batch."""
    pipeline, seen = spec.pipeline, outlook(spec)
    for name in seen.waiting:
        print(
            f"batch {one_line(name)} is still changing and has no {READY} marker: it waits for a later night"
        )
    for line in batches.left_out(seen.clutter):
        print(one_line(line))
    verdict = seen.verdict
    print(one_line(f"plan: {verdict.reason}"))
    groups = batches.grouped(seen.todo, pipeline.preprocess.part_seconds)
    # A night whose parts are all done still sends one message, an empty one: no messages mean no night.
    sent = [message(group) for group in groups] or [message([])] if verdict.work else []
    draft = Plan(
        pipeline=pipeline,
        night=spec.night,
        source=source_of(pipeline),
        work=verdict.work,
        reason=verdict.reason,
        batches=len(seen.batches),
        images=sum(batch.files for batch in seen.batches.values()),
        data_digest=_data_digest(seen.parts),
        settings_digest=pipeline.settings_digest(),
        parts_uri=store(seen.batches, seen.parts) if verdict.work else "",
        messages=tuple(sent),
        previous=seen.previous.digest if seen.previous else "",
        drift_limit=verdict.drift_limit,
        cache_salt=spec.night if verdict.again else "",
        newest=seen.newest,
        start=initial_weights.find(pipeline.train.weights, pipeline.name) if verdict.work else None,
    )
    return draft.model_copy(update={"mlflow_run_id": open_run(draft)}) if draft.work else draft


def outlook(spec: PlanSpec) -> Outlook:
    """Look at the source, the ledger and what is preprocessed already; writes nothing.

    Raises InputError when the source holds no complete batch.
    """
    pipeline, source = spec.pipeline, source_of(spec.pipeline)
    waiting: list[str] = []
    clutter = Counter[str]()
    seen: dict[str, BatchSeen] = {}
    parts: list[Part] = []
    newest = 0.0
    found = storage.listing(source)
    for batch in batches.complete(found, pipeline.settle_minutes * 60, waiting, clutter):
        seen[batch.name] = batch.seen()
        newest = max(newest, batch.newest)
        parts += batches.cut(batch, pipeline.preprocess, source)
    if not parts:
        raise InputError(
            f"source {source} holds no complete batch ({len(waiting)} still arriving); "
            f"put one there with: nightshift ingest FOLDER --pipeline {pipeline.name}"
        )
    asks = _asks(pipeline)
    last = ledger.latest(pipeline.name, waiting=asks)
    previous = ledger.dataset(last.dataset) if last else None
    digests = (_data_digest(parts), pipeline.settings_digest())
    decided = ledger.decided(pipeline.name, *digests, waiting=asks)
    verdict = schedule.judge(Facts(pipeline, seen, last, previous, decided, forced=spec.force))
    todo = _todo(parts) if verdict.work else []
    return Outlook(verdict, seen, previous, waiting, parts, todo, clutter, newest)


def _asks(pipeline: Pipeline) -> bool:
    """Whether a challenger may wait for a person for days: it is as good as decided meanwhile."""
    policy = pipeline.promotion
    first = policy.asks == "first" and ledger.champion(pipeline.name) is None
    return policy.mode != "auto" or first


def open_run(draft: Plan) -> str | None:
    """Open the night's MLflow run with every setting as a parameter."""
    from nightshift.tracking import owners, runs

    params = {
        f"{stage}.{field}": value
        for stage in STAGE_SETTINGS
        for field, value in getattr(draft.pipeline, stage).model_dump(mode="json").items()
    }
    params |= {"data_digest": draft.data_digest, "settings_digest": draft.settings_digest}
    run = runs.open_run(draft.pipeline.name, draft.night, params=params)
    owners.note(draft.pipeline.name)
    return run


def _todo(parts: list[Part]) -> list[Part]:
    """Parts that are not done, or lost something since."""
    with ThreadPoolExecutor(LOOKUPS) as pool:
        done = pool.map(shards.found, (part.digest for part in parts))
        return [part for part, result in zip(parts, done, strict=True) if result is None]


def _data_digest(parts: list[Part]) -> str:
    return digest_of(sorted(part.digest for part in parts))
