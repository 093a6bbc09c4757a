"""Which Nightshift this is: its version, its commit where it lies in its own repository, and its bytes."""

import hashlib
import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Final

from nightshift.records import Code

PACKAGE: Final = Path(__file__).resolve().parents[1]


def describe(package: Path = PACKAGE) -> Code:
    """The code of the package in this folder; a change that no commit has counts too, by the digest."""
    return Code(version=version("nightshift-ml"), commit=_commit(package), sha256=_sha256(package))


def _sha256(package: Path) -> str:
    """Over the path and the bytes of every Python file, sorted by path."""
    files = {path.relative_to(package).as_posix(): path for path in package.rglob("*.py")}
    digest = hashlib.sha256()
    for name in sorted(files):
        digest.update(f"{hashlib.sha256(files[name].read_bytes()).hexdigest()}  {name}\n".encode())
    return digest.hexdigest()


def _commit(package: Path) -> str:
    """Empty without git, and where the repository around is another one's, such as that of a .venv in it."""
    git = shutil.which("git")
    if git is None:
        return ""
    command = [git, "-C", str(package), "rev-parse", "--show-toplevel", "HEAD"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    top, _, commit = done.stdout.strip().rpartition("\n")
    return commit if done.returncode == 0 and Path(top).resolve() == package.parents[1] else ""
