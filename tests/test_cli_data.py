"""`nightshift ingest` on a store on the local disk."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from nightshift import storage
from nightshift.cli import app
from nightshift.config import PreprocessSettings
from nightshift.records import Dataset, Decision, Duplicates, Profile
from nightshift.tracking import ledger


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty store, and the pipelines `digits`, `tiny` and `elsewhere`, which has a source of its own."""
    pipelines = tmp_path / "dags" / "pipelines"
    pipelines.mkdir(parents=True)
    for name in ("digits", "tiny"):
        (pipelines / f"{name}.toml").touch()
    (pipelines / "elsewhere.toml").write_text(f'source = "file://{tmp_path}/elsewhere"\n')
    monkeypatch.setenv("NIGHTSHIFT_DAGS", str(tmp_path / "dags"))
    monkeypatch.setenv("NIGHTSHIFT_STORE", f"file://{tmp_path}/store")
    monkeypatch.setenv("NIGHTSHIFT_HOME", str(tmp_path / "home"))
    return f"file://{tmp_path}/store"


def nightshift(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["ingest", *arguments])


def keys(uri: str) -> list[str]:
    return [stored.key for stored in storage.listing(uri)]


def test_a_folder_is_uploaded_and_summed_up(tmp_path: Path, store: str) -> None:
    for name in ("cat/a.png", "cat/b.png", "dog/a.png", "notes.txt"):
        (tmp_path / "monday" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "monday" / name).write_bytes(b"x" * 5000)
    result = nightshift(str(tmp_path / "monday"), "--pipeline", "digits")
    assert result.exit_code == 0, result.output
    assert keys(f"{store}/incoming/digits") == [
        "monday/_READY",
        "monday/cat/a.png",
        "monday/cat/b.png",
        "monday/dog/a.png",
    ]
    cells = [cell.strip() for cell in result.stdout.splitlines()[3].split("│")[1:-1]]
    assert cells == ["monday", "cat 2, dog 1", "3", "15.0 kB", "3", "0"]
    assert "batch monday: 1 left out: outside the class folders" in result.stdout
    assert f"batch monday is ready in {store}/incoming/digits/monday" in result.stdout
    again = nightshift(str(tmp_path / "monday"), "--pipeline", "digits")
    cells = [cell.strip() for cell in again.stdout.splitlines()[3].split("│")[1:-1]]
    assert cells[-2:] == ["0", "3"]


def test_a_class_in_another_spelling_than_the_data_of_the_last_night_is_said(
    tmp_path: Path, store: str
) -> None:
    learnt = Dataset.model_validate(
        {
            **{"digest": "d" * 64, "classes": ("Cat", "dog"), "shards": (), "counts": {}, "source": ""},
            **{"mean": (0, 0, 0), "std": (1, 1, 1), "refused": 0, "image_size": 32, "batches": {}},
            "preprocess": PreprocessSettings(),
            "profile": Profile(images=0, classes={}, histograms={}),
            "duplicates": Duplicates(merged=0, conflicting=0, near=0, near_excluded=True),
        }
    )
    storage.write_record(f"{store}/datasets/{learnt.digest}.json", learnt)
    decision = {"pipeline": "digits", "kind": "refused", "version": "1", "sha256": "", "data_digest": "d"}
    decision |= {"settings_digest": "s", "replaces": None, "by": "", "night": "", "reasons": ()}
    ledger.append(Decision.model_validate(decision | {"dataset": learnt.digest, "at": ledger.now()}))
    for name in ("n2/cat/a.png", "n2/dog/b.png", "n3/Cat/a.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    said = "classes 'Cat' and 'cat' are two for a night"
    assert f"batch n2: {said}" in nightshift(str(tmp_path / "n2"), "--pipeline", "digits").stdout
    assert "are two for a night" not in nightshift(str(tmp_path / "n3"), "--pipeline", "digits").stdout


def test_the_sample_digits_goes_to_its_pipeline_in_six_batches(store: str) -> None:
    result = nightshift("--sample", "digits")
    assert result.exit_code == 0, result.output
    found = keys(f"{store}/incoming/digits")
    assert len(found) == 1797 + 6
    assert [key for key in found if key.endswith("_READY")] == [f"batch-{i}/_READY" for i in range(1, 7)]


def test_a_sample_can_go_to_another_pipeline_as_another_batch(store: str) -> None:
    assert nightshift("--sample", "tiny", "--pipeline", "digits", "--batch", "extra").exit_code == 0
    assert len(keys(f"{store}/incoming/digits/extra")) == 81


def test_a_pipeline_with_its_own_source_gets_the_batch_there(tmp_path: Path, store: str) -> None:
    assert nightshift("--sample", "tiny", "--pipeline", "elsewhere").exit_code == 0
    assert len(keys(f"file://{tmp_path}/elsewhere/batch-1")) == 81
    assert keys(store) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "give either a PATH or --sample"),
        ((".", "--sample", "tiny"), "give either a PATH or --sample"),
        ((".",), "--pipeline is missing"),
        ((".", "--pipeline", "cats"), "pipeline 'cats' is unknown; known in"),
        (("/nowhere", "--pipeline", "digits"), "/nowhere does not exist"),
        (("--sample", "tiny", "--batch", "../x"), "batch name must not"),
        (("--sample", "dogs"), "--sample must be one of digits, tiny, got 'dogs'"),
    ],
)
def test_a_mistake_is_one_sentence(arguments: tuple[str, ...], words: str, store: str) -> None:
    result = nightshift(*arguments)
    assert result.exit_code == 2
    assert words in result.stderr
    assert result.stderr.count("\n") == 1
    assert keys(store) == []


