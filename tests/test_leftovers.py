"""What nothing needs any more, in a store on the local disk and uploads on a real S3 server."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import boto3
import pytest
from test_storage import s3, s3_server

from nightshift import storage
from nightshift.config.upkeep import DAY, Retention
from nightshift.records.upkeep import Tally
from nightshift.tracking.inventory import Version
from nightshift.workflows.upkeep.garbage import UNTOUCHED, GarbageFinder
from nightshift.workflows.upkeep.reachable import ReachableSet

__all__ = ["s3", "s3_server"]  # fixtures: a real S3 server
NOW = time.time()


@pytest.fixture
def put(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Writes an object of some age in days and says its address."""
    monkeypatch.setenv("NIGHTSHIFT_STORE", f"file://{tmp_path}")

    def write(key: str, age: float = 100, content: object = None) -> str:
        storage.write(f"file://{tmp_path}/{key}", json.dumps(content).encode())
        os.utime(tmp_path / key, (NOW - age * DAY,) * 2)
        return f"file://{tmp_path}/{key}"

    return write


def swept(reach: ReachableSet | None = None, **settings: float) -> dict[str, str]:
    """Reasons by key, of everything but what MLflow knows."""
    found = GarbageFinder(Retention.model_validate(settings), NOW)
    reach = reach or ReachableSet()
    found.add_young(reach)
    found.units(reach)
    found.predictions([Version("pets", "1", {}, (), 0.0, "")])
    found.temporary()
    found.logs()
    found.uploads()
    root = os.environ["NIGHTSHIFT_STORE"]
    return {each.uri.removeprefix(f"{root}/"): each.reason for each in found.doomed}


EVERY = (
    *("shards/p/part.json", "shards/p/index.parquet", "shards/p/train-00000.safetensors"),
    *("datasets/d.json", "plans/l.json", "reports/r/report.html", "sweeps/pets/s/trial-0001.json"),
    *("checkpoints/c/checkpoint.json", "checkpoints/c/model.safetensors", "candidates/k/model.onnx"),
)


def test_what_nothing_names_goes_with_its_whole_unit(put):
    for key in EVERY:
        put(key)
    found = swept()
    assert found.keys() == set(EVERY)
    assert found["datasets/d.json"] == "no version, decision or young record names it, 100 days old"


@pytest.mark.parametrize("key", EVERY)
def test_what_is_named_stays_with_its_whole_unit(put, key):
    uris = {each: put(each, 100, {"parts": []}) for each in EVERY}
    reach = ReachableSet()
    reach.add(uris[key])
    unit = key if key.count("/") == 1 else key.rpartition("/")[0]
    assert swept(reach).keys() == {each for each in EVERY if not each.startswith(unit)}


def test_the_youngest_object_of_a_unit_keeps_all_of_it_for_the_days_of_grace(put):
    put("shards/p/a.safetensors", 100)
    put("shards/p/b.safetensors", 29)
    put("shards/q/a.safetensors", 31)
    assert swept().keys() == {"shards/q/a.safetensors"}
    assert len(swept(grace_days=28)) == 3
    assert swept(grace_days=40) == {}


def test_what_a_young_record_names_stays(put):
    old = put("datasets/d.json", 100, {"shards": [{"uri": put("shards/p/t.safetensors")}]})
    put("shards/q/part.json")
    put("shards/r/part.json")
    put("plans/young.json", 1, {"parts": [{"digest": "q"}]})
    put("plans/old.json", 100, {"parts": [{"digest": "r"}]})
    unnamed = {"datasets/d.json", "shards/p/t.safetensors", "shards/r/part.json", "plans/old.json"}
    assert swept().keys() == unnamed
    put("sweeps/pets/s/sweep.json", 100, {"dataset_uri": old})
    put("sweeps/pets/s/trial-0001.json", 1)  # the sweep goes on
    assert swept().keys() == {"shards/r/part.json", "plans/old.json"}


def test_a_training_that_did_not_end_goes_after_its_days_of_grace(put):
    put("checkpoints/c/progress.safetensors", 40)
    put("checkpoints/d/progress.safetensors", 20)
    assert swept() == {"checkpoints/c/progress.safetensors": "a training that did not end, for 40 days"}


