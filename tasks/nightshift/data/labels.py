"""A manifest's labels: CSV (UTF-8 or UTF-16) or Parquet with `path,label[,split,group]` and other columns.

The other columns are metadata of the image: they are carried along as one JSON object of texts, the same for
both formats, so that equal manifests give equal data sets. Empty cells count as absent. In CSV an apostrophe
before what would be a formula is not part of the cell (`nightshift.security.escaping`).
"""

import codecs
import csv
import io
import json
import re
import unicodedata
from collections.abc import Container, Iterable, Iterator, Sequence
from datetime import date, time
from pathlib import PurePosixPath
from typing import Any, Final, NamedTuple

from nightshift.errors import InputError
from nightshift.records import SPLITS, Split
from nightshift.security.escaping import escape_cell, unescape_cell

READY: Final = "_READY"
MANIFESTS: Final = ("manifest.csv", "manifest.parquet")
COLUMNS: Final = ("path", "label", "split", "group")
# What sources call their splits, in any case.
SPLIT_WORDS: Final[dict[str, Split]] = {
    **{split: split for split in SPLITS},
    "training": "train",
    **dict.fromkeys(("val", "valid", "dev"), "validation"),
    "testing": "test",
}
BESIDE_SPLITS: Final = {"set", "data", "dataset", "images", "imgs", "seg", "split"}  # train_set, Test Images
LONGEST_NAME: Final = 100
LONGEST_PART: Final = 255  # bytes; what a name on a disk may have, and stores may keep their objects there
# A manifest is foreign: of a larger one no row is read.
MOST_BYTES: Final = 2**30
MOST_ROWS: Final = 20_000_000
MOST_COLUMNS: Final = 1000
LONGEST_TITLES: Final = 2**16  # characters of the first line, that are looked at for what divides it
ROWS_AT_ONCE: Final = 4096  # of Parquet
MOST_SPELLINGS: Final = 64  # of splits, that are remembered


class Label(NamedTuple):
    name: str
    split: Split | None = None  # the source's own
    group: str | None = None  # images of one group stay on one side of a split
    extra: str = ""  # the other columns as a JSON object of texts, keys sorted; empty when there are none


class Row(NamedTuple):
    place: str  # "line 3", for messages
    path: str
    label: Label


class Labels(NamedTuple):
    """What a manifest says of some files."""

    by_path: dict[str, Label]
    splits: frozenset[Split]  # that any row names, of those files or not


def read(data: bytes, where: str) -> dict[str, Label]:
    """Labels by path from a manifest's bytes; `where` names it and ends in .csv or .parquet.

    Raises InputError with the file and the line of the first mistake.
    """
    return {row.path: row.label for row in rows(data, where)}


def of(data: bytes, where: str, keys: Container[str]) -> Labels:
    """Labels of the files `keys`, composed paths, in memory that does not grow with the rows of others.

    A mistake in a row of another file is for those who read that one. Raises InputError like `read`.
    """
    splits: set[str] = set()
    found = {row.path: row.label for row in rows(data, where, keys, splits)}
    return Labels(found, frozenset(named for split in splits if (named := split_named(split))))


def rows(
    data: bytes, where: str, keys: Container[str] | None = None, splits: set[str] | None = None
) -> Iterator[Row]:
    """The rows of a manifest in their order, each path once. Raises InputError like `read`.

    With `keys` only theirs; to `splits` are added the splits that any row names.
    """
    places: dict[str, str] = {}
    number = 0
    for place, cells in _parquet(data, where) if where.endswith(".parquet") else _csv(data, where):
        number += 1
        if number > MOST_ROWS:
            raise InputError(f"{where} has more than {MOST_ROWS} rows; cut it into several batches")
        at = f"{where}, {place}"
        if splits is not None and len(splits) <= MOST_SPELLINGS:  # a wrong one fails where it is read
            splits.add(cells.get("split", ""))
        if keys is not None and composed(_canonical(cells["path"])) not in keys:
            continue
        path = composed(_path(cells.pop("path", ""), at))
        if path in places:
            raise InputError(f"{at}: path {path!r} stands already in {places[path]}; keep one of the two")
        places[path] = place
        name = check_name(f"{at}: label", spelled(cells.pop("label", "")))
        split = _split(cells.pop("split", ""), at)
        group = spelled(cells.pop("group", "")) or None
        yield Row(place, path, Label(name, split, group, _extra(cells)))
    if not number:
        raise InputError(f"{where} has no rows; each names a file: {','.join(COLUMNS)}")