def test_many_classes_do_not_fill_the_screen(tmp_path: Path) -> None:
    for number in range(30):
        (tmp_path / "monday" / f"class-{number:02d}").mkdir(parents=True)
        (tmp_path / "monday" / f"class-{number:02d}" / "a.png").touch()
    result = nightshift(str(tmp_path / "monday"), "--pipeline", "digits")
    assert "class-11 1, … 18 more" in result.stdout


def image(path: Path, color: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (4, 4), color).save(path)


def test_a_dry_run_uploads_nothing_and_shows_what_is_there(tmp_path: Path, store: str) -> None:
    for name, color in (("train/cat/a.png", 1), ("train/dog/b.png", 1), ("test/cat/c.png", 3)):
        image(tmp_path / "monday" / name, color)
    (tmp_path / "monday" / "test" / "cat" / "d.jpg").write_bytes(b"")
    (tmp_path / "monday" / "notes.txt").touch()
    result = nightshift(str(tmp_path / "monday"), "--pipeline", "digits", "--dry-run")
    assert result.exit_code == 0, result.output
    assert keys(store) == []
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in result.stdout.splitlines()]
    assert ["cat", "3", "75.0%", "1", "2"] in [row[:5] for row in rows]
    assert ["all 2", "4", "", "2", "2"] in [row[:5] for row in rows]
    assert ["PNG", "3"] in rows
    assert ["(empty)", "1"] in rows
    assert ["empty", "1", "images/test/cat/d.jpg: the file has no bytes"] in rows
    two = "images/train/dog/b.png (dog) is images/train/cat/a.png (cat)"
    assert ["the same image under two labels", "1", two] in rows
    assert "batch monday: 1 left out: outside the class folders" in result.stdout
    assert "taken as the source's own splits" in result.stdout
    assert "batch monday: dry run, nothing was uploaded" in result.stdout


def test_a_dry_run_needs_neither_a_pipeline_nor_a_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NIGHTSHIFT_STORE")
    image(tmp_path / "monday" / "cat" / "a.png", 1)
    result = nightshift(str(tmp_path / "monday"), "--dry-run")
    assert result.exit_code == 0, result.output
    assert "no suspicious files" in result.stdout


def test_arrays_are_ingested_under_their_name(tmp_path: Path, store: str) -> None:
    np.savez(tmp_path / "blobs.npz", x=np.zeros((2, 4, 4), np.uint8), y=np.array(["a", "b"]))
    assert nightshift(str(tmp_path / "blobs.npz"), "--pipeline", "digits").exit_code == 0
    found = keys(f"{store}/incoming/digits/blobs")
    assert found == ["_READY", "a/000000.png", "b/000001.png"]
    data = storage.read(f"{store}/incoming/digits/blobs/a/000000.png")
    assert Image.open(io.BytesIO(data)).size == (4, 4)


def test_ctrl_c_says_that_the_same_command_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*arguments: object, **named: object) -> None:
        raise KeyboardInterrupt

    image(tmp_path / "monday" / "cat" / "a.png", 1)
    monkeypatch.setattr("nightshift.data.sources.ingest", interrupt)
    result = nightshift(str(tmp_path / "monday"), "--pipeline", "digits")
    assert result.exit_code == 130
    assert (
        result.stderr
        == "nightshift: interrupted; what is uploaded stays, the same command goes on from there\n"
    )
