"""The TOML files in `dags/` as settings, and what is wrong with them in words.

Whatever a file holds, and whatever lies there instead of a file, the answer is an InputError.
"""

import re
import tomllib
from pathlib import Path
from typing import Any, Final, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from nightshift.config import Settings
from nightshift.errors import InputError

Kind = TypeVar("Kind", bound=Settings)
LARGEST: Final = 1 << 20  # bytes; a file of settings has a few hundred
SHOWN: Final = 100  # characters of a wrong value


def read(path: Path) -> tuple[dict[str, Any], str]:
    """The values of a TOML file and its text. Raises InputError naming the file and the line."""
    text = _text(path)
    try:
        return tomllib.loads(text), text
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path.name} is not valid TOML: {error}; correct that line") from error
    except (ValueError, RecursionError) as error:  # thousands of digits, tables in tables
        why = str(error).partition(":")[0]
        raise InputError(f"{path.name} is beyond what TOML is read for: {why}; take that out") from error


def _text(path: Path) -> str:
    """The text of a file. A pipe, which would be waited for, a folder and the like are no files."""
    try:
        if not path.is_file():
            kind = "is not a file" if path.exists() else "leads nowhere"
            raise InputError(f"{path} {kind}; put a TOML file there, or take it away")
        with path.open("rb") as file:
            data = file.read(LARGEST + 1)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); correct its rights or link") from error
    if len(data) > LARGEST:
        raise InputError(f"{path} has more than {LARGEST:,} bytes; a file of settings has a few hundred")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise InputError(
            f"{path.name}, line {line}: byte {data[error.start]:#04x} is not UTF-8 text; save it as UTF-8"
        ) from error


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
    except (ArithmeticError, TypeError) as error:  # a validator that met what it does not expect
        raise InputError(f"{where}: {type(error).__name__}: {error}; correct the file") from error
    except ValidationError as error:
        items = error.errors(include_url=False)
        # An element's own error makes its list's error ("too short") an echo.
        outer = {item["loc"][:depth] for item in items for depth in range(len(item["loc"]))}
        items = sorted((item for item in items if item["loc"] not in outer), key=lambda i: _line_of(i, text))
        raise InputError("; ".join(_sentence(kind, item, where, text) for item in items)) from error


def _sentence(kind: type[Settings], item: ErrorDetails, where: str, text: str) -> str:
    """One pydantic error as: file, line, field, what was received, what is allowed."""
    field = ".".join(str(part) for part in item["loc"]) or "the file"
    number = _line_of(item, text)
    line = f", line {number}" if number else ""
    received = "" if item["type"] == "missing" else f", got {_shown(item['input'])}"
    if item["type"] == "extra_forbidden":
        return f"{where}{line}: {field} is not a setting; {nearest(kind, field)}"
    message = item["msg"].removeprefix("Value error, ")
    return f"{where}{line}: {field}: {message}{'' if 'got ' in message else received}"


def _shown(value: object) -> str:
    """A wrong value as Python writes it, or its beginning; not a number of thousands of digits."""
    try:
        text = repr(value)
    except ValueError:
        return "a number of thousands of digits"
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def _line_of(item: ErrorDetails, text: str) -> int:
    """The line of the TOML key or table that an error is about, or 0 when it cannot be told."""
    location: list[str] = [str(part) for part in item["loc"]]
    table: list[str] = []
    for number, row in enumerate(text.split("\n"), start=1):
        if header := re.match(r"\s*\[\[?([^\[\]]+)\]", row):
            table = _parts(header[1])
            if table == location:
                return number
        elif key := re.match(r"\s*((?:[\w.\s-]|\"[^\"]*\"|'[^']*')+)=", row):
            dotted = [*table, *_parts(key[1])]
            if dotted == location[: len(dotted)]:
                return number
    return 0


def _parts(key: str) -> list[str]:
    """The parts of a dotted key, without their quotes."""
    return [part.strip().strip("\"'") for part in key.split(".")]


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
