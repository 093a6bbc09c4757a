"""Reasons of refused files: by batch, replaced by every data set version, gone when nothing is refused."""

import pytest

from nightshift import storage
from nightshift.data import quarantine
from nightshift.data.formats import UnreadableError
from nightshift.records import Refusal


@pytest.fixture(autouse=True)
def store(tmp_path, monkeypatch):
    root = f"file://{tmp_path}"
    monkeypatch.setenv("NIGHTSHIFT_STORE", root)
    return root


def refusal(key: str, reason: str = "truncated") -> Refusal:
    return Refusal(key=key, sha256="0" * 64, reason=reason, detail="it ends early")


def test_reasons_are_read_back_by_batch():
    written = {"a": [refusal("a/x/1.png"), refusal("a/x/2.png")], "b c": [refusal("b c/x/1.png")]}
    quarantine.write("pets", written)
    assert quarantine.read("pets") == written
    assert quarantine.read("others") == {}


def test_a_batch_that_has_no_refusals_any_more_loses_its_file(store):
    quarantine.write("pets", {"a": [refusal("a/1")], "b": [refusal("b/1")]})
    quarantine.write("pets", {"b": [refusal("b/2")]})
    assert quarantine.read("pets") == {"b": [refusal("b/2")]}
    assert not storage.exists(f"{store}/quarantine/pets/a/reasons.jsonl")


def test_the_three_commonest_reasons_are_named_with_their_counts():
    refusals = [refusal(str(n), reason) for n, reason in enumerate(["a", "b", "b", "c", "c", "c", "d", "d"])]
    assert quarantine.commonest(refusals) == "3 c, 2 b, 2 d"


def test_a_key_writes_no_lines_into_the_log(capsys: pytest.CaptureFixture[str]) -> None:
    key = "cat/a.png\nERROR register: \x1b[31mversion 7 is registered\u2028ok é.png"
    found = quarantine.refusal(key, UnreadableError("damaged", "it says\r\nno more"))
    (line,) = capsys.readouterr().out.splitlines()
    assert line == (
        r"refused cat/a.png\nERROR register: \x1b[31mversion 7 is registered\u2028ok é.png: damaged: "
        r"it says\r\nno more"
    )
    assert found.key == key
