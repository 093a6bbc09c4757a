"""`nightshift plan` and `nightshift quarantine`: what a night would do, and what was refused."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from nightshift import storage
from nightshift.cli import app
from nightshift.data import quarantine
from nightshift.records import Refusal

RUN = CliRunner()


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    root = f"file://{tmp_path}/store"
    monkeypatch.setenv("NIGHTSHIFT_STORE", root)
    monkeypatch.delenv("NIGHTSHIFT_DAGS", raising=False)
    return root


def drop(store: str, batch: str, count: int) -> None:
    for index in range(count):
        storage.write(f"{store}/incoming/tiny/{batch}/left/{index}.png", bytes([index]))
    storage.write(f"{store}/incoming/tiny/{batch}/_READY", b"")


def said(*arguments: str) -> str:
    done = RUN.invoke(app, list(arguments))
    assert done.exit_code == 0, done.output
    return done.output


def test_the_plan_names_batches_reason_and_work(store):
    drop(store, "monday", 3)
    text = said("plan", "tiny")
    assert "monday" in text
    assert "the next night of tiny trains: nothing was decided before" in text
    assert "3 of 3 images to preprocess in 1 parts" in text


def test_the_plan_as_json_is_one_object_and_writes_nothing(store):
    drop(store, "monday", 3)
    before = [stored.key for stored in storage.listing(store)]
    plan = json.loads(said("plan", "tiny", "--json", "--set", "train.epochs=3"))
    assert (plan["work"], plan["batches"], plan["images_to_preprocess"]) == (True, {"monday": "new"}, 3)
    assert [stored.key for stored in storage.listing(store)] == before


def test_the_plan_of_an_empty_source_says_what_to_do(store):
    done = RUN.invoke(app, ["plan", "tiny"])
    assert done.exit_code == 2
    assert "nightshift ingest FOLDER --pipeline tiny" in done.output


def refusal(key: str) -> Refusal:
    return Refusal(key=key, sha256="0" * 64, reason="truncated", detail="it ends early")


def test_refused_files_are_listed_with_their_reasons(store):
    quarantine.write("tiny", {"b": [refusal("b/left/1.png"), refusal("b/left/new\nline.png")]})
    text = said("quarantine", "tiny")
    assert "b/left/new\\nline.png" in text
    assert "2 refused: 2 truncated" in text
    rows = [json.loads(line) for line in said("quarantine", "tiny", "--json").splitlines()]
    assert [row["key"] for row in rows] == ["b/left/1.png", "b/left/new\nline.png"]


def test_an_empty_quarantine_says_so(store):
    assert said("quarantine", "tiny") == "nothing of tiny is in quarantine\n"


def test_the_sheet_is_a_picture(store, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    storage.write(f"{store}/incoming/tiny/b/left/1.png", cv2.imencode(".png", pixels)[1].tobytes())
    quarantine.write("tiny", {"b": [refusal("b/left/1.png")]})
    said("quarantine", "tiny", "--sheet", str(tmp_path / "sheet.png"))
    assert cv2.imread(str(tmp_path / "sheet.png")) is not None
