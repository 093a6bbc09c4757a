"""Cells of CSV files that people open in a spreadsheet: names of strangers in them must not become formulas.

An apostrophe goes before what would be one (OWASP, CSV injection), and is taken off again when a manifest
is read, so that what was corrected in a spreadsheet still names the same files and classes.
"""

import re
from typing import Final

# What begins a formula; the wide forms of the signs do in some languages. Leading apostrophes are ours.
FORMULA: Final = re.compile(r"'*[=+\-@\t\r\n＝＋－＠]")
NUMBER: Final = re.compile(r"[+-]?\d+([.,]\d+)?([eE][+-]?\d+)?")


def escape_cell(cell: str) -> str:
    """A cell that no spreadsheet takes for a formula. Numbers stay numbers."""
    return f"'{cell}" if FORMULA.match(cell) and not NUMBER.fullmatch(cell) else cell


def unescape_cell(cell: str) -> str:
    """What `escape_cell` was given."""
    return cell[1:] if cell.startswith("'") and FORMULA.match(cell) else cell


def escaped(value: object) -> str:
    """Text that Markdown and HTML show as it is, in one line."""
    text = " ".join(str(value).split())
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_{}\[\]|$])", r"\\\1", text)
