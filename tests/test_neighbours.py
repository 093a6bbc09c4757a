"""The nearest of many embeddings, and the command that shows them."""

import json
from pathlib import Path

import cv2
import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small_models import onnx_model
from typer.testing import CliRunner, Result

from nightshift.cli import app
from nightshift.errors import InputError
from nightshift.inference.similarity import Neighbours, load


def rows(vectors: np.ndarray) -> pa.Table:
    flat = pa.array(vectors.astype(np.float32).ravel())
    return pa.table(
        {
            "key": [f"{number}.png" for number in range(len(vectors))],
            "label": pa.array(["x"] * len(vectors)).dictionary_encode(),
            "embedding": pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1]),
        }
    )


def test_the_nearest_by_angle_are_those_of_a_plain_search():
    noise = np.random.default_rng(0)
    vectors, query = noise.normal(size=(300, 16)), noise.normal(size=16).astype(np.float32)
    found = Neighbours(rows(vectors)).nearest(query, 7)
    cosines = [row @ query / np.linalg.norm(row) / np.linalg.norm(query) for row in vectors]
    best = np.argsort(cosines)[::-1][:7]
    assert [near.key for near in found] == [f"{row}.png" for row in best]
    assert np.allclose([near.similarity for near in found], [cosines[row] for row in best], atol=1e-6)


def test_length_does_not_count_and_zero_is_far_from_all():
    found = Neighbours(rows(np.array([[0, 0], [100, 1], [1, 1]]))).nearest(np.array([1, 1], np.float32), 9)
    assert [near.key for near in found] == ["2.png", "1.png", "0.png"]
    assert found[0].similarity == pytest.approx(1)
    assert found[2].similarity == 0


@pytest.fixture
def model(tmp_path: Path) -> Path:
    made = onnx.load_model_from_string(onnx_model(1, classes=()))
    facts = {"nightshift.classes": '["a", "b"]', "nightshift.preprocess": '{"image_size": 8}'}
    graph = made.graph
    graph.input[0].type.tensor_type.shape.dim[1].dim_value = 8
    graph.input[0].type.tensor_type.shape.dim[2].dim_value = 8
    weights = np.random.default_rng(1).normal(size=(192, 2)).astype(np.float32)
    graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(weights, "weights"))
    onnx.helper.set_model_props(made, facts)
    path = tmp_path / "model.onnx"
    path.write_bytes(made.SerializeToString())
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, colour in enumerate(((255, 0, 0), (250, 5, 0), (0, 255, 0), (0, 0, 255))):
        cv2.imwrite(str(folder / f"{number}.png"), np.full((8, 8, 3), colour, np.uint8))
    return folder


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_look_alikes_are_found_and_shown(tmp_path: Path, model: Path, photos: Path) -> None:
    to, sheet = tmp_path / "e.parquet", tmp_path / "sheet.png"
    assert run("predict", model, photos, "--embeddings", to).exit_code == 0
    done = run("similar", photos / "0.png", "--in", to, "--top", "2", "--json", "--sheet", sheet)
    assert done.exit_code == 0, done.output
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [Path(near["key"]).name for near in found] == ["0.png", "1.png"]
    assert found[0]["similarity"] == pytest.approx(1, abs=1e-6)
    picture = cv2.imread(str(sheet))
    assert picture.shape[1] == 3 * 160  # the image and its two nearest
    assert "photos/1.png" in run("similar", photos / "0.png", "--in", to, "--top", "2").stdout


def test_another_model_is_refused_since_its_embeddings_say_nothing(
    tmp_path: Path, model: Path, photos: Path
) -> None:
    to = tmp_path / "e.parquet"
    assert run("predict", model, photos, "--embeddings", to).exit_code == 0
    made = onnx.load(model)
    made.doc_string = "another"
    onnx.save(made, model)
    done = run("similar", photos / "0.png", "--in", to)
    assert done.exit_code == 2
    assert "the embeddings were made by" in done.stderr


@pytest.mark.parametrize("kind", ["missing", "text", "table", "no-image"])
def test_bad_input_is_one_sentence(tmp_path: Path, model: Path, photos: Path, kind: str) -> None:
    to = tmp_path / "e.parquet"
    if kind == "text":
        to.write_text("words")
    if kind == "table":
        pq.write_table(rows(np.eye(3)), to)
    if kind == "no-image":
        assert run("predict", model, photos, "--embeddings", to).exit_code == 0
        (photos / "0.png").write_text("words")
    done = run("similar", photos / "0.png", "--in", to)
    assert done.exit_code == 2
    assert len(done.stderr.strip().splitlines()) == 1
    words = {
        "missing": "cannot be read as embeddings",
        "text": "cannot be read as embeddings",
        "table": "holds no embeddings; nightshift predict --embeddings writes them",
        "no-image": "cannot be used: not-an-image",
    }
    assert words[kind] in done.stderr
    if kind != "no-image":
        with pytest.raises(InputError):
            load(to)
