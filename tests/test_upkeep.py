"""Cleaning up as a whole, with a real MLflow server whose artifacts lie in the store."""

import json
import os
import time
from pathlib import Path

import pytest
from promotions import act, challenger
from test_storage import s3, s3_server

from nightshift import storage
from nightshift.__main__ import call
from nightshift.config.upkeep import DAY, Retention
from nightshift.errors import InputError, OutageError
from nightshift.records.specs import UpkeepSpec
from nightshift.records.upkeep import GarbageList
from nightshift.tracking import inventory, registry, runs
from nightshift.workflows.upkeep import upkeep
from nightshift.workflows.upkeep.upkeep import UpkeepResult

__all__ = ["s3", "s3_server"]  # fixtures: a real S3 server
# Nothing of this test is older than an hour, so "now" is put off instead. No version of another test goes,
# since they share the server: those have few versions of each model.
LATER = time.time() + 400 * DAY


@pytest.fixture
def root(registering, ml_store: Path) -> str:
    """The store, without what MLflow keeps."""
    return f"file://{ml_store}"


@pytest.fixture
def files(root: str, registering, ml_store: Path) -> Path:
    """What MLflow keeps, in the store where the stack has it; that of other tests is there too."""
    (ml_store / "mlflow").symlink_to(registering.files)
    return Path(registering.files)


def put(root: str, *keys: str) -> None:
    for key in keys:
        storage.write(f"{root}/{key}", b'{"parts": []}')


def keys(root: str) -> set[str]:
    return {each.key for each in storage.listing(root, etags=False) if not each.key.startswith("mlflow/")}


def look(now: float = LATER, **settings: object) -> UpkeepResult:
    asked = {"action": "look", "settings": settings, "now": now}
    return upkeep.upkeep(UpkeepSpec.model_validate(asked))


def delete(found: UpkeepResult, now: float = LATER) -> UpkeepResult:
    return upkeep.upkeep(UpkeepSpec(action="delete", list_uri=found.list_uri, now=now))


def listed(found: UpkeepResult, own: str = "") -> list[str]:
    """What is on the list by its key in the store, but for earlier lists; of MLflow's only what has `own`."""
    doomed = storage.read_record(found.list_uri, GarbageList).doomed
    keys = [each.uri.removeprefix(f"{os.environ['NIGHTSHIFT_STORE']}/") for each in doomed]
    return [key for key in keys if not key.startswith(("upkeep/", "mlflow/")) or (own and own in key)]


def stored(files: Path, model_id: str) -> int:
    """How many files of a logged model there are."""
    return sum(path.is_file() for path in files.glob(f"*/models/{model_id}/artifacts/*"))


LOG = "logs/dag_id=retrain_pets/run_id=r/task_id=plan/attempt=1.log"
NIGHT = (
    *("shards/p/train-00000.safetensors", "shards/p/index.parquet", "shards/p/part.json"),
    *("checkpoints/c/model.safetensors", "checkpoints/c/checkpoint.json", "plans/l.json"),
)


def test_a_run_deletes_exactly_what_a_dry_run_lists(root, capsys):
    put(root, *NIGHT, "incoming/pets/b/cat/1.png", "mine/x", LOG)
    before = keys(root)
    found = look()
    assert keys(root) == before | {found.list_uri.removeprefix(f"{root}/")}  # to look deletes nothing
    assert set(listed(found)) == {*NIGHT, LOG}
    assert (found.objects, found.size) == (7, 7 * 13)
    assert found.remarks == ("mine/ is not known here and is not touched",)
    capsys.readouterr()
    done = delete(found)
    assert (done.deleted, done.spared) == (7, 0)
    assert keys(root) == {"incoming/pets/b/cat/1.png", "mine/x", found.list_uri.removeprefix(f"{root}/")}
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("deleted: ")]
    assert len(lines) == 7
    assert all(line.endswith((" names it, 400 days old", ": a log, 400 days old")) for line in lines)


