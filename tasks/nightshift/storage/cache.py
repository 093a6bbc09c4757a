"""The folder on the local disk for what can be made again."""

import os
import tempfile
from pathlib import Path


def folder() -> Path:
    """NIGHTSHIFT_CACHE, by default one of this user's in the folder for temporary files."""
    given = os.environ.get("NIGHTSHIFT_CACHE")
    return Path(given or Path(tempfile.gettempdir(), f"nightshift-{os.getuid()}")).absolute()
