"""Pipeline files: reading, changing single settings, and what is said about mistakes."""

from pathlib import Path
from typing import Any

import pytest

from nightshift.config import Pipeline
from nightshift.config.pipelines import find_pipeline, load_pipeline, override
from nightshift.errors import InputError


def file(folder: Path, text: str, name: str = "digits") -> Path:
    path = folder / f"{name}.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_file_is_read_with_its_name_and_the_defaults(tmp_path: Path) -> None:
    pipeline = load_pipeline(file(tmp_path, 'schedule = "0 2 * * *"\n[train]\nepochs = 3\n'))
    assert (pipeline.name, pipeline.schedule, pipeline.train.epochs) == ("digits", "0 2 * * *", 3)
    assert pipeline.train.batch_size == Pipeline(name="x").train.batch_size


def test_a_mark_that_editors_put_before_utf_8_is_no_mistake(tmp_path: Path) -> None:
    path = tmp_path / "digits.toml"
    path.write_bytes(b"\xef\xbb\xbf[train]\r\nepochs = 3\r\n")
    assert load_pipeline(path).train.epochs == 3
    path.write_bytes(b"\xef\xbb\xbf[train]\r\nepochs = 0\r\n")
    with pytest.raises(InputError, match=r"^digits.toml, line 2: train.epochs"):
        load_pipeline(path)
    path.write_bytes("[train]\n".encode("utf-16"))
    with pytest.raises(InputError, match=r"digits.toml, line 1: byte 0xff is not UTF-8 text"):
        load_pipeline(path)


def test_an_empty_file_is_a_pipeline(tmp_path: Path) -> None:
    assert load_pipeline(file(tmp_path, "")) == Pipeline(name="digits")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "[train]\nepochs = 0\n",
            r"^digits.toml, line 2: train.epochs: .*greater than or equal to 1, got 0$",
        ),
        (
            "[train]\n\nepoch = 3\n",
            r"^digits.toml, line 3: train.epoch is not a setting; train has: model, .*epochs",
        ),
        (
            'timezone = "Mars"\n',
            r"^digits.toml, line 1: timezone: timezone must be an IANA name .*got 'Mars'$",
        ),
        (
            "[trane]\nepochs = 3\n",
            r"trane is not a setting; known are description, source.*tables retrain, preprocess, assemble",
        ),
        ("x = = 1\n", r"^digits.toml is not valid TOML: .*line 1.*; correct that line$"),
        ('name = "other"\n', r"name must equal the file's name 'digits', got 'other'"),
        ("train = 3\n", r"^digits.toml, line 1: train: .*got 3$"),
        (
            '[quantize]\nrecipes = ["int3"]\n',
            r"line 2: quantize.recipes.0: must be one of binary, fp16, fp32, int8, .*, got 'int3'$",
        ),
    ],
)
def test_a_mistake_is_said_with_file_line_value_and_what_is_allowed(
    tmp_path: Path, text: str, words: str
) -> None:
    with pytest.raises(InputError, match=words):
        load_pipeline(file(tmp_path, text))


def test_every_mistake_of_a_file_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"line 2: train.epochs.*; digits.toml, line 3: train.width"):
        load_pipeline(file(tmp_path, "[train]\nepochs = 0\nwidth = 99\n"))


def test_a_file_that_is_not_text_is_said(tmp_path: Path) -> None:
    (tmp_path / "digits.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"digits\.toml, line 1: byte 0xff is not UTF-8 text; save it"):
        load_pipeline(tmp_path / "digits.toml")


def test_a_pipeline_is_found_by_its_name(tmp_path: Path) -> None:
    file(tmp_path, "")
    assert find_pipeline("digits", tmp_path).name == "digits"


@pytest.mark.parametrize("name", ["missing", "../digits", "", "digits.toml"])
def test_an_unknown_name_lists_the_known_ones(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "pipelines"
    folder.mkdir()
    file(tmp_path, "")  # must not be reached by ..
    file(folder, "", "photos")
    file(folder, "", "cifar10")
    with pytest.raises(InputError, match=r"is unknown; known in .*: cifar10, photos$"):
        find_pipeline(name, folder)


def test_no_pipelines_at_all_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none$"):
        find_pipeline("digits", tmp_path / "absent")


@pytest.mark.parametrize(
    ("values", "expected"),
    [({"train.epochs": 3}, 3), ({"train.epochs": "3"}, 3), ({}, 20), ({"preprocess.resize": "stretch"}, 20)],
)
def test_single_settings_are_changed(values: dict[str, Any], expected: int) -> None:
    base = Pipeline(name="digits")
    changed = override(base, values)
    assert changed.train.epochs == expected
    assert base == Pipeline(name="digits")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"train.epoch": 3}, r"setting 'train.epoch' is unknown; train has: .*epochs"),
        ({"epochs": 3}, r"setting 'epochs' is unknown; known are .* and the tables"),
        ({"name.x": 3}, "is unknown"),
        ({"schedule": "@daily"}, "is unknown"),
        ({"train.epochs": -1}, r"pipeline digits: train.epochs: .*got -1$"),
        ({"preprocess.image_size": 64, "preprocess.stored_size": 32}, r"stored_size must be at least"),
    ],
)
def test_a_wrong_change_is_said(values: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        override(Pipeline(name="digits"), values)
