"""Planning a night against a real store: what is new, what was decided, what is written down."""

from datetime import timedelta
from typing import Any

import pytest

from nightshift import storage
from nightshift.config import Pipeline, PreprocessSettings, PromotionPolicy, RetrainPolicy, TrainSettings
from nightshift.data import index
from nightshift.errors import InputError
from nightshift.records import (
    BatchSeen,
    Dataset,
    Decision,
    Duplicates,
    Part,
    PartList,
    PartResult,
    Plan,
    Profile,
    Shard,
)
from nightshift.records.specs import PlanSpec
from nightshift.storage import outputs
from nightshift.tracking import ledger
from nightshift.workflows.retrain.plan import outlook, plan

SMALL = PreprocessSettings(part_seconds=0.0022)  # two files a part


@pytest.fixture
def store(tmp_path, monkeypatch):
    root = f"file://{tmp_path}"
    monkeypatch.setenv("NIGHTSHIFT_STORE", root)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr("nightshift.workflows.retrain.plan.open_run", lambda draft: None)
    return root


def drop(store: str, batch: str, count: int) -> None:
    for number in range(count):
        storage.write(f"{store}/incoming/pets/{batch}/cat/{number:03d}.png", f"{batch}{number}".encode())
    storage.write(f"{store}/incoming/pets/{batch}/_READY", b"")


def ask(night: str = "n", *, force: bool = False, **settings: Any) -> PlanSpec:
    return PlanSpec(pipeline=Pipeline(name="pets", **settings), night=night, force=force)


def decide(store: str, planned: Plan, kind: str) -> None:
    """Write down what a night leaves behind that came to a decision."""
    seen = storage.read_record(planned.parts_uri, PartList).batches
    dataset = Dataset(
        digest=planned.data_digest,
        classes=(),
        shards=(),
        counts={},
        mean=(0, 0, 0),
        std=(1, 1, 1),
        refused=0,
        image_size=32,
        preprocess=planned.pipeline.preprocess,
        source="",
        batches=seen,
        profile=Profile(images=0, classes={}, histograms={}),
        duplicates=Duplicates(merged=0, conflicting=0, near=0, near_excluded=True),
    )
    storage.write_record(f"{store}/datasets/{dataset.digest}.json", dataset)
    values = {
        "pipeline": "pets",
        "kind": kind,
        "version": "1",
        "sha256": "0" * 64,
        "dataset": dataset.digest,
        "data_digest": planned.data_digest,
        "settings_digest": planned.settings_digest,
        "replaces": None,
        "by": "policy",
        "at": ledger.now(),
        "night": planned.night,
        "reasons": (),
    }
    ledger.append(Decision.model_validate(values))


def test_an_empty_source_says_where_it_looked_and_what_to_do(store):
    with pytest.raises(
        InputError, match=rf"{store}/incoming/pets holds no complete batch.*nightshift ingest"
    ):
        plan(ask())


def test_decided_data_ends_the_night_unless_forced_or_grown(store):
    drop(store, "a", 3)
    first = plan(ask("n1"))
    assert (first.work, first.images) == (True, 3)
    decide(store, first, "challenger")
    assert "offered for promotion as version 1" in plan(ask("n2")).reason
    decide(store, first, "promoted")
    again = plan(ask("n3"))
    assert not again.work
    assert "promoted as version 1" in again.reason
    assert plan(ask("n4", force=True)).cache_salt == "n4"
    drop(store, "b", 2)
    grown = plan(ask("n5"))
    assert "2 new or changed images in batch b" in grown.reason
    assert grown.data_digest != first.data_digest
    assert grown.previous == first.data_digest
    assert not plan(ask("n6", retrain=RetrainPolicy(min_new_images=3))).work


def test_a_night_fixes_the_weights_that_it_starts_from(store):
    drop(store, "a", 3)
    uri = storage.write(f"{store}/given.safetensors", b"weights").uri
    train = TrainSettings(weights=uri)
    first = plan(ask("n1", train=train))
    storage.write(uri, b"others")
    second = plan(ask("n2", train=train))
    assert first.start
    assert second.start
    assert first.start.weights.uri == second.start.weights.uri == uri
    assert first.start.weights.sha256 != second.start.weights.sha256
    decide(store, second, "promoted")
    storage.write(uri, b"changed again")
    assert not plan(ask("n3", train=train)).work  # other weights alone are no reason for a night
    assert plan(ask("n4")).start is None


