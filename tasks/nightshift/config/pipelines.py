"""Reading pipeline files, and changing single settings."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nightshift.config import NAME_PATTERN, STAGE_SETTINGS, Pipeline, store_root
from nightshift.config.clutter import is_clutter
from nightshift.config.toml import nearest, read, validated
from nightshift.errors import InputError


def override(pipeline: Pipeline, values: Mapping[str, Any]) -> Pipeline:
    """A copy with `{"train.epochs": 3, ...}` applied and everything validated again."""
    data = pipeline.model_dump(mode="json")
    for dotted, value in values.items():
        stage, _, field = dotted.partition(".")
        if stage not in STAGE_SETTINGS or field not in STAGE_SETTINGS[stage].model_fields:
            raise InputError(f"setting {dotted!r} is unknown; {nearest(Pipeline, dotted)}")
        data[stage][field] = value
    return validated(Pipeline, data, where=f"pipeline {pipeline.name}")


def pipeline_files(folder: Path) -> list[Path]:
    """The pipeline files of a folder, sorted, without what systems leave there (`._digits.toml`)."""
    return sorted(path for path in folder.glob("*.toml") if not is_clutter(path.name))


def load_pipeline(path: Path) -> Pipeline:
    """Read one pipeline file.

    Raises InputError naming the file, the line or field, the value received and what is allowed.
    """
    data, text = read(path)
    if "name" in data and data["name"] != path.stem:
        raise InputError(f"{path.name}: name must equal the file's name {path.stem!r}, got {data['name']!r}")
    return validated(Pipeline, {**data, "name": path.stem}, where=path.name, text=text)


def source_of(pipeline: Pipeline) -> str:
    """Where its labelled batches are."""
    return pipeline.source or f"{store_root()}/incoming/{pipeline.name}"


def unlabelled_source(pipeline: Pipeline) -> str:
    """Where its batches without labels are."""
    return pipeline.predict.source or f"{store_root()}/unlabelled/{pipeline.name}"


def find_pipeline(name: str, folder: Path) -> Pipeline:
    """The pipeline called `name` among the files of `folder`; InputError lists the known ones."""
    path = folder / f"{name}.toml"
    if not re.match(NAME_PATTERN, name) or not path.is_file():
        known = ", ".join(found.stem for found in pipeline_files(folder)) or "none"
        raise InputError(f"pipeline {name!r} is unknown; known in {folder}: {known}")
    return load_pipeline(path)
