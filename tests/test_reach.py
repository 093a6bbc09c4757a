"""What is kept because something names it."""

import json
from pathlib import Path

import pytest

from nightshift import storage
from nightshift.errors import InputError
from nightshift.records import BatchSeen, Decision, Part, PartList
from nightshift.tracking import ledger, registry
from nightshift.tracking.inventory import Version
from nightshift.workflows.upkeep.reachable import ReachableSet, unit_of, uris


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("NIGHTSHIFT_STORE", f"file://{tmp_path}")
    return f"file://{tmp_path}"


def version(**tags: str) -> Version:
    return Version("pets", "1", tags, (), 0.0, "")


def reached(**tags: str) -> set[str]:
    reach = ReachableSet()
    reach.add_versions([version(**tags)])
    return reach.units


def put(uri: str, value: object) -> str:
    storage.write(uri, json.dumps(value).encode())
    return uri


def artifact(uri: str) -> dict[str, object]:
    return {"uri": uri, "sha256": "0" * 64, "size": 1}


@pytest.mark.parametrize(
    ("key", "unit"),
    [
        ("shards/d1/train-00000.safetensors", "shards/d1"),
        ("checkpoints/k/checkpoint.json", "checkpoints/k"),
        ("datasets/d.json", "datasets/d.json"),
        ("sweeps/pets/s1/trial-0001.json", "sweeps/pets/s1"),
        ("predictions/pets/3/monday/_parts/1.json", "predictions/pets/3/monday"),
        ("shards/loose.safetensors", None),
        ("datasets/a/b.json", None),
        ("predictions/pets/3/note.txt", None),
        ("incoming/pets/b/cat/1.png", None),
        ("top", None),
    ],
)
def test_a_unit_is_the_folder_that_is_kept_as_a_whole(key: str, unit: str | None) -> None:
    assert unit_of(key) == unit


def test_addresses_are_found_anywhere_in_json_and_in_texts_that_are_json(root: str) -> None:
    inside = json.dumps([{"x": {"y": f"{root}/a/1"}}])
    value = {"plain": f"{root}/b/2", "json": inside, "list": [[f"{root}/c/3"]], "odd": "[no json", "n": 3}
    assert sorted(uris(value)) == [f"{root}/a/1", f"{root}/b/2", f"{root}/c/3"]
    assert list(uris([f"{root}-other/a", "s3://other/a", root])) == []


def test_a_version_keeps_its_data_set_and_the_parts_of_its_shards(root: str) -> None:
    put(f"{root}/datasets/d1.json", {"shards": [{"file": artifact(f"{root}/shards/p1/train-0.safetensors")}]})
    assert reached(**{registry.DATASET: "d1"}) == {"datasets/d1.json", "shards/p1"}
    assert reached(**{registry.DATASET: "d2"}) == {"datasets/d2.json"}  # which is gone
    assert reached() == set()


def test_a_version_keeps_its_checkpoints_report_and_evidence(root: str) -> None:
    weights = [artifact(f"{root}/checkpoints/{key}/model.safetensors") for key in ("c1", "c2")]
    assert reached(**{registry.CHECKPOINTS: json.dumps(weights)}) == {"checkpoints/c1", "checkpoints/c2"}
    assert reached(**{registry.REPORT: f"{root}/reports/r1/report.html"}) == {"reports/r1"}
    assert reached(**{"nightshift.evaluation.evidence": f"{root}/reports/r2/evidence.json"}) == {"reports/r2"}


def test_a_version_keeps_what_its_record_names_in_turn(root: str) -> None:
    part = Part(batch="b", keys=("cat/1.png",), digest="p7")
    parts = PartList(batches={"b": BatchSeen(files=1, digest="b")}, parts=(part,))
    plan = storage.write_record(f"{root}/plans/l.json", parts).uri
    model = artifact(f"{root}/candidates/k/model.onnx")
    made = put(f"{root}/made/m1/1.json", {"parts_uri": plan, "candidate": {"model": model}})
    assert reached(**{"nightshift.made": json.dumps(artifact(made))}) == {
        "made/m1",
        "plans/l.json",
        "shards/p7",
        "candidates/k",
    }


def test_records_that_name_each_other_come_to_an_end(root: str) -> None:
    put(f"{root}/sweeps/pets/s/a.json", {"next": f"{root}/sweeps/pets/t/b.json"})
    put(f"{root}/sweeps/pets/t/b.json", {"next": f"{root}/sweeps/pets/s/a.json"})
    reach = ReachableSet()
    reach.add(f"{root}/sweeps/pets/s/a.json")
    assert reach.units == {"sweeps/pets/s", "sweeps/pets/t"}


def test_the_ledger_keeps_the_data_sets_that_the_next_night_compares_with(root: str) -> None:
    def decide(kind: str, number: int, day: int) -> None:
        digests = {"data_digest": f"{number:064}", "settings_digest": "s" * 64, "sha256": "0" * 64}
        at = f"2026-01-0{day}T00:00:00.000Z"
        facts = {"pipeline": "pets", "kind": kind, "version": str(number), "dataset": f"d{number}", **digests}
        rest = {"replaces": None, "by": "policy", "at": at, "night": "n", "reasons": ()}
        ledger.append(Decision.model_validate(facts | rest))

    decide("promoted", 1, 1)  # the champion's
    decide("refused", 2, 2)
    decide("challenger", 4, 3)  # the newest that a sweep can train on
    decide("rejected", 3, 4)  # the last decision
    reach = ReachableSet()
    reach.add_ledger()
    assert reach.units == {"datasets/d1.json", "datasets/d3.json", "datasets/d4.json"}


@pytest.mark.parametrize("text", ["{", '{"parts": [3]}', "[]", "\xff"])
def test_a_record_that_cannot_be_read_stops_everything(root: str, text: str) -> None:
    storage.write(f"{root}/plans/l.json", text.encode("latin-1"))
    with pytest.raises(InputError, match=r"plans/l.json is not the record .* nothing is deleted; restore or"):
        ReachableSet().add(f"{root}/plans/l.json")
