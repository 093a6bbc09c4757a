"""`nightshift.load(...)` in a program: the same answers as the command gives, whatever an image comes as."""

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from small_models import brightness

import nightshift
from nightshift.errors import InputError


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory):
    path = tmp_path_factory.mktemp("api") / "model.onnx"
    path.write_bytes(brightness())
    return nightshift.load(str(path))


DAY, NIGHT = np.full((30, 20, 3), 250, np.uint8), np.full((9, 9), 3, np.uint8)


def test_an_image_is_a_path_bytes_or_an_array(model, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "day.png"), DAY)
    path = tmp_path / "day.png"
    found = model.predict([path, str(path), path.read_bytes(), DAY, NIGHT, NIGHT.astype(np.uint16) * 257])
    assert [each.label for each in found] == ["bright"] * 4 + ["dark"] * 2
    assert all(each.probability == each.probabilities.max() for each in found)
    assert all(each.probabilities.shape == (len(model.classes),) for each in found)
    assert {each.probabilities.tobytes() for each in found[:4]} == {found[0].probabilities.tobytes()}


@pytest.mark.parametrize(("images", "count"), [(NIGHT, 1), (DAY, 1), (np.stack([DAY] * 70), 70), ([], 0)])
def test_one_image_and_many_are_told_apart(model, images, count: int) -> None:
    assert len(model.predict(images)) == count


def test_what_cannot_be_read_is_named(model, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"missing\.png cannot be read \(No such file"):
        model.predict([tmp_path / "missing.png"])
    with pytest.raises(InputError, match="image 1 cannot be read"):
        model.predict([DAY, b"no image"])
    with pytest.raises(InputError, match="image 0 cannot be read"):
        model.predict([DAY.astype(np.float64)])


def test_importing_it_is_light() -> None:
    code = "import sys; before = set(sys.modules); import nightshift; print(*(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {name.split(".")[0] for name in done.stdout.split()} - sys.stdlib_module_names == {"nightshift"}
