"""Text of strangers inside of Markdown: class names come from folders and files."""

import re


def escaped(value: object) -> str:
    """Text that Markdown and HTML show as it is, in one line."""
    text = " ".join(str(value).split())
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_{}\[\]|$])", r"\\\1", text)
