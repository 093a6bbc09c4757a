"""Reading pipeline files, changing single settings, and saying in words what is wrong with them."""

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from tasks.config import (
    NAME_PATTERN,
    STAGE_SETTINGS,
    Pipeline,
    PredictPolicy,
    RetrainPolicy,
    Settings,
    store_root,
)
from tasks.errors import InputError

TABLES: Final[dict[str, type[Settings]]] = {
    "retrain": RetrainPolicy,
    "predict": PredictPolicy,
    **STAGE_SETTINGS,
}


def override(pipeline: Pipeline, values: Mapping[str, Any]) -> Pipeline:
    """A copy with `{"train.epochs": 3, ...}` applied and everything validated again."""
    data = pipeline.model_dump(mode="json")
    for dotted, value in values.items():
        stage, _, field = dotted.partition(".")
        if stage not in STAGE_SETTINGS or field not in STAGE_SETTINGS[stage].model_fields:
            raise InputError(f"setting {dotted!r} is unknown; {_nearest(dotted)}")
        data[stage][field] = value
    return _validated(data, where=f"pipeline {pipeline.name}")


def load_pipeline(path: Path) -> Pipeline:
    """Read one pipeline file.

    Raises InputError naming the file, the line or field, the value received and what is allowed.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path.name} is not valid TOML: {error}; correct that line") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as UTF-8 text: {error}") from error
    if "name" in data and data["name"] != path.stem:
        raise InputError(f"{path.name}: name must equal the file's name {path.stem!r}, got {data['name']!r}")
    return _validated({**data, "name": path.stem}, where=path.name, text=path.read_text(encoding="utf-8"))


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
        known = ", ".join(sorted(p.stem for p in folder.glob("*.toml"))) or "none"
        raise InputError(f"pipeline {name!r} is unknown; known in {folder}: {known}")
    return load_pipeline(path)


def _validated(data: dict[str, Any], *, where: str, text: str = "") -> Pipeline:
    try:
        return Pipeline.model_validate(data)
    except ValidationError as error:
        items = error.errors()
        # An element's own error makes its list's error ("too short") an echo.
        outer = {item["loc"][:depth] for item in items for depth in range(len(item["loc"]))}
        items = sorted((item for item in items if item["loc"] not in outer), key=lambda i: _line_of(i, text))
        raise InputError("; ".join(_sentence(item, where, text) for item in items)) from error


def _sentence(item: ErrorDetails, where: str, text: str) -> str:
    """One pydantic error as: file, line, field, what was received, what is allowed."""
    field = ".".join(str(part) for part in item["loc"]) or "the file"
    number = _line_of(item, text)
    line = f", line {number}" if number else ""
    received = "" if item["type"] == "missing" else f", got {item['input']!r}"
    if item["type"] == "extra_forbidden":
        return f"{where}{line}: {field} is not a setting; {_nearest(field)}"
    message = item["msg"].removeprefix("Value error, ")
    return f"{where}{line}: {field}: {message}{'' if 'got ' in message else received}"


def _line_of(item: ErrorDetails, text: str) -> int:
    """The line of the TOML key that an error is about, or 0 when it cannot be told."""
    location, table = [str(part) for part in item["loc"]], ""
    for number, row in enumerate(text.splitlines(), start=1):
        if header := re.match(r"\s*\[([^\[\]]+)\]", row):
            table = header[1].strip()
        elif key := re.match(r"\s*([\w-]+)\s*=", row):
            dotted = [*table.split("."), key[1]] if table else [key[1]]
            if dotted == location[: len(dotted)]:
                return number
    return 0


def _nearest(dotted: str) -> str:
    table, _, _ = dotted.partition(".")
    if table in TABLES:
        return f"{table} has: {', '.join(TABLES[table].model_fields)}"
    plain = [name for name in Pipeline.model_fields if name not in TABLES and name != "name"]
    return f"known are {', '.join(plain)} and the tables {', '.join(TABLES)}"
