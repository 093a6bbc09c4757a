"""Names of strangers in Markdown are shown and not obeyed."""

import pytest

from nightshift.security.escaping import escaped


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("cat", "cat"),
        ("a|b", r"a\|b"),
        ("<img src=x>", "&lt;img src=x&gt;"),
        ("[x](http://y)", r"\[x\](http://y)"),
        ("**bold** `code`", r"\*\*bold\*\* \`code\`"),
        ("two\nlines", "two lines"),
        ("&amp;", "&amp;amp;"),
        (0.5, "0.5"),
    ],
)
def test_nothing_is_left_that_markdown_or_html_would_obey(given, shown):
    assert escaped(given) == shown
