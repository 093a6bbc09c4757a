"""Names of strangers in a spreadsheet are no formulas, and come back as they were."""

import pytest

from nightshift.security.escaping import escape_cell, unescape_cell

NAMES = [
    *(
        "=1+1",
        "=cmd|' /C calc'!A0",
        "+1+cmd",
        "-2-3",
        "@SUM(A1)",
        "\tx",
        "\rx",
        "\nx",
        "＝1",
        "＋1",
        "－1",
        "＠x",
    ),
    *("'=1", "''=1", "'x", "cat", "", "a=b", "x'", "images/=x.png", "-1", "+1", "-0.5", "1e-3", "-"),
]


@pytest.mark.parametrize("name", NAMES)
def test_no_name_begins_a_formula_and_every_name_comes_back(name: str) -> None:
    shown = escape_cell(name)
    assert unescape_cell(shown) == name
    assert shown[:1] not in set("=@\t\r\n＝＋－＠")
    assert shown[:1] not in set("+-") or float(shown)


@pytest.mark.parametrize("name", ["cat", "-1", "+1", "-0.5", "1e-3", "", "'x", "images/=x.png"])
def test_what_is_no_formula_stays_as_it_is(name: str) -> None:
    assert escape_cell(name) == name


def test_different_names_stay_different() -> None:
    assert len({escape_cell(name) for name in NAMES}) == len(NAMES)