def test_what_says_that_the_rest_is_whole_goes_first(root):
    put(root, *NIGHT, "predictions/pets/1/b/_SUCCESS", "predictions/pets/1/b/_parts/0.json")
    put(root, "predictions/pets/1/b/0.parquet", "predictions/pets/2/b/0.parquet")
    os.utime(f"{root.removeprefix('file://')}/predictions/pets/2/b/0.parquet", (LATER, LATER))
    found = listed(look())
    markers = {"shards/p/part.json", "checkpoints/c/checkpoint.json", "plans/l.json"}
    markers |= {"predictions/pets/1/b/_SUCCESS", "predictions/pets/1/b/_parts/0.json"}
    assert set(found[: len(markers)]) == markers
    assert len(found) == 9


def test_a_delete_that_broke_off_is_finished_by_another(root, monkeypatch):
    put(root, *NIGHT)
    found = look()
    remaining = [3]

    def broken(uri: str) -> None:
        remaining[0] -= 1
        if remaining[0] < 0:
            raise OutageError("the store is away")
        os.remove(uri.removeprefix("file://"))

    with monkeypatch.context() as patch:
        patch.setattr(upkeep, "DELETIONS", 1)
        patch.setattr(storage, "delete", broken)
        with pytest.raises(OutageError, match="the store is away"):
            delete(found)
    assert {key for key in keys(root) if key.endswith("n")} == {found.list_uri.removeprefix(f"{root}/")}
    assert len(keys(root)) == 1 + 3  # the markers are gone, the rest is there
    done = delete(found)
    assert (done.deleted, done.spared) == (3, 3)
    assert keys(root) == {found.list_uri.removeprefix(f"{root}/")}


def test_what_is_wanted_since_the_list_was_made_stays(root):
    put(root, *NIGHT, "checkpoints/old/model.safetensors", "shards/q/part.json")
    found = look()
    plan = f"{root}/plans/new.json"
    storage.write(plan, b'{"parts": [{"digest": "q"}]}')  # a night begins
    os.utime(plan.removeprefix("file://"), (LATER, LATER))
    weights = {"uri": f"{root}/checkpoints/c/model.safetensors", "sha256": "0" * 64, "size": 1}
    challenger("wants", 1, **{registry.CHECKPOINTS: json.dumps([weights])})
    put(root, "reports/late/report.html")  # not on the list, so not deleted
    done = delete(found)
    assert done.spared == 3
    kept = {key for key in NIGHT if key.startswith("checkpoints/")} | {"shards/q/part.json", "plans/new.json"}
    assert keys(root) == kept | {"reports/late/report.html", found.list_uri.removeprefix(f"{root}/")}


def test_what_the_caller_names_stays(root):
    put(root, *NIGHT)
    asked = UpkeepSpec(
        action="look", now=LATER, named=(json.dumps({"weights": f"{root}/checkpoints/c/checkpoint.json"}),)
    )
    found = upkeep.upkeep(asked)
    assert not any(key.startswith("checkpoints/") for key in listed(found))
    put(root, "checkpoints/c/checkpoint.json")
    delete(found)
    assert {key for key in NIGHT if key.startswith("checkpoints/")} <= keys(root)


def versions(name: str) -> set[str]:
    return {each.version for each in inventory.versions() if each.name == name}


def test_an_old_version_goes_with_its_file_and_with_what_only_it_named(root, files):
    for seed in (1, 2, 3):
        put(root, f"reports/{seed}/report.html")
        challenger("aged", seed, **{registry.REPORT: f"{root}/reports/{seed}/report.html"})
    act("move", "aged", "2")
    act("move", "aged", "3")
    models = {each.version: each.model_id for each in inventory.versions() if each.name == "aged"}
    found = look(keep_versions=1, version_days=200)
    gone = listed(found, models["1"])
    assert "models:/aged/1" in gone
    assert "reports/1/report.html" in gone
    assert not {"reports/2/report.html", "reports/3/report.html", "models:/aged/2"} & set(gone)
    assert sum(key.startswith("mlflow/") for key in gone) == stored(files, models["1"]) == 7
    done = delete(found)
    assert done.spared == 0
    assert versions("aged") == {"2", "3"}
    assert keys(root) >= {"reports/2/report.html", "reports/3/report.html"}
    assert [stored(files, models[version]) for version in "123"] == [0, 7, 7]
    for version in ("2", "3"):
        registry.fetch_model(f"models:/aged/{version}")
    assert listed(look(keep_versions=1, version_days=200), models["1"]) == []


