"""`nightshift predict` with a real ONNX file that tells bright images from dark ones."""

import hashlib
import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
from small_models import BRIGHTNESS, brightness
from typer.testing import CliRunner, Result

from nightshift import storage
from nightshift.cli import app
from nightshift.hardware import processor
from nightshift.inference import classifier, file_predictor, runtime
from nightshift.inference.portability import PAIR_SUM


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder with a bright JPEG, a dark 16-bit PNG and a file that is no image."""
    folder = tmp_path / "images"
    (folder / "deep").mkdir(parents=True)
    cv2.imwrite(str(folder / "day.jpg"), np.full((30, 20, 3), 250, np.uint8))
    cv2.imwrite(str(folder / "deep" / "night.png"), np.full((9, 9), 300, np.uint16))
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (folder / ".hidden").write_bytes(b"x")
    return folder


@pytest.fixture
def onnx_file(tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    path.write_bytes(brightness())
    return path


@pytest.fixture(autouse=True)
def no_stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIGHTSHIFT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NIGHTSHIFT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def predict(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["predict", *map(str, arguments)])


def test_a_folder_is_predicted_and_what_cannot_be_read_is_named(images: Path, onnx_file: Path) -> None:
    result = predict(onnx_file, images, "--json")
    assert result.exit_code == 1
    broken, day, night = map(json.loads, result.stdout.splitlines())
    assert broken == {
        "file": str(images / "broken.png"),
        "reason": "truncated",
        "detail": "the header ends early after 8 bytes",
    }
    assert day == {"file": str(images / "day.jpg"), "label": "bright", "probability": pytest.approx(1)}
    assert night == {
        "file": str(images / "deep" / "night.png"),
        "label": "dark",
        "probability": pytest.approx(1),
    }
    assert hashlib.sha256(onnx_file.read_bytes()).hexdigest() in result.stderr
    assert "1 of 3 images could not be read" in result.stderr


def test_a_table_is_printed_for_people(images: Path, onnx_file: Path) -> None:
    result = predict(onnx_file, images / "day.jpg", images / "broken.png")
    assert result.exit_code == 1
    rows = [
        [cell.strip() for cell in line.split("│")[1:-1]] for line in result.stdout.splitlines() if "│" in line
    ]
    assert rows == [
        [str(images / "day.jpg"), "bright", "1.0000"],
        [str(images / "broken.png"), "truncated: the header ends early after 8 bytes", ""],
    ]


def test_all_good_is_exit_0(images: Path, onnx_file: Path) -> None:
    assert predict(onnx_file, images / "day.jpg").exit_code == 0


def test_nothing_readable_is_no_crash(images: Path, onnx_file: Path) -> None:
    result = predict(onnx_file, images / "broken.png", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["reason"] == "truncated"


def test_more_images_than_one_batch_keep_their_order(tmp_path: Path, onnx_file: Path) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(150):
        cv2.imwrite(str(folder / f"{number:03d}.png"), np.full((8, 8), 255 * (number % 3 == 0), np.uint8))
    rows = [json.loads(line) for line in predict(onnx_file, folder, "--json").stdout.splitlines()]
    assert [row["label"] for row in rows] == [
        "bright" if number % 3 == 0 else "dark" for number in range(150)
    ]


def test_the_fastest_runtime_is_looked_for_only_where_that_pays(
    tmp_path: Path, onnx_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(20):
        cv2.imwrite(str(folder / f"{number:03d}.png"), np.full((8, 8), 255 * (number % 3 == 0), np.uint8))
    few = predict(onnx_file, folder, "--json")
    assert "is the fastest" not in few.stderr
    monkeypatch.setattr(classifier, "MANY", 20)
    monkeypatch.setattr(classifier, "BATCH", 8)
    taken: list[tuple[str, int]] = []
    monkeypatch.setattr(
        runtime.Session,
        "predict",
        lambda self, pixels, real=runtime.Session.predict: (
            taken.append((self.runtime, len(pixels))) or real(self, pixels)
        ),
    )
    many = predict(onnx_file, folder, "--json")
    rows = [[json.loads(line)["label"] for line in each.stdout.splitlines()] for each in (few, many)]
    assert rows[0] == rows[1] == ["bright" if number % 3 == 0 else "dark" for number in range(20)]
    (said,) = [line for line in many.stderr.splitlines() if "is the fastest" in line]
    chosen = said.split()[0]
    assert said == (
        f"{chosen} is the fastest runtime here, with 100.00% of the first 8 labels those of exact arithmetic"
    )
    assert taken[-3:] == [(chosen, 8), (chosen, 8), (chosen, 4)]
    assert {name for name, _ in taken} == {*runtime.installed()}
    taken.clear()
    again = predict(onnx_file, folder, "--json")
    assert f"{chosen} was the fastest runtime here for this model" in again.stderr
    assert taken == [(chosen, 8), (chosen, 8), (chosen, 4)]  # none was tried again
    assert again.stdout == many.stdout
    (note,) = (tmp_path / "cache" / "runtimes").iterdir()
    for nonsense in ("", "[]", '{"runtime": "abacus"}'):
        note.write_text(nonsense)
        assert "is the fastest runtime here" in predict(onnx_file, folder, "--json").stderr


def test_a_runtime_that_refuses_the_file_is_said(
    images: Path, onnx_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(model: bytes) -> runtime.Loaded:
        raise RuntimeError("no kernel for this")

    monkeypatch.setattr(classifier, "MANY", 1)
    monkeypatch.setattr(runtime, "installed", lambda: ("onnxruntime", runtime.EXACT, "openvino"))
    monkeypatch.setitem(runtime.LOADERS, "openvino", fails)  # type: ignore[arg-type]
    result = predict(onnx_file, images / "day.jpg", "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["label"] == "bright"
    assert "openvino is rejected: openvino cannot load the model (no kernel for this)" in result.stderr
    assert "onnxruntime is the fastest runtime here" in result.stderr


@pytest.mark.parametrize(
    ("flags", "expected"), [("avx2", "onnxruntime-exact"), ("avx2 avx512_vnni", "onnxruntime")]
)
def test_a_file_that_could_saturate_is_said_and_computed_right(
    tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch, flags: str, expected: str
) -> None:
    (tmp_path / "cpuinfo").write_text(f"model name : Some Processor\nflags : fpu {flags}\n")
    monkeypatch.setattr(processor, "CPUINFO", tmp_path / "cpuinfo")
    file = tmp_path / "wide.onnx"
    file.write_bytes(brightness({**BRIGHTNESS, PAIR_SUM: "64770"}))
    result = predict(file, images / "day.jpg", "--parquet", tmp_path / "out.parquet")
    assert pq.read_table(tmp_path / "out.parquet")["runtime"].to_pylist() == [expected]
    assert f"model {file} is not portable: two products of its weights add up to 64,770" in result.stderr
    assert ("Some Processor has neither VNNI" in result.stderr) == (expected == runtime.EXACT)


def test_where_onnx_runtime_disagrees_with_exact_arithmetic_that_answers(
    images: Path, onnx_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = runtime.LOADERS["onnxruntime"]

    def saturates(model: bytes) -> runtime.Loaded:
        loaded = real(model)
        return loaded._replace(run=lambda pixels: (loaded.run(pixels)[0], 1 - loaded.run(pixels)[1]))

    monkeypatch.setitem(runtime.LOADERS, "onnxruntime", saturates)  # type: ignore[arg-type]
    result = predict(onnx_file, images / "day.jpg", "--json")
    assert json.loads(result.stdout)["label"] == "bright"
    assert "onnxruntime is rejected: it gives 1 of 1 images another label" in result.stderr


def test_a_model_in_the_store_is_read_by_its_address(tmp_path: Path, images: Path, onnx_file: Path) -> None:
    uri = f"file://{tmp_path}/store/m.onnx"
    storage.write(uri, onnx_file.read_bytes())
    assert predict(uri, images / "day.jpg").exit_code == 0


def test_a_registered_champion_is_fetched_checked_and_used(
    stack: Any, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nightshift.tracking import registry, runs

    monkeypatch.setenv("NIGHTSHIFT_HOME", str(stack.home))
    for name, value in stack.environment.items():
        monkeypatch.setenv(name, value)
    run = runs.open_run("light", "night-1", params={})
    version = registry.register_version(run, "light", brightness(), classes=2, shape=(8, 8, 3), tags={})
    registry.set_alias("light", "champion", version)
    result = predict("models:/light@champion", images / "day.jpg", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["label"] == "bright"
    assert f"version {version}, SHA-256 {hashlib.sha256(brightness()).hexdigest()}, checked" in result.stderr


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nowhere.onnx", "model 'nowhere.onnx' cannot be read (No such file or directory); give models:/"),
        ("file:///nowhere.onnx", "file:///nowhere.onnx does not exist"),
        ("models:/digits@champion", "there is no stack in"),
    ],
)
def test_a_model_that_is_not_there_is_one_sentence(images: Path, name: str, words: str) -> None:
    result = predict(name, images)
    assert result.exit_code == 2
    assert words in result.stderr
    assert result.stdout == ""


def test_a_foreign_model_is_refused(tmp_path: Path, images: Path) -> None:
    path = tmp_path / "foreign.onnx"
    path.write_bytes(brightness({}))
    result = predict(path, images)
    assert result.exit_code == 2
    assert "does not say its classes and preprocessing in its metadata" in result.stderr
    path.write_bytes(b"not a model")
    result = predict(path, images)
    assert result.exit_code == 2
    assert "cannot be loaded by onnxruntime" in result.stderr


def test_paths_that_hold_nothing_are_said(tmp_path: Path, onnx_file: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "holds no files" in predict(onnx_file, tmp_path / "empty").stderr
    assert "nowhere does not exist" in predict(onnx_file, tmp_path / "nowhere").stderr


def test_the_likeliest_classes_are_shown_label_first(images: Path, onnx_file: Path) -> None:
    result = predict(onnx_file, images / "day.jpg", "--json", "--top", "5")
    row = json.loads(result.stdout)
    assert [each["label"] for each in row["top"]] == ["bright", "dark"]
    assert row["top"][0]["probability"] == row["probability"]
    assert "dark 0.0000" in predict(onnx_file, images / "day.jpg", "--top", "2").stdout


def test_an_archive_is_looked_into(tmp_path: Path, images: Path, onnx_file: Path) -> None:
    archive = tmp_path / "photos.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        packed.write(images / "day.jpg", "trip/day.jpg")
    row = json.loads(predict(onnx_file, archive, "--json").stdout)
    assert (row["file"], row["label"]) == (f"{archive}/trip/day.jpg", "bright")


@pytest.mark.parametrize("pooled", [1, 1000])
def test_processes_of_their_own_give_the_same_answers(
    images: Path, onnx_file: Path, monkeypatch: pytest.MonkeyPatch, pooled: int
) -> None:
    monkeypatch.setattr(file_predictor, "POOLED", pooled)
    rows = [json.loads(line) for line in predict(onnx_file, images, "--json").stdout.splitlines()]
    assert [row.get("label", row.get("reason")) for row in rows] == ["truncated", "bright", "dark"]


def test_parquet_has_what_could_be_read_and_the_rest_is_said(
    tmp_path: Path, images: Path, onnx_file: Path
) -> None:
    to = tmp_path / "rows.parquet"
    result = predict(onnx_file, images, "--parquet", to)
    assert result.exit_code == 1
    assert "broken.png: truncated" in result.stderr
    table = pq.read_table(to)
    assert table["key"].to_pylist() == [str(images / "day.jpg"), str(images / "deep" / "night.png")]
    assert table["label"].to_pylist() == ["bright", "dark"]
    assert table["model_sha256"][0].as_py() == hashlib.sha256(onnx_file.read_bytes()).hexdigest()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".partial")]


def test_a_disk_that_is_full_leaves_no_half_file(tmp_path: Path, images: Path, onnx_file: Path) -> None:
    """A limit on the size of files fails a write in the middle of the table, as a full disk does."""
    to = tmp_path / "rows.parquet"
    to.write_bytes(b"an earlier one")
    code = (
        "import resource, sys; from nightshift.cli import app; "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (64, 64)); app(sys.argv[1:])"
    )
    command = [sys.executable, "-c", code, "predict", str(onnx_file), str(images), "--parquet", str(to)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "rows.parquet cannot be written (File too large)" in done.stderr
    assert to.read_bytes() == b"an earlier one"
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".partial")]
