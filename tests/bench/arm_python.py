"""Python, NumPy and ONNX Runtime for Arm in a folder, which `qemu-aarch64` runs on this machine.

Python is Debian's, by apt with a state of its own, so the system stays as it is. NumPy and ONNX Runtime are
the wheels of the versions in requirements.lock. All is fetched once and kept in NIGHTSHIFT_CACHE.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
PACKAGES: Final = ("python3-minimal", "libpython3-stdlib", "libstdc++6")
WHEELS: Final = ("numpy", "onnxruntime")
PLATFORMS: Final = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux2014_aarch64")
# Implementer and part that the register MIDR_EL1 holds: Arm, "Technical Reference Manual" of each core.
PARTS: Final = {"cortex-a53": (0x41, 0xD03), "neoverse-n1": (0x41, 0xD0C), "max": (0x00, 0x051)}
FETCH_SECONDS: Final = 300  # of one command
CPUINFO: Final = """processor\t: 0
CPU implementer\t: 0x{:02x}
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: 0x{:03x}
CPU revision\t: 0
"""


class UnavailableError(RuntimeError):
    """A processor cannot be emulated here; its text says in one sentence why."""


def fetched() -> Path:
    """The folder with `root`, which are Debian's files, and `site`, which are the wheels'; made once.

    Raises UnavailableError when something is not installed or cannot be fetched.
    """
    for program in ("qemu-aarch64", "apt-get", "dpkg"):
        if shutil.which(program) is None:
            raise UnavailableError(
                f"{program} is not installed, so Arm is left out: use Debian with qemu-user"
            )
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    versions = {name: version for name, version in re.findall(r"(?m)^(\w+)==(\S+)", lock) if name in WHEELS}
    cache = os.environ.get("NIGHTSHIFT_CACHE") or Path(tempfile.gettempdir(), f"nightshift-{os.getuid()}")
    folder = Path(cache).absolute() / "-".join(
        ["aarch64", *(word for pair in versions.items() for word in pair)]
    )
    if not folder.exists():
        folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        print(f"fetching Python for Arm into {folder}", flush=True)
        with tempfile.TemporaryDirectory(prefix="aarch64-", dir=folder.parent) as made:
            _debian(Path(made))
            _wheels(Path(made), [f"{name}=={version}" for name, version in versions.items()])
            (Path(made) / "kept").rename(folder)
    return folder


def command(folder: Path, cpu: str, into: Path) -> tuple[list[str], dict[str, str]]:
    """Beginning of a command that runs `fetched` Python on that processor of PARTS, and its variables."""
    words = ["qemu-aarch64", "-cpu", cpu, "-L", str(_prefix(folder / "root", cpu, into))]
    return [*words, str(_python(folder / "root"))], {"PYTHONPATH": str(folder / "site")}


def _prefix(root: Path, cpu: str, into: Path) -> Path:
    """A folder whose files the emulated process sees before the machine's.

    They are Debian's and those that describe the processor: ONNX Runtime reads /proc/cpuinfo, and crashes on
    that of an x86 machine. It is told of one core.
    """
    prefix = into / cpu
    for name, text in {
        "proc/cpuinfo": CPUINFO.format(*PARTS[cpu]),
        "sys/devices/system/cpu/possible": "0\n",
        "sys/devices/system/cpu/present": "0\n",
    }.items():
        (prefix / name).parent.mkdir(parents=True, exist_ok=True)
        (prefix / name).write_text(text, encoding="utf-8")
    for entry in root.iterdir():
        (prefix / entry.name).symlink_to(entry.absolute())
    return prefix


def _debian(into: Path) -> None:
    """Debian's Python and all that it needs, unpacked to kept/root."""
    root, apt, archives = into / "kept" / "root", into / "apt", into / "apt" / "cache" / "archives"
    for folder in (root, apt / "state" / "lists" / "partial", archives / "partial"):
        folder.mkdir(parents=True)
    settings = {
        "APT::Architecture": "arm64",
        "APT::Architectures": "arm64",
        "APT::Sandbox::User": "root",  # another user could not write here
        "Debug::NoLocking": "1",
        "Dir::State": apt / "state",
        "Dir::State::status": "/dev/null",  # nothing is installed, so whatever is needed is fetched
        "Dir::Cache": apt / "cache",
    }
    given = [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]
    _run("apt-get update", "apt-get", *given, "update")
    only = ("--yes", "--no-install-recommends", "--download-only")
    _run("apt-get install", "apt-get", *given, *only, "install", *PACKAGES)
    for package in sorted(archives.glob("*.deb")):
        _run("dpkg --extract", "dpkg", "--extract", str(package), str(root))
    if not (root / "lib").exists():  # a link that Debian makes elsewhere since version 13
        (root / "lib").symlink_to("usr/lib")


def _wheels(into: Path, pinned: list[str]) -> None:
    """NumPy and ONNX Runtime for Arm and Debian's version of Python, unpacked to kept/site."""
    version = _python(into / "kept" / "root").name.removeprefix("python")
    platforms = [word for name in PLATFORMS for word in ("--platform", name)]
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "download", "--no-deps"]
    asked = ["--only-binary=:all:", "--python-version", version, "--dest", str(into / "wheels")]
    _run("pip download", *pip, *asked, *platforms, *pinned)
    for wheel in sorted((into / "wheels").glob("*.whl")):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(into / "kept" / "site")


def _python(root: Path) -> Path:
    found = sorted((root / "usr" / "bin").glob("python3.*"))
    if not found:
        raise UnavailableError(
            f"no Python is in {root}, so Arm is left out: delete that folder and try again"
        )
    return found[0]


def _run(name: str, *words: str) -> None:
    """Raises UnavailableError with the command's last words when it fails or takes too long."""
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=FETCH_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise UnavailableError(
            f"{name} took over {FETCH_SECONDS} s, so Arm is left out: try again later"
        ) from error
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["without a word"])[-1]
        raise UnavailableError(f"{name} failed ({last}), so Arm is left out: check the network and try again")
