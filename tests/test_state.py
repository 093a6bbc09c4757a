"""Which versions may work on a stack's folder."""

import json
import stat
from pathlib import Path

import pytest

from nightshift.errors import InputError
from nightshift.stack import folder_version, lifecycle, supervisor

HERE = folder_version.installed()


def written(home: Path, **changes: object) -> Path:
    (home / folder_version.FILE).write_text(json.dumps(HERE.model_dump() | changes))
    return home


def test_the_first_start_writes_it_down_for_its_owner(tmp_path):
    assert folder_version.read(tmp_path) is None
    folder_version.claim(tmp_path)
    assert folder_version.read(tmp_path) == HERE
    assert stat.S_IMODE((tmp_path / folder_version.FILE).stat().st_mode) == 0o600


def test_an_older_one_is_taken_over_and_raised(tmp_path):
    folder_version.claim(written(tmp_path, airflow="3.2.9", mlflow="3.9.0", format=0))
    assert folder_version.read(tmp_path) == HERE


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"format": 2}, "has format 2, this Nightshift reads formats up to 1: update Nightshift"),
        ({"airflow": "3.10.0"}, rf"of Airflow 3\.10\.0, and {HERE.airflow} is installed here"),
        ({"mlflow": "4.0.0"}, r"install MLflow 4\.0\.0 or later"),
        ({"postgresql": "19"}, "is of PostgreSQL 19, and 18 is installed"),
        ({"postgresql": "17"}, "are of PostgreSQL 17, and 18 cannot open them: run `nightshift backup`"),
        ({"airflow": "newest"}, "'newest' in the state of the stack is no version"),
        ({"mlflow": None}, "version is not readable: restore it, or remove it"),
    ],
)
def test_a_newer_or_unreadable_one_is_refused_in_a_sentence_and_kept(tmp_path, changes, sentence):
    before = (written(tmp_path, **changes) / folder_version.FILE).read_text()
    with pytest.raises(InputError, match=sentence):
        folder_version.claim(tmp_path)
    assert (tmp_path / folder_version.FILE).read_text() == before


def test_more_than_is_known_is_no_reason_to_refuse(tmp_path):
    folder_version.claim(written(tmp_path, valkey="9"))


def test_up_refuses_a_newer_folder_before_it_starts_anything(tmp_path):
    written(tmp_path, format=7)
    with pytest.raises(InputError, match=f"the stack in {tmp_path} has format 7"):
        lifecycle.up(tmp_path, only=["valkey"], random_ports=True)
    assert supervisor.connect(tmp_path) is None
    assert not (tmp_path / "secrets.json").exists()