def write(labels: Sequence[tuple[str, Label]]) -> bytes:
    """A CSV manifest that `read` reads back as the same labels; safe to open in a spreadsheet."""
    extras = [json.loads(label.extra) if label.extra else {} for _, label in labels]
    further = sorted({column for extra in extras for column in extra})
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow((*COLUMNS, *map(escape_cell, further)))
    for (path, label), extra in zip(labels, extras, strict=True):
        known = (path, label.name, label.split or "", label.group or "")
        cells = (*known, *(extra.get(column, "") for column in further))
        writer.writerow(map(escape_cell, cells))
    return text.getvalue().encode()


def composed(text: str) -> str:
    """Letters with accents as one character each (NFC), as all but macOS write names of files."""
    return unicodedata.normalize("NFC", text)


def spelled(name: str) -> str:
    """A label or a group as every source would spell it: composed, and whole numbers as such.

    pandas turns a column of whole numbers with one empty cell into 101.0, 102.0, …
    """
    whole = re.fullmatch(r"(-?\d+)\.0+", name)
    return whole[1] if whole else composed(name)


def form(name: str) -> str:
    """What is left of a name without case, the way accents are written, and zeros before a number."""
    folded = composed(composed(name).casefold())
    return folded.lstrip("0") or "0" if folded.isdecimal() else folded


def look_alike(names: Iterable[str]) -> tuple[str, str] | None:
    """Two names that differ in nothing but case, how accents are written, or zeros before a number."""
    seen: dict[str, str] = {}
    for name in sorted(names):
        other = seen.setdefault(form(name), name)
        if other != name:
            return other, name
    return None


def split_named(text: str) -> Split | None:
    """The split that a word or the name of a folder means: `Training`, `val`, `test_set`; None for others."""
    words = [word for word in re.split(r"[-_. ]+", text.casefold()) if word not in BESIDE_SPLITS]
    return SPLIT_WORDS.get(words[0]) if len(words) == 1 else None


def check_name(kind: str, name: str) -> str:
    """`name` when it is safe as a part of a key and a path; InputError says which rule it breaks."""
    rules = {
        "must not be empty": not name.strip(),
        f"must have at most {LONGEST_NAME} characters": len(name) > LONGEST_NAME,
        f"must have at most {LONGEST_PART} bytes": len(name.encode("utf-8", "replace")) > LONGEST_PART,
        "must not begin with a dot": name.startswith("."),
        "must not contain '..', a slash or a backslash": any(part in name for part in ("..", "/", "\\")),
        "must not contain control or undecodable characters": not name.isprintable(),
        "must not begin or end with a space": name != name.strip(),
        f"must not be {READY} or {' or '.join(MANIFESTS)}": name in (READY, *MANIFESTS),
    }
    if broken := next((rule for rule, is_broken in rules.items() if is_broken), None):
        raise InputError(f"{kind} {broken}, got {name[:LONGEST_NAME]!r}; rename it")
    return name


