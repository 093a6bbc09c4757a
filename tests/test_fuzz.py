"""A minute of what `make fuzz` does for an hour: inputs that are led by the code they reach."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "bench" / "fuzz.py"

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("atheris") is None, reason="atheris has no wheel for this machine"
)


def fuzzed(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *arguments, str(tmp_path / "found")]
    return subprocess.run(command, cwd=SCRIPT.parents[2], capture_output=True, text=True, check=False)


def test_no_reader_fails_at_what_is_found_in_a_short_time(tmp_path: Path) -> None:
    done = fuzzed(tmp_path, "15")
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("nothing found") == 5
    assert not list((tmp_path / "found").iterdir())
