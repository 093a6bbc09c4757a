"""Planning from listings: complete batches, how they are cut, and when a night has nothing to do."""

import pytest

from tasks import ledger, storage
from tasks.config import Pipeline, PreprocessSettings
from tasks.errors import InputError
from tasks.plan import Batch, cut, messages, plan, ready_batches
from tasks.records import Decision, PlanSpec
from tasks.storage import Stored

OLD, NEW = 1_000.0, 4e9  # seconds since 1970: long settled, and still changing


def listing(*rows: tuple[str, float]) -> list[Stored]:
    return [Stored(key, 10, "etag", modified) for key, modified in rows]


@pytest.fixture
def store(tmp_path, monkeypatch):
    root = f"file://{tmp_path}"
    monkeypatch.setenv("NIGHTSHIFT_STORE", root)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return root


def drop(store: str, batch: str, count: int, ready: bool = True) -> None:
    for index in range(count):
        storage.write(f"{store}/incoming/pets/{batch}/cat/{index:03d}.png", f"{batch}{index}".encode())
    if ready:
        storage.write(f"{store}/incoming/pets/{batch}/_READY", b"")


def test_a_batch_waits_until_its_marker_is_there_or_it_settled():
    waiting: list[str] = []
    objects = listing(
        ("a/x/1.png", NEW), ("a/_READY", NEW), ("b/x/1.png", NEW), ("c/x/1.png", OLD), ("stray.png", OLD)
    )
    found = list(ready_batches(objects, 600, waiting))
    assert [batch.name for batch in found] == ["a", "c"]
    assert waiting == ["b"]


def test_markers_and_manifests_are_not_images():
    objects = listing(("a/_READY", OLD), ("a/manifest.csv", OLD), ("a/x/1.png", OLD))
    (batch,) = ready_batches(objects, 600, [])
    assert [key for key, _, _ in batch.files] == ["x/1.png"]
    assert batch.manifest is not None


def test_parts_cover_a_batch_once_and_are_of_equal_size():
    pipeline = Pipeline(name="pets", preprocess=PreprocessSettings(part_images=4))
    files = tuple((f"cat/{index:02d}.png", 1, "e") for index in range(9))
    parts = list(cut(Batch("a", files, None), pipeline, "s3://x/y"))
    assert [len(part.keys) for part in parts] == [3, 3, 3]
    assert [key for part in parts for key in part.keys] == [key for key, _, _ in files]
    assert len({part.digest for part in parts}) == 3


@pytest.mark.parametrize("change", ["etag", "manifest", "settings"])
def test_a_parts_digest_changes_with_what_its_shards_depend_on(change):
    def digest(etag: str = "e", manifest: tuple[str, int, str] | None = None, size: int = 32) -> str:
        pipeline = Pipeline(name="pets", preprocess=PreprocessSettings(image_size=size))
        (part,) = cut(Batch("a", (("cat/1.png", 1, etag),), manifest), pipeline, "s3://x/y")
        return part.digest

    changed = {
        "etag": digest(etag="f"),
        "manifest": digest(manifest=("manifest.csv", 3, "m")),
        "settings": digest(size=64),
    }
    assert digest() == digest()
    assert changed[change] != digest()


def test_messages_are_grouped_and_bounded(store):
    pipeline = Pipeline(name="pets", preprocess=PreprocessSettings(part_images=1))
    files = tuple((f"cat/{index:04d}.png", 1, "e") for index in range(1000))
    parts = list(cut(Batch("a", files, None), pipeline, "s3://x/y"))
    grouped = list(messages(parts, 1))
    assert len(parts) == 1000
    assert len(grouped) <= 256
    assert sum(message.images for message in grouped) == 1000


def test_an_empty_source_says_where_it_looked_and_what_to_do(store):
    with pytest.raises(
        InputError, match=rf"{store}/incoming/pets holds no complete batch.*nightshift ingest"
    ):
        plan(PlanSpec(pipeline=Pipeline(name="pets"), night="n1"))


def test_decided_data_ends_the_night_unless_forced_or_changed(store, monkeypatch):
    monkeypatch.setattr("tasks.plan.open_run", lambda draft: None)
    drop(store, "a", 3)
    first = plan(PlanSpec(pipeline=Pipeline(name="pets"), night="n1"))
    assert first.work
    assert first.images == 3

    def decide(kind: str) -> None:
        ledger.append(
            Decision(
                pipeline="pets",
                kind=kind,
                version="1",
                sha256="0" * 64,
                data_digest=first.data_digest,
                settings_digest=first.settings_digest,
                instead_of=None,
                by="policy",
                at=ledger.now(),
                night="n1",
                reasons=(),
            )
        )

    decide("challenger")  # registered, then the promotion failed: not decided
    assert plan(PlanSpec(pipeline=Pipeline(name="pets"), night="n2")).work
    decide("promoted")
    again = plan(PlanSpec(pipeline=Pipeline(name="pets"), night="n3"))
    assert not again.work
    assert "promoted as version 1" in again.reason
    assert plan(PlanSpec(pipeline=Pipeline(name="pets"), night="n4", force=True)).salt == "n4"
    drop(store, "b", 2)
    grown = plan(PlanSpec(pipeline=Pipeline(name="pets"), night="n5"))
    assert grown.work
    assert grown.data_digest != first.data_digest


def test_the_order_of_a_listing_does_not_change_the_data_digest(store, monkeypatch):
    monkeypatch.setattr("tasks.plan.open_run", lambda draft: None)
    for batch in ("b", "a"):
        drop(store, batch, 2)
    one = plan(PlanSpec(pipeline=Pipeline(name="pets"), night="n1"))
    two = plan(PlanSpec(pipeline=Pipeline(name="pets"), night="n2"))
    assert one.data_digest == two.data_digest
