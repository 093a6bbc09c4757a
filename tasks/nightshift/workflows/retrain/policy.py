"""When a night has work: the retraining policy. Facts go in, a verdict with its reason comes out; no I/O."""

from datetime import UTC, datetime
from typing import NamedTuple

from nightshift.config import Pipeline
from nightshift.records import BatchSeen, Dataset, Decision

DAY = 86_400  # seconds


class Facts(NamedTuple):
    """What planning found. `decided` is on exactly these data and settings, `last` the newest decision."""

    pipeline: Pipeline
    batches: dict[str, BatchSeen]
    last: Decision | None
    previous: Dataset | None  # the data set of `last`
    decided: Decision | None
    forced: bool


class Verdict(NamedTuple):
    """`again`: nothing of an earlier night may be taken. `drift_limit`: train only when drift exceeds it."""

    work: bool
    reason: str
    again: bool = False
    drift_limit: float | None = None


def judge(facts: Facts) -> Verdict:
    """The first rule that gives the night work, in the order in which people would name it."""
    policy, known = facts.pipeline.retrain, ""
    if facts.decided is not None:
        what = "offered for promotion" if facts.decided.kind == "challenger" else facts.decided.kind
        known = (
            f"the same data and settings were {what} as version {facts.decided.version} at {facts.decided.at}"
        )
    if facts.forced:
        return Verdict(True, f"forced although {known}" if known else "forced", again=True)
    if policy.always:
        return Verdict(True, "retrain.always is set", again=bool(known))
    if facts.last is None:
        return Verdict(True, "nothing was decided before: this is the first night")
    age = (datetime.now(UTC) - datetime.fromisoformat(facts.last.at)).total_seconds() / DAY
    if policy.max_age_days is not None and age > policy.max_age_days:
        reason = f"the last decision is {age:.1f} days old, retrain.max_age_days is {policy.max_age_days:g}"
        return Verdict(True, reason, again=bool(known))
    if known:
        return Verdict(False, f"nothing to do: {known}")
    return _changed(facts) or _grown(facts)


def _changed(facts: Facts) -> Verdict | None:
    """Other settings than the last decision's, or a batch that is gone: always worth a night."""
    last, previous = facts.last, facts.previous
    if previous is None or last is None:
        return Verdict(True, "the data set of the last decision is gone, so this one counts as new")
    if last.settings_digest != facts.pipeline.settings_digest():
        before, now = previous.preprocess.model_dump(), facts.pipeline.preprocess.model_dump()
        changes = [
            f"{field} {before[field]} -> {now[field]}" for field in now if before.get(field) != now[field]
        ]
        if previous.preprocess.shards_digest() != facts.pipeline.preprocess.shards_digest():
            total = sum(batch.files for batch in facts.batches.values())
            return Verdict(
                True, f"preprocess.{', '.join(changes)}: all {total:,} images are preprocessed again"
            )
        return Verdict(True, "settings changed since the last decision")
    if gone := sorted(previous.batches.keys() - facts.batches.keys()):
        return Verdict(True, f"removed from the source: {_names(gone)}")
    if facts.batches == previous.batches:
        return Verdict(
            True,
            "what was decided on these images does not stand any more, or Nightshift itself makes other "
            "shards of them than before",
        )
    return None


def _grown(facts: Facts) -> Verdict:
    policy, before = facts.pipeline.retrain, facts.previous.batches if facts.previous else {}
    new = [name for name, batch in facts.batches.items() if before.get(name) != batch]
    images = sum(_new_images(before.get(name), facts.batches[name]) for name in new)
    counted = f"{images:,} new or changed images in {_names(new)}, "
    counted += f"retrain.min_new_images is {policy.min_new_images:,}"
    if images >= policy.min_new_images:
        return Verdict(True, counted)
    if policy.max_drift is not None:
        return Verdict(
            True, f"{counted}; retrain.max_drift decides after preprocessing", drift_limit=policy.max_drift
        )
    return Verdict(False, f"{counted}: too few; force the night to train all the same")


def _new_images(before: BatchSeen | None, now: BatchSeen) -> int:
    """How many images are new; all of a batch that changed without growing, since a listing tells no more.

    Its labels may have been corrected, or images replaced or moved to another class.
    """
    return now.files - before.files if before and now.files > before.files else now.files


def _names(batches: list[str]) -> str:
    shown = ", ".join(batches[:3])
    rest = f" and {len(batches) - 3:,} more" if len(batches) > 3 else ""
    return f"{'batch' if len(batches) == 1 else 'batches'} {shown}{rest}"