def test_the_candidate_that_a_registered_version_is_stays(put):
    for name, digest in (("k", "a" * 64), ("l", "b" * 64)):
        put(f"candidates/{name}/candidate.json", 100, {"model": {"sha256": digest}})
    reach = ReachableSet()
    reach.models.add("a" * 64)
    assert swept(reach).keys() == {"candidates/l/candidate.json"}


@pytest.mark.parametrize("kind", [*sorted(UNTOUCHED), "mine"])
def test_what_people_bring_decide_and_save_is_never_touched(put, kind):
    put(f"{kind}/pets/batch/cat/1.png", 9000)
    put(f"{kind}/pets/{storage.PARTIAL}x", 9000)
    put("shards/loose", 9000)  # in no unit
    assert swept() == {}


def test_predictions_of_versions_that_are_gone_or_old_go_once_there_are_newer_ones(put):
    put("predictions/pets/1/mon/_SUCCESS", 200)
    put("predictions/pets/1/mon/part-1.parquet", 200)
    put("predictions/pets/9/mon/part-1.parquet", 100)
    put("predictions/pets/1/tue/part-1.parquet", 300)
    put("predictions/pets/2/mon/part-1.parquet", 20)  # young, and the newest of its batch
    put("predictions/pets/3/wed/part-1.parquet", 20)  # young
    put("predictions/pets/1/wed/part-1.parquet", 2)
    assert swept(prediction_days=90).keys() == {
        "predictions/pets/1/mon/_SUCCESS",
        "predictions/pets/1/mon/part-1.parquet",
        "predictions/pets/9/mon/part-1.parquet",
    }


def test_what_a_crash_left_behind_goes_after_a_day(put):
    for name, age in (("old", 1.1), ("young", 0.9)):
        put(f"doctor/{name}.txt", age)
        put(f"shards/p/{storage.PARTIAL}{name}", age)
    assert swept() == {
        "doctor/old.txt": "tried by nightshift doctor",
        f"shards/p/{storage.PARTIAL}old": "it was not written to its end",
    }


def test_old_logs_of_tasks_go_one_by_one(put):
    put("logs/dag_id=retrain_pets/run_id=r/task_id=plan/attempt=1.log", 91)
    put("logs/dag_id=retrain_pets/run_id=r/task_id=plan/attempt=2.log", 89)
    old = "logs/dag_id=retrain_pets/run_id=r/task_id=plan/attempt=1.log"
    assert swept() == {old: "a log, 91 days old"}
    assert swept(log_days=95) == {}
    assert len(swept(log_days=60)) == 2
    assert swept(log_days=60, grace_days=100) == {}


def test_old_lists_go_after_the_days_of_versions(put):
    put("upkeep/a.json", 40)
    put("upkeep/b.json", 60)
    assert swept(version_days=50) == {"upkeep/b.json": "60 days old"}


def test_numbers_and_bytes_are_counted_by_kind(put):
    put("shards/p/part.json", 100, "x" * 8)
    put("shards/q/part.json", 1, "x" * 98)
    found = GarbageFinder(Retention(), NOW)
    found.units(ReachableSet())
    assert found.tallies == {"shards": Tally(doomed=1, doomed_size=10, kept=1, kept_size=100)}


def test_an_upload_that_was_begun_and_not_ended_goes_after_a_day(s3, tmp_path, monkeypatch):
    monkeypatch.setenv("NIGHTSHIFT_STORE", f"{s3}/{tmp_path.name}")
    begun = (
        boto3.Session()
        .client("s3")
        .create_multipart_upload(Bucket="test", Key=f"{tmp_path.name}/incoming/a.zip")
    )
    young, old = GarbageFinder(Retention(), time.time()), GarbageFinder(Retention(), time.time() + 1.1 * DAY)
    young.uploads()
    old.uploads()
    assert young.doomed == []
    (doomed,) = old.doomed
    assert (doomed.uri, doomed.upload) == (f"{s3}/{tmp_path.name}/incoming/a.zip", begun["UploadId"])


def test_a_server_that_knows_no_uploads_is_a_remark(s3, monkeypatch):
    monkeypatch.setenv("NIGHTSHIFT_STORE", "s3://no-such-bucket")
    found = GarbageFinder(Retention(), NOW)
    found.uploads()
    assert found.doomed == []
    assert "uploads in parts are not looked at: S3 at http" in found.remarks[0]
