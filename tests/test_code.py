"""Which code it was: its bytes, and the commit of its own repository."""

import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path

import pytest

from nightshift.provenance import source_code


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A small package in a folder of its own."""
    folder = tmp_path / "project" / "tasks" / "nightshift"
    (folder / "cli").mkdir(parents=True)
    (folder / "one.py").write_text("x = 1\n")
    (folder / "cli" / "two.py").write_text("y = 2\n")
    return folder


def git(folder: Path, *arguments: str) -> str:
    program = shutil.which("git")
    if program is None:
        pytest.skip("there is no git")
    who = ("-c", "user.name=x", "-c", "user.email=x@example.com", "-c", "commit.gpgsign=false")
    command = [program, "-C", str(folder), *who, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_a_changed_a_renamed_and_a_new_file_are_other_code(package, tmp_path):
    before = source_code.describe(package)
    assert before == source_code.describe(package)
    assert (before.version, before.commit) == (version("nightshift-ml"), "")
    seen = {before.sha256}
    (package / "cli" / "two.py").write_text("y = 3\n")
    seen.add(source_code.describe(package).sha256)
    (package / "one.py").rename(package / "three.py")
    seen.add(source_code.describe(package).sha256)
    (package / "four.py").touch()
    seen.add(source_code.describe(package).sha256)
    assert len(seen) == 4
    (package / "notes.txt").write_text("no code")
    shutil.copytree(package, tmp_path / "copy")
    assert source_code.describe(tmp_path / "copy").sha256 == source_code.describe(package).sha256


def test_the_commit_is_that_of_its_own_repository_and_of_no_other_around_it(package):
    git(package.parents[1], "init", "--quiet")
    git(package.parents[1], "add", ".")
    git(package.parents[1], "commit", "--quiet", "--message", "first")
    assert source_code.describe(package).commit == git(package.parents[1], "rev-parse", "HEAD")
    inside = package.parents[1] / "lib" / "tasks" / "nightshift"
    shutil.copytree(package, inside)
    assert source_code.describe(inside).commit == ""
