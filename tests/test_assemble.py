"""From parts to a data set: refusals against the policy, duplicates left out, drift that decides."""

import json
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from nightshift import storage
from nightshift.config import Pipeline, PreprocessSettings
from nightshift.data import quarantine
from nightshift.data.dataset import load_split
from nightshift.errors import InputError
from nightshift.preprocess import preprocess
from nightshift.records import Dataset, Decision, Plan
from nightshift.records.specs import AssembleSpec, PlanSpec, PreprocessSpec
from nightshift.tracking import ledger
from nightshift.workflows.retrain.assemble import Assembled, assemble
from nightshift.workflows.retrain.plan import plan

SIDE = 32


def photo(seed: int, *, dark: float = 1.0, noise: int = 0) -> bytes:
    """A random picture of shapes much larger than a pixel, so that a little noise keeps it alike."""
    random = np.random.default_rng(seed)
    pixels = cv2.resize(random.uniform(0, 255, (8, 8, 3)), (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    pixels = pixels * dark + random.integers(-noise, noise + 1, pixels.shape)
    return cv2.imencode(".png", np.clip(pixels, 0, 255).astype(np.uint8))[1].tobytes()


@pytest.fixture
def store(tmp_path, monkeypatch):
    root = f"file://{tmp_path}"
    monkeypatch.setenv("NIGHTSHIFT_STORE", root)
    monkeypatch.setenv("NIGHTSHIFT_THREADS", "1")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr("nightshift.workflows.retrain.plan.open_run", lambda draft: None)
    return root


def drop(store: str, batch: str, files: dict[str, bytes], manifest: str | None = None) -> None:
    for key, data in files.items():
        storage.write(f"{store}/incoming/pets/{batch}/{key}", data)
    if manifest is not None:
        storage.write(f"{store}/incoming/pets/{batch}/manifest.csv", manifest.encode())
    storage.write(f"{store}/incoming/pets/{batch}/_READY", b"")


def album(count: int, first: int = 0, **looks: Any) -> dict[str, bytes]:
    return {
        f"{'cat' if n % 2 else 'dog'}/{n:04d}.png": photo(n, **looks) for n in range(first, first + count)
    }


def night(**settings: Any) -> tuple[Plan, Assembled]:
    pipeline = Pipeline(name="pets", preprocess=PreprocessSettings(image_size=SIDE), **settings)
    planned = plan(PlanSpec(pipeline=pipeline, night="n"))
    for message in planned.messages:
        preprocess(PreprocessSpec(message=message, source=planned.source, settings=pipeline.preprocess))
    return planned, assemble(AssembleSpec(plan=planned))


def dataset_of(assembled: Assembled) -> Dataset:
    return storage.read_record(assembled.dataset_uri, Dataset)


def decide(planned: Plan, assembled: Assembled) -> None:
    values = {
        **{"pipeline": "pets", "kind": "promoted", "version": "1", "sha256": "0", "replaces": None},
        **{"dataset": assembled.digest, "data_digest": planned.data_digest, "night": "n", "reasons": ()},
        **{"settings_digest": planned.settings_digest, "by": "policy", "at": ledger.now()},
    }
    ledger.append(Decision.model_validate(values))


def test_copies_are_merged_and_never_on_both_sides(store):
    files = album(60)
    drop(store, "a", files)
    drop(store, "b", dict(list(files.items())[:10]))
    _, assembled = night()
    dataset = dataset_of(assembled)
    assert assembled.images == dataset.profile.images == 60
    assert dataset.duplicates.merged == 10
    ids = torch.cat([load_split(dataset, split).ids for split in ("train", "validation", "test")])
    assert len({bytes(row) for row in ids.numpy()}) == len(ids) == 60


def test_the_same_image_under_two_labels_is_left_out_and_counted(store):
    files = album(60)
    drop(store, "a", {**files, "dog/copy.png": files["cat/0001.png"]})
    _, assembled = night()
    assert assembled.images == 59
    assert dataset_of(assembled).duplicates.conflicting == 2


def test_training_images_that_look_like_tested_ones_are_left_out(store):
    rows = [f"images/{n}.png,{'cat' if n % 2 else 'dog'},{s}" for n, s in enumerate(["test"] * 6)]
    rows += [f"images/{n}.png,{'cat' if n % 2 else 'dog'},train" for n in range(10, 40)]
    rows += [f"images/{n}.png,{'cat' if n % 2 else 'dog'},validation" for n in range(50, 56)]
    rows += ["images/alike.png,cat,train", "images/similar.png,cat,validation"]
    names = [row.split(",")[0] for row in rows]
    files = {name: photo(int(name[7:-4])) for name in names[:-2]}
    files["images/alike.png"] = photo(1, noise=2)
    files["images/similar.png"] = photo(3, noise=2)
    drop(store, "a", files, "path,label,split\n" + "\n".join(rows) + "\n")
    _, assembled = night()
    dataset = dataset_of(assembled)
    assert (dataset.duplicates.near, dataset.duplicates.near_validation) == (1, 1)
    assert sum(dataset.counts["validation"].values()) == 6
    assert sum(dataset.counts["train"].values()) == 30
    _, reported = night(assemble={"near_duplicates": "report"})
    assert sum(dataset_of(reported).counts["train"].values()) == 31


def test_a_class_without_training_images_is_left_out_and_said(store, capsys):
    files = {f"img/{number}.png": photo(number) for number in range(46)}
    lines = [
        f"img/{n}.png,{'ab'[n % 2]},{'train' if n < 30 else 'val' if n < 35 else 'test'}" for n in range(40)
    ]
    lines += [f"img/{n}.png,ghost,test" for n in range(40, 46)]
    drop(store, "b1", files, "\n".join(["path,label,split", *lines]) + "\n")
    _, assembled = night()
    dataset = dataset_of(assembled)
    assert dataset.classes == ("a", "b")
    assert dataset.untrained == {"ghost": 6}
    assert len(load_split(dataset, "test").labels) == 5
    assert "'ghost' (6 images)" in capsys.readouterr().out


def test_one_class_to_learn_is_told_with_the_others(store):
    files = {f"img/{number}.png": photo(number) for number in range(20)}
    lines = [f"img/{n}.png,a,{'train' if n < 10 else 'val'}" for n in range(16)]
    lines += [f"img/{n}.png,ghost,test" for n in range(16, 20)]
    drop(store, "b1", files, "\n".join(["path,label,split", *lines]) + "\n")
    with pytest.raises(InputError, match=r"training images of 1 classes.*add some of ghost"):
        night()


def test_a_batch_with_too_many_refusals_fails_with_its_commonest_reasons(store):
    drop(store, "good", album(40))
    broken = {f"cat/b{n}.png": photo(n)[: 30 + n] for n in range(4)}
    drop(store, "bad", {**broken, "cat/empty.png": b"", "cat/9.png": photo(900)})
    with pytest.raises(
        InputError, match=r"batch bad: 5 of 6 files \(83%\) are refused \(4 truncated, 1 empty\)"
    ):
        night()
    assert len(quarantine.read("pets")["bad"]) == 5
    _, assembled = night(assemble={"max_refused_fraction": 0.9})
    assert assembled.refused == 5


def test_drift_is_stated_against_the_last_decision_and_the_champion(store):
    drop(store, "a", album(120))
    first = night()
    assert first[1].drifts == ()
    decide(*first)
    drop(store, "b", album(60, first=500, dark=0.3))
    _, second = night()
    found = {(drift.of, drift.against): drift for drift in second.drifts}
    assert set(found) == {("data", "previous"), ("new", "previous"), ("data", "champion")}
    assert found["new", "previous"].psi["brightness"] > 0.25
    assert found["new", "previous"].largest > found["data", "previous"].largest


@pytest.mark.parametrize(("dark", "proceed"), [(0.3, True), (1.0, False)])
def test_few_new_images_are_worth_a_training_only_when_they_drift(store, dark, proceed):
    drop(store, "a", album(300))
    decide(*night())
    drop(store, "b", album(60, first=500, dark=dark))
    _, assembled = night(retrain={"min_new_images": 1000, "max_drift": 0.5})
    assert assembled.proceed is proceed
    assert "retrain.max_drift is 0.5" in assembled.reason


def test_the_same_parts_give_the_same_data_set(store):
    drop(store, "a", album(40))
    _, one = night()
    _, two = night()
    assert one.digest == two.digest
    assert json.loads(storage.read(one.dataset_uri)) == json.loads(storage.read(two.dataset_uri))
