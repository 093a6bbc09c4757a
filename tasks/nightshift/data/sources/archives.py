"""Zip and tar archives, unpacked with suspicion into numbered files of a temporary folder.

No name of an archive becomes a name on disk. Refused are absolute names and those with `..`, links, devices,
encrypted and sparse members, two members of one name, and what grows beyond the limits: by what the archive
declares and by what really comes out. Memory stays constant, except for the list of names.
"""

import bz2
import errno
import gzip
import io
import lzma
import re
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any, Final, NoReturn, Self

from nightshift.data.sources.allowance import ALWAYS_ALLOWED, Allowance
from nightshift.data.sources.batch import LARGEST_FILE
from nightshift.data.sources.folders import Tree, checked_path, visible
from nightshift.errors import InputError

SUFFIX: Final = re.compile(r"\.(zip|tar|tar\.(gz|xz|bz2|zst)|tgz|txz|tbz2|tzst)$", re.IGNORECASE)
LONGEST_HEADER: Final = 2**20  # of a tar member; tarfile reads it into memory
UTF_8: Final = 0x800  # a flag of a zip's member: its name is in UTF-8
EXTENSIONS: Final = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)
DAMAGE: Final = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    OSError,  # how gzip and zstd report damage
    NotImplementedError,  # a way of packing that zipfile does not know
    LookupError,  # a member without a name
    struct.error,
    OverflowError,
    ValueError,
)


def is_archive(name: str) -> bool:
    return SUFFIX.search(name) is not None


def stem(name: str) -> str:
    """The name of an archive without what says that it is one."""
    return SUFFIX.sub("", name)


def unpack(archive: Path, stack: ExitStack) -> Tree:
    """The visible files of an archive, on disk until `stack` is closed. Raises InputError."""
    folder = Path(stack.enter_context(TemporaryDirectory(prefix="nightshift-")))
    target = _Target(archive, folder)
    try:
        if archive.name.lower().endswith(".zip"):
            _unzip(archive, target)
        else:
            _untar(archive, target)
    except DAMAGE as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise InputError(
                f"{archive} does not fit into {folder} ({error.strerror}); name a folder with more "
                "space in TMPDIR"
            ) from error
        raise InputError(
            f"{archive} is damaged or no such archive ({error}); pack or copy it again"
        ) from error
    return replace(visible(str(archive), target.files), notes=target.notes)


class _Target:
    """Where members go, and how much may still go there."""

    def __init__(self, archive: Path, folder: Path) -> None:
        self.archive = archive
        self.folder = folder
        self.files: dict[str, Path] = {}
        self.notes: list[str] = []
        self.allowance = Allowance(archive)

    def refuse(self, name: str, why: str) -> NoReturn:
        raise InputError(f"{self.archive} holds {name[:200]!r}, {why}")

    def check(self, name: str, declared: int) -> str:
        """The member's path, when it may be unpacked."""
        path = checked_path(name, str(self.archive))
        if path in self.files:
            self.refuse(path, "twice; pack it again with one of the two")
        self.allowance.count(len(self.files) + 1)
        if declared > LARGEST_FILE:
            self.refuse(path, f"of {declared} bytes; an image file may have {LARGEST_FILE}")
        if declared > self.allowance.left:
            self.allowance.too_much()
        return path

    def add(self, path: str, member: IO[bytes], declared: int) -> None:
        file = self.folder / f"{len(self.files):07d}"
        written = self.allowance.unpack(member, file, declared)
        if written != declared:
            self.refuse(path, f"which ends after {written} of {declared} bytes; pack or copy it again")
        self.files[path] = file


def _unzip(archive: Path, target: _Target) -> None:
    with zipfile.ZipFile(archive) as pack:
        members = [info for info in pack.infolist() if not info.is_dir()]
        if sum(info.file_size for info in members) > target.allowance.left:
            target.allowance.too_much()
        names = _names(members, target)
        for info, name in zip(members, names, strict=True):
            mode = stat.S_IFMT(info.external_attr >> 16)
            if info.flag_bits & 1:
                target.refuse(info.filename, "which is encrypted; pack it again without a password")
            if mode not in (0, stat.S_IFREG):
                target.refuse(info.filename, "a link or a device; pack it again with plain files only")
            if info.orig_filename != info.filename:
                target.refuse(info.orig_filename, "whose name has a NUL or a backslash; rename it")
            path = target.check(name, info.file_size)
            with pack.open(info) as member:
                target.add(path, member, info.file_size)


