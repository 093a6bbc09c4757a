"""What registered versions lack is told."""

import json
import os
import shutil
import time

import pytest
from promotions import challenger

from nightshift import storage
from nightshift.config import store_root
from nightshift.config.upkeep import Retention
from nightshift.errors import InputError
from nightshift.records import Decision
from nightshift.tracking import inventory, ledger, owners, registry, runs
from nightshift.workflows.upkeep.integrity import check_mlflow, missing_artifacts
from nightshift.workflows.upkeep.upkeep import survey


def complete(name: str, root: str) -> str:
    """Register a version that has everything."""
    shard = storage.write(f"{root}/shards/p/train-00000.safetensors", b"s").model_dump()
    storage.write(f"{root}/datasets/{name}.json", json.dumps({"shards": [{"file": shard}]}).encode())
    weights = storage.write(f"{root}/checkpoints/c/model.safetensors", b"w").model_dump()
    tags = {
        registry.DATASET: name,
        registry.CHECKPOINTS: json.dumps([weights]),
        registry.REPORT: storage.write(f"{root}/reports/r/report.html", b"r").uri,
    }
    return challenger(name, 1, **tags)


def said(name: str) -> list[str]:
    own = [version for version in inventory.versions() if version.name == name]
    return [sentence.replace(f"version 1 of {name} ", "") for sentence in missing_artifacts(own)]


def test_a_version_that_has_everything_lacks_nothing(registering, ml_store):
    complete("whole", f"file://{ml_store}")
    assert said("whole") == []


def test_what_is_missing_is_named(registering, ml_store):
    root = f"file://{ml_store}"
    complete("holed", root)
    for key, what in {
        "shards/p/train-00000.safetensors": "images",
        "checkpoints/c/model.safetensors": "checkpoint",
        "reports/r/report.html": "report",
        "datasets/holed.json": "data set",
    }.items():
        data = storage.read(f"{root}/{key}")
        storage.delete(f"{root}/{key}")
        assert said("holed") == [f"lacks its {what}: {root}/{key} is not there"]
        storage.write(f"{root}/{key}", data)


def test_a_missing_model_file_is_named(registering, ml_store):
    complete("empty", f"file://{ml_store}")
    (version,) = [each for each in inventory.versions() if each.name == "empty"]
    (folder,) = registering.files.glob(f"*/models/{version.model_id}")
    shutil.rmtree(folder)
    assert said("empty") == ["lacks its file model.onnx in MLflow: it cannot be loaded or promoted"]


def decide(pipeline: str, version: str, sha256: str) -> None:
    facts = {"pipeline": pipeline, "kind": "refused", "version": version, "sha256": sha256, "dataset": "d"}
    rest = {"data_digest": "d", "settings_digest": "s", "replaces": None, "by": "policy", "night": "n"}
    at = "2026-01-01T00:00:00.000Z"
    ledger.append(Decision.model_validate({**facts, **rest, "at": at, "reasons": ()}))


def test_another_server_than_the_ledger_speaks_of_is_refused(registering):
    version = challenger("mine", 1)
    versions = inventory.versions()
    assert check_mlflow(versions) == []
    decide("mine", version, "f" * 64)  # there is a version 1, but it is another one
    with pytest.raises(InputError, match=r"MLflow at http.* has none of .* for mine, such as version 1"):
        check_mlflow(versions)


def test_one_pipeline_of_another_server_keeps_everything(registering):
    """Two servers that share a store know nothing of each other's models."""
    challenger("here", 2)
    found = {each.name: each.tags[registry.SHA256] for each in inventory.versions()}
    decide("here", "1", found["here"])
    assert check_mlflow(inventory.versions()) == []
    decide("there", "9", "a" * 64)
    with pytest.raises(InputError, match=r"for there, such as version 9, so nothing is deleted; .*/there/"):
        check_mlflow(inventory.versions())


def test_a_newest_version_that_somebody_deleted_is_told(registering):
    challenger("pruned", 3)
    found = {each.name: each.tags[registry.SHA256] for each in inventory.versions()}
    decide("pruned", "1", found["pruned"])
    decide("pruned", "2", "e" * 64)
    (sentence,) = check_mlflow(inventory.versions())
    assert sentence.startswith("the ledger names version 2 of pruned with SHA-256 eeeeeeeeeeee, which MLflow")


def test_a_store_says_which_servers_write_to_it(registering):
    """Before a night of another server has registered anything, its images and checkpoints are there."""
    runs.open_run("ours", "night-1", params={})
    owners.note("ours")
    owners.note("ours")
    owners.note("never opened")
    assert owners.strangers() == []
    owners.check()
    theirs = owners.Owner(pipeline="theirs", experiment="1", created=7, server="https://mlflow.example.org")
    uri = storage.join(store_root(), "owners", "theirs-1-7.json")
    storage.write_record(uri, theirs)
    assert owners.strangers() == [theirs]
    why = rf"also that of theirs of https://mlflow\.example\.org, .*nothing is deleted; .* remove {uri} where"
    with pytest.raises(InputError, match=why):
        survey(Retention(), (), time.time())
    storage.delete(uri)
    owners.check()


def test_an_owner_s_record_holds_no_login(registering, monkeypatch):
    address = os.environ["MLFLOW_TRACKING_URI"]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address.replace("://", "://me:secret@"))
    runs.open_run("guarded", "night-1", params={})
    owners.note("guarded")
    (record,) = [
        storage.read(storage.join(store_root(), "owners", stored.key))
        for stored in storage.listing(storage.join(store_root(), "owners"))
        if stored.key.startswith("guarded-")
    ]
    assert address.encode() in record
    assert b"secret" not in record