def test_removing_a_version_goes_on_where_it_broke_off(files, monkeypatch):
    for seed in (1, 2):
        challenger("cut-off", seed)
    (model_id,) = (each.model_id for each in inventory.versions() if each.uri == "models:/cut-off/1")
    found = look(keep_versions=1)
    with monkeypatch.context() as patch:
        patch.setattr(storage, "delete", lambda uri: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            delete(found)
    assert versions("cut-off") == {"2"}
    with pytest.raises(InputError):
        registry.fetch_model("models:/cut-off/1")
    assert stored(files, model_id) == 7
    delete(found)
    assert stored(files, model_id) == 0


def test_a_version_that_became_champion_since_stays_with_all_that_it_names(root, files):
    put(root, "reports/1/report.html")
    for seed in (1, 2):
        challenger("returns", seed, **{registry.REPORT: f"{root}/reports/{seed}/report.html"})
    found = look(keep_versions=1)
    assert "models:/returns/1" in listed(found)
    act("move", "returns", "1")
    delete(found)
    registry.fetch_model("models:/returns/1")
    assert "reports/1/report.html" in keys(root)


def test_artifacts_that_mlflow_does_not_know_go_and_those_of_deleted_runs_stay(root, files):
    challenger("known", 1)
    run_id = runs.open_run("known", "to be deleted", params={})
    runs.log_artifact(run_id, "report/report.html", b"r")
    runs.client().delete_run(run_id)
    run, model = "0" * 32, f"m-{'0' * 32}"
    orphans = {f"mlflow/1/{run}/artifacts/a.html", f"mlflow/1/models/{model}/artifacts/MLmodel"}
    put(root, *orphans, "mlflow/1/traces/tr-0/artifacts/t.json")
    assert listed(look(now=time.time() + 29 * DAY), "0" * 32) == []
    found = look()
    assert set(listed(found, "0" * 32)) == orphans
    assert listed(found, run_id) == []
    delete(found)
    assert not any(storage.exists(f"{root}/{key}") for key in orphans)
    assert storage.exists(f"{root}/mlflow/1/traces/tr-0/artifacts/t.json")
    assert runs.client().get_run(run_id).info.lifecycle_stage == "deleted"


def test_artifacts_of_which_mlflow_knows_none_are_another_server_s(registering, ml_store):
    root = f"file://{ml_store}"
    put(root, f"mlflow/1/{'0' * 32}/artifacts/a.html")
    found = look()
    assert listed(found, "0" * 32) == []
    assert found.remarks == (
        f"MLflow knows nothing of what lies in {root}/mlflow, so it is another server's and stays",
    )


def test_what_versions_lack_is_found_and_nothing_is_deleted_for_it(root):
    challenger("poor", 1, **{registry.REPORT: f"{root}/reports/gone/report.html"})
    found = look()
    assert (
        f"version 1 of poor lacks its report: {root}/reports/gone/report.html is not there" in found.findings
    )
    assert versions("poor") == {"1"}


def test_on_s3_an_upload_that_nobody_ended_is_given_up(registering, s3, tmp_path, monkeypatch):
    import boto3

    monkeypatch.setenv("NIGHTSHIFT_STORE", f"{s3}/{tmp_path.name}")
    key = f"{tmp_path.name}/shards/p/part.json"
    boto3.Session().client("s3").create_multipart_upload(Bucket="test", Key=key)
    storage.write(f"{s3}/{key}", b"the object of that name is another thing")
    found = look(now=time.time() + 2 * DAY)
    assert listed(found) == [f"{s3}/{key}".removeprefix(f"{s3}/{tmp_path.name}/")]
    done = delete(found, now=time.time() + 2 * DAY)
    assert done.deleted == 1
    assert list(storage.uploads(f"{s3}/{tmp_path.name}")) == []
    assert storage.exists(f"{s3}/{key}")


def test_the_stage_is_what_airflow_runs(root):
    put(root, *NIGHT)
    spec = UpkeepSpec(action="look", settings=Retention(grace_days=399), now=LATER)
    found = call("upkeep", spec.model_dump_json())
    assert UpkeepResult.model_validate_json(found.model_dump_json()).objects == 6