def _names(members: Sequence[zipfile.ZipInfo], target: _Target) -> list[str]:
    """Names of members; those that do not say that they are UTF-8 are it, or are in a code page of DOS.

    zipfile takes code page 437 then. macOS writes UTF-8 without saying so; Windows the code page of its
    language, which is 850 in western Europe. What both pages read as the same letters is taken, and told.
    """
    foreign = [info for info in members if not info.flag_bits & UTF_8 and not info.filename.isascii()]
    if not foreign:
        return [info.filename for info in members]
    raw = {id(info): info.filename.encode("cp437") for info in foreign}
    try:
        decoded = {key: name.decode("utf-8") for key, name in raw.items()}
    except UnicodeDecodeError:
        decoded = {id(info): info.filename for info in foreign}
        for info in foreign:
            name = info.filename
            letters = all(letter.isascii() or letter.isalpha() for letter in name)
            if not letters or raw[id(info)].decode("cp850") != name:
                target.refuse(name, "in a code page that it does not name; pack it again with names in UTF-8")
        target.notes.append(f"names are read in code page 437, such as {foreign[0].filename!r}")
    return [decoded.get(id(info), info.filename) for info in members]


def _untar(archive: Path, target: _Target) -> None:
    with (
        _decompressed(archive) as stream,
        tarfile.open(fileobj=_Counted(stream, target), mode="r|", tarinfo=_Member, encoding="utf-8") as pack,
    ):
        for member in pack:
            pack.members = []  # type: ignore[attr-defined]  # else it keeps every header it has seen
            if member.isdir():
                continue
            if not member.isreg() or member.sparse is not None:
                target.refuse(member.name, "a link, a device or a sparse file; pack it with plain files only")
            path = target.check(member.name, member.size)
            content = pack.extractfile(member)
            if content is not None:
                target.add(path, content, member.size)


class _Member(tarfile.TarInfo):
    """A header that is checked before tarfile acts on it: it would read any length into memory, and takes a
    damaged header for the end, which loses what follows without a word."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        try:
            member = super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if len(buf) == tarfile.BLOCKSIZE and not any(buf):
                raise  # the end, as it should be
            raise tarfile.ReadError(f"it ends early, {error}") from error
        if member.type == tarfile.GNUTYPE_SPARSE:
            raise tarfile.ReadError(f"{member.name[:200]!r} is a sparse file, which is not read")
        if member.type in EXTENSIONS and member.size > LONGEST_HEADER:
            raise tarfile.ReadError(f"a header of {member.size} bytes, {LONGEST_HEADER} are allowed")
        return member


class _Counted(io.RawIOBase):
    """A stream that ends with an error when more comes out than the target takes, headers included."""

    def __init__(self, stream: IO[bytes], target: _Target) -> None:
        super().__init__()
        self.stream = stream
        self.target = target
        self.left = target.allowance.left * 2 + ALWAYS_ALLOWED

    def read(self, size: int = -1) -> bytes:
        data = self.stream.read(size)
        self.left -= len(data)
        if self.left < 0:
            self.target.allowance.too_much()
        return data


@contextmanager
def _decompressed(archive: Path) -> Iterator[IO[bytes]]:
    """The tar stream of a file, whatever its name says."""
    openers: dict[bytes, Callable[[Path], Any]] = {
        b"\x1f\x8b": gzip.open,
        b"BZh": bz2.open,
        b"\xfd7zXZ\0": lzma.open,
        b"\x28\xb5\x2f\xfd": _zstandard,
    }
    with archive.open("rb") as file:
        start = file.read(8)
    opener = next((opener for magic, opener in openers.items() if start.startswith(magic)), None)
    with opener(archive) if opener is not None else archive.open("rb") as stream:
        yield stream


def _zstandard(archive: Path) -> Any:
    import pyarrow as pa

    return pa.CompressedInputStream(pa.OSFile(str(archive)), "zstd")
