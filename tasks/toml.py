"""The TOML files in `dags/` as settings, and what is wrong with them in words."""

import re
import tomllib
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from tasks.config import Settings
from tasks.errors import InputError

Kind = TypeVar("Kind", bound=Settings)


def read(path: Path) -> tuple[dict[str, Any], str]:
    """The values of a TOML file and its text. Raises InputError naming the file and the line."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        return tomllib.loads(text), text
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path.name} is not valid TOML: {error}; correct that line") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as UTF-8 text ({error}); save it as such") from error


def load(path: Path, kind: type[Kind]) -> Kind:
    """Read one file as settings. Raises InputError as `read` and `validated` do."""
    data, text = read(path)
    return validated(kind, data, where=path.name, text=text)


def validated(kind: type[Kind], data: dict[str, Any], *, where: str, text: str = "") -> Kind:
    """The settings that the data are; `where` and `text` are the file's name and content.

    Raises InputError naming each mistake with its line, the value received and what is allowed.
    """
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        items = error.errors()
        # An element's own error makes its list's error ("too short") an echo.
        outer = {item["loc"][:depth] for item in items for depth in range(len(item["loc"]))}
        items = sorted((item for item in items if item["loc"] not in outer), key=lambda i: _line_of(i, text))
        raise InputError("; ".join(_sentence(kind, item, where, text) for item in items)) from error


def _sentence(kind: type[Settings], item: ErrorDetails, where: str, text: str) -> str:
    """One pydantic error as: file, line, field, what was received, what is allowed."""
    field = ".".join(str(part) for part in item["loc"]) or "the file"
    number = _line_of(item, text)
    line = f", line {number}" if number else ""
    received = "" if item["type"] == "missing" else f", got {item['input']!r}"
    if item["type"] == "extra_forbidden":
        return f"{where}{line}: {field} is not a setting; {nearest(kind, field)}"
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


def nearest(kind: type[Settings], dotted: str) -> str:
    """What is known where a setting is not, in words."""
    tables = {
        name: field.annotation
        for name, field in kind.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, Settings)
    }
    table = dotted.partition(".")[0]
    if table in tables:
        return f"{table} has: {', '.join(tables[table].model_fields)}"
    plain = ", ".join(name for name in kind.model_fields if name not in tables and name != "name")
    return f"known are {plain}" + (f" and the tables {', '.join(tables)}" if tables else "")