def _csv(data: bytes, where: str) -> Iterator[tuple[str, dict[str, str]]]:
    encoding = "utf-16" if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
    text = io.TextIOWrapper(io.BytesIO(data), encoding, newline="")
    try:
        reader = csv.reader(text, delimiter=_delimiter(text), strict=True)
        titles = [title.strip() for title in next(reader, [])]
        while titles and not titles[-1]:  # spreadsheets keep columns that were emptied, and rows
            titles.pop()
        header = [unescape_cell(title) for title in _check_columns(titles, f"{where}, line 1")]
        for row in reader:
            cells = [unescape_cell(cell.strip()) for cell in row]
            if not any(cells):
                continue
            if len(cells) < len(header) or any(cells[len(header) :]):
                raise InputError(
                    f"{where}, line {reader.line_num}: it must have {len(header)} cells like the first line"
                )
            yield f"line {reader.line_num}", dict(zip(header, cells, strict=False))
    except (csv.Error, UnicodeError) as error:
        raise InputError(f"{where} is not a readable CSV file in UTF-8 ({error}); save it as one") from error


def _delimiter(text: io.TextIOWrapper) -> str:
    """What stands between the columns: in many languages spreadsheets write semicolons, or tabs."""
    first = text.readline(LONGEST_TITLES)
    text.seek(0)
    for delimiter in ",;\t":
        if {"path", "label"} <= {title.strip(' "\r\n') for title in first.split(delimiter)}:
            return delimiter
    return ","


def _parquet(data: bytes, where: str) -> Iterator[tuple[str, dict[str, str]]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(pa.BufferReader(data), pre_buffer=False)
        header = _check_columns(file.schema_arrow.names, where)
        number = 0
        for batch in file.iter_batches(ROWS_AT_ONCE, use_threads=False):
            if batch.schema.names != file.schema_arrow.names:
                raise InputError(f"{where}: its columns are not those of its own schema; write it again")
            for row in batch.to_pylist():
                number += 1
                at = f"{where}, row {number}"
                cells = {column: _text(row[column], column, at) for column in header}
                if any(cells.values()):
                    yield f"row {number}", cells
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise InputError(f"{where} is not a readable Parquet file ({error}); write it again") from error


def _check_columns(names: Sequence[str], where: str) -> Sequence[str]:
    if len(names) > MOST_COLUMNS:
        raise InputError(f"{where}: it has {len(names)} columns, at most {MOST_COLUMNS} are read; drop some")
    if len(set(names)) != len(names) or not {"path", "label"} <= set(names) or not all(map(str.strip, names)):
        raise InputError(
            f"{where}: columns must be path,label[,split,group] and metadata columns of other names, "
            f"each once, got {','.join(names)!r}"
        )
    return names


def _text(value: Any, column: str, at: str) -> str:
    """A Parquet cell as a CSV file would hold it."""
    if value is None or value != value:  # NaN: how pandas writes an absent number
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int | float):
        return str(value).strip()
    if isinstance(value, date | time):
        return value.isoformat()
    raise InputError(
        f"{at}: column {column!r} holds a {type(value).__name__}; only text, numbers, truth values, dates "
        "and times are read; remove or convert it"
    )


def _canonical(cell: str) -> str:
    """The path of a cell that may be written another way, such as `./cat//1.png`."""
    return PurePosixPath(cell).as_posix() if "//" in cell or "./" in cell or cell.endswith("/") else cell


def _path(cell: str, at: str) -> str:
    path = PurePosixPath(cell)
    if not path.parts or path.is_absolute() or ".." in path.parts or "\\" in cell:
        raise InputError(
            f"{at}: path must be relative to the manifest and inside its folder, with slashes, got {cell!r}"
        )
    return path.as_posix()


def _split(cell: str, at: str) -> Split | None:
    split = split_named(cell)
    if cell and split is None:
        allowed = ", ".join(SPLIT_WORDS)
        raise InputError(f"{at}: split must be empty or one of {allowed}, got {cell!r}")
    return split


def _extra(cells: dict[str, str]) -> str:
    filled = {column: cell for column, cell in cells.items() if cell}
    return json.dumps(filled, ensure_ascii=False, sort_keys=True, separators=(",", ":")) if filled else ""
