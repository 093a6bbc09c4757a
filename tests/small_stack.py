"""The folder of a stack of which a test starts a few servers itself."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from guardian import noted

from nightshift.stack import lifecycle


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for a small stack, with no pipelines; whatever runs there is ended."""
    folder = Path(tempfile.mkdtemp(prefix="ns-", dir="/tmp"))
    (folder / "dags").mkdir()
    monkeypatch.setenv("NIGHTSHIFT_DAGS", str(folder / "dags"))
    with noted(folder):
        yield folder
        lifecycle.down(folder)
        shutil.rmtree(folder)