def done(store: str, part: Part) -> PartResult:
    """Leave behind what preprocessing leaves, in small."""
    folder = f"{store}/shards/{part.digest}"
    shard = Shard(
        file=outputs.write(folder, "train-00000.safetensors", b"s"), split="train", images=1, classes=()
    )
    found = index.write(folder, [])
    result = PartResult(
        part=part.digest, batch=part.batch, shards=(shard,), index=found, refusals=(), seconds=1.0
    )
    storage.write_record(f"{folder}/part.json", result)
    return result


@pytest.mark.parametrize("harm", ["delete", "cut", "index", "record"])
def test_a_part_that_lost_something_is_made_again(store, harm):
    drop(store, "a", 1)
    (part,) = storage.read_record(plan(ask()).parts_uri, PartList).parts
    result = done(store, part)
    assert plan(ask()).messages[0].parts == 0
    if harm == "delete":
        storage.delete(result.shards[0].file.uri)
    elif harm == "cut":
        storage.write(result.shards[0].file.uri, b"")
    elif harm == "index":
        storage.delete(result.index.uri)
    else:
        storage.write(f"{store}/shards/{part.digest}/part.json", b"{")
    assert plan(ask()).messages[0].parts == 1


def test_only_parts_that_nobody_has_done_are_sent(store):
    drop(store, "a", 4)
    first = plan(ask(preprocess=SMALL))
    parts = storage.read_record(first.parts_uri, PartList).parts
    assert [message.images for message in first.messages] == [2, 2]
    done(store, parts[0])
    (message,) = plan(ask(preprocess=SMALL)).messages
    assert [part.digest for part in storage.read_record(message.parts_uri, PartList).parts] == [
        parts[1].digest
    ]


def test_a_night_with_all_parts_done_sends_one_empty_message(store):
    drop(store, "a", 1)
    (part,) = storage.read_record(plan(ask()).parts_uri, PartList).parts
    done(store, part)
    (message,) = plan(ask()).messages
    assert (message.parts, message.images) == (0, 0)


def test_the_order_of_a_listing_does_not_change_the_data_digest(store):
    for batch in ("b", "a"):
        drop(store, batch, 2)
    assert plan(ask("n1")).data_digest == plan(ask("n2")).data_digest


def test_a_batch_that_is_gone_leaves_the_plan(store):
    drop(store, "a", 2)
    drop(store, "b", 2)
    decide(store, plan(ask("n1")), "promoted")
    for stored in list(storage.listing(f"{store}/incoming/pets/b")):
        storage.delete(f"{store}/incoming/pets/b/{stored.key}")
    found = plan(ask("n2"))
    assert found.images == 2
    assert found.reason == "removed from the source: batch b"


def test_looking_ahead_writes_nothing(store):
    drop(store, "a", 3)
    before = [stored.key for stored in storage.listing(store)]
    seen = outlook(ask())
    assert seen.verdict.work
    assert seen.batches == {"a": BatchSeen(files=3, digest=seen.batches["a"].digest)}
    assert [stored.key for stored in storage.listing(store)] == before


def test_a_night_that_was_queued_meanwhile_does_not_train_what_waits_for_its_promotion(store, monkeypatch):
    drop(store, "a", 3)
    first = plan(ask("n1"))
    decide(store, first, "challenger")
    queued = plan(ask("n2"))
    assert not queued.work
    assert "the same data and settings were offered for promotion as version 1" in queued.reason
    monkeypatch.setattr(ledger, "OFFERED", timedelta())  # hours later: the promotion failed
    assert plan(ask("n3")).work


@pytest.mark.parametrize(
    ("policy", "work"),
    [
        ({"mode": "never"}, False),
        ({"mode": "approve"}, False),
        ({"first_champion": "approve"}, False),
        ({}, True),
    ],
)
def test_what_is_only_recorded_or_waits_for_a_person_is_not_trained_again(store, monkeypatch, policy, work):
    monkeypatch.setattr(ledger, "OFFERED", timedelta())
    drop(store, "a", 3)
    promotion = PromotionPolicy(**policy)
    decide(store, plan(ask("n1", promotion=promotion)), "challenger")
    assert plan(ask("n2", promotion=promotion)).work == work
