"""The retraining policy: which rule gives a night work, and the sentence that says so."""

from typing import Any

import pytest

from nightshift.config import Pipeline, PreprocessSettings, RetrainPolicy, TrainSettings
from nightshift.records import BatchSeen, Dataset, Decision
from nightshift.workflows.retrain.policy import Facts, Verdict, judge

SEEN = {"a": BatchSeen(files=100, digest="1"), "b": BatchSeen(files=50, digest="2")}


def decision(pipeline: Pipeline, **changes: Any) -> Decision:
    values = {
        "pipeline": "pets",
        "kind": "promoted",
        "version": "4",
        "sha256": "0",
        "dataset": "d",
        "data_digest": "data",
        "settings_digest": pipeline.settings_digest(),
        "replaces": None,
        "by": "policy",
        "at": "2026-01-01T00:00:00.000Z",
        "night": "n",
        "reasons": (),
    }
    return Decision.model_validate({**values, **changes})


def verdict(policy: dict[str, Any] | None = None, **changes: Any) -> Verdict:
    """Judge a night whose last decision, on batches a and b, was made with the default settings."""
    before = Pipeline(name="pets")
    pipeline = Pipeline(name="pets", retrain=RetrainPolicy.model_validate(policy or {}))
    pipeline = pipeline.model_copy(update=changes.pop("settings", {}))
    bare: Any = Dataset.model_construct
    facts = {
        "pipeline": pipeline,
        "batches": SEEN,
        "last": decision(before),
        "previous": bare(preprocess=before.preprocess, batches=SEEN),
        "decided": None,
        "forced": False,
    }
    return judge(Facts(**{**facts, **changes}))


GROWN = {**SEEN, "c": BatchSeen(files=30, digest="3")}


def test_the_first_night_always_works():
    assert verdict(last=None, previous=None).work


def test_what_was_decided_before_is_not_done_again_unless_forced():
    known = decision(Pipeline(name="pets"))
    nothing = verdict(decided=known)
    assert not nothing.work
    assert "promoted as version 4 at 2026-01-01" in nothing.reason
    forced = verdict(decided=known, forced=True)
    assert (forced.work, forced.again) == (True, True)


@pytest.mark.parametrize(("limit", "work"), [(30, True), (31, False)])
def test_new_images_are_counted_against_the_policy(limit, work):
    found = verdict({"min_new_images": limit}, batches=GROWN)
    assert found.work is work
    assert f"30 new or changed images in batch c, retrain.min_new_images is {limit}" in found.reason


@pytest.mark.parametrize(
    ("name", "now", "count"),
    [
        ("b", BatchSeen(files=75, digest="9"), 25),
        ("a", BatchSeen(files=100, digest="9"), 100),  # labels that were corrected
        ("a", BatchSeen(files=90, digest="9"), 90),
    ],
)
def test_a_batch_that_changed_counts_by_how_it_grew_or_whole(name, now, count):
    found = verdict({"min_new_images": count}, batches={**SEEN, name: now})
    assert found.work
    assert f"{count} new or changed images in batch {name}" in found.reason


def test_a_removed_batch_is_worth_a_night():
    found = verdict({"min_new_images": 1000}, batches={"a": SEEN["a"]})
    assert found.work
    assert "removed from the source: batch b" in found.reason


def test_too_few_new_images_wait_for_drift_when_that_is_asked():
    found = verdict({"min_new_images": 1000, "max_drift": 0.2}, batches=GROWN)
    assert (found.work, found.drift_limit) == (True, 0.2)
    assert "retrain.max_drift decides" in found.reason


def test_age_is_worth_a_night_even_with_nothing_new():
    known = decision(Pipeline(name="pets"))
    found = verdict({"max_age_days": 3}, decided=known)
    assert (found.work, found.again) == (True, True)
    assert "retrain.max_age_days is 3" in found.reason
    assert not verdict({"max_age_days": 36500}, decided=known).work


def test_always_means_always():
    known = decision(Pipeline(name="pets"))
    assert verdict({"always": True}, decided=known).again


def test_changed_settings_are_named_and_say_what_is_done_again():
    found = verdict(settings={"preprocess": PreprocessSettings(image_size=64)})
    assert found.work
    assert found.reason == "preprocess.image_size 32 -> 64: all 150 images are preprocessed again"
    other = verdict(settings={"train": TrainSettings(epochs=3)})
    assert other.work
    assert "again" not in other.reason
