"""Archives: what they hold becomes a batch, and what could do harm is refused before it does."""

import bz2
import errno
import gzip
import io
import lzma
import os
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from source_files import scratch

from nightshift import storage
from nightshift.config.clutter import LEFT_BEHIND
from nightshift.data.sources import allowance, archives, find, ingest
from nightshift.data.sources.unlabelled import unlabelled
from nightshift.errors import InputError

__all__ = ["scratch"]  # a fixture

FILES = {"cat/a.png": b"a", "cat/2026/b.png": b"bb", "dog/c.png": b"ccc"}


def tar_bytes(files: dict[str, bytes], *more: tarfile.TarInfo, kind: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=kind) as pack:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            pack.addfile(member, io.BytesIO(data))
        for member in more:
            pack.addfile(member)
    return buffer.getvalue()


def zip_file(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as pack:
        for name, data in files.items():
            pack.writestr(name, data)
    return path


def zstandard(data: bytes) -> bytes:
    return pa.compress(data, "zstd", asbytes=True)


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


@pytest.mark.parametrize(
    ("suffix", "pack"),
    [
        ("tar", bytes),
        ("tar.gz", gzip.compress),
        ("tgz", gzip.compress),
        ("tar.xz", lzma.compress),
        ("tar.bz2", bz2.compress),
        ("tar.zst", zstandard),
    ],
)
def test_a_tar_of_class_folders_is_a_batch(
    tmp_path: Path, suffix: str, pack: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / f"monday.{suffix}"
    path.write_bytes(pack(tar_bytes(FILES)))
    with find(path) as batch:
        assert (batch.name, batch.classes) == ("monday", {"cat": 2, "dog": 1})
        assert {item.key: item.read() for item in batch.items} == FILES


def test_a_zip_is_uploaded_and_what_was_unpacked_is_gone(tmp_path: Path, scratch: Path) -> None:
    store = f"file://{tmp_path}/store"
    with find(zip_file(tmp_path / "monday.zip", FILES)) as batch:
        assert len(list(scratch.iterdir())) == 1
        assert ingest(batch, store).uploaded == 3
    assert list(scratch.iterdir()) == []
    assert storage.read(f"{store}/monday/cat/2026/b.png") == b"bb"


def test_an_archive_may_hold_a_manifest_and_stand_in_a_folder(tmp_path: Path) -> None:
    files = {
        "set/manifest.csv": b"path,label,split\nx/1.png,cat,test\n",
        "set/x/1.png": b"1",
        "set/x/2.png": b"2",
        "__MACOSX/set/x/._1.png": b"",
    }
    with find(zip_file(tmp_path / "monday.zip", files)) as batch:
        assert [(item.key, item.split) for item in batch.items] == [("images/x/1.png", "test")]
        assert batch.ignored == {LEFT_BEHIND: 1, "not named in the manifest": 1}
        assert batch.notes == ("the folder 'set' around everything is left out of the names",)


def test_one_folder_with_files_in_it_is_a_class_not_a_wrapper(tmp_path: Path) -> None:
    with find(zip_file(tmp_path / "a.zip", {"cat/a.png": b"", "cat/x/b.png": b""})) as batch:
        assert batch.classes == {"cat": 2}
    with find(zip_file(tmp_path / "b.zip", {"x/set/cat/a.png": b"", "x/set/dog/b.png": b""})) as batch:
        assert batch.classes == {"cat": 1, "dog": 1}


def test_a_name_leaves_no_trace_on_the_disk(tmp_path: Path, scratch: Path) -> None:
    name = "cat/" + "x" * 251 + ".png"
    with find(zip_file(tmp_path / "monday.zip", {name: b"a"})) as batch:
        assert [item.key for item in batch.items] == [name]
        assert [path.name for path in scratch.rglob("*") if path.is_file()] == ["0000000"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("/etc/passwd", "holds '/etc/passwd', which is absolute or leads out of it"),
        ("cat/../../x.png", "leads out of it"),
        ("C:/x.png", "is absolute"),
        ("cat/a\nb.png", "has control, undecodable or backslash"),
        ("cat/" + "x" * 1000, "is longer than 800 bytes; shorten it"),
        ("cat/" + "x" * 256, "has 256 bytes, a name on a disk may have 255; shorten it"),
        ("漢" * 86 + "/1.png", "has 258 bytes, a name on a disk may have 255; shorten it"),
    ],
)
def test_names_that_lead_elsewhere_are_refused(tmp_path: Path, name: str, words: str) -> None:
    tar = tmp_path / "monday.tar"
    tar.write_bytes(tar_bytes({name: b"x"}))
    for path in (zip_file(tmp_path / "monday.zip", {name: b"x"}), tar):
        with pytest.raises(InputError, match=words):
            find(path)


def test_a_name_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "monday.tar"
    path.write_bytes(tar_bytes({"cat/\udce9.png": b"x"}, kind=tarfile.GNU_FORMAT))
    with pytest.raises(InputError, match="undecodable"):
        find(path)


def unsaid(path: Path, encoding: str, *names: str) -> Path:
    """A zip whose names do not say their encoding, as Finder and Windows write them."""
    plain = {
        name: f"{number:02d}" + "x" * (len(name.encode(encoding)) - 2) for number, name in enumerate(names)
    }
    zip_file(path, {short: name.encode() for name, short in plain.items()})
    data = path.read_bytes()
    for name, short in plain.items():
        data = data.replace(short.encode(), name.encode(encoding))
    path.write_bytes(data)
    return path


def test_names_in_utf_8_are_read_as_such_also_where_the_zip_does_not_say_so(tmp_path: Path) -> None:
    with find(
        unsaid(tmp_path / "monday.zip", "utf-8", "cafe\u0301/1.png", "th\u00e9/2.png", "漢字/3.png")
    ) as batch:
        assert batch.classes == {"caf\u00e9": 1, "th\u00e9": 1, "漢字": 1}
        assert batch.notes == ()


def test_letters_of_western_code_pages_are_read_and_told(tmp_path: Path) -> None:
    path = unsaid(tmp_path / "monday.zip", "cp850", "K\u00e4fer/1.png", "\u00d6l/2.png")
    with unlabelled(str(path)) as batch:
        assert batch.notes == ("names are read in code page 437, such as 'K\u00e4fer/1.png'",)
    with find(path) as batch:
        assert batch.classes == {"K\u00e4fer": 1, "\u00d6l": 1}
        assert batch.notes == ("names are read in code page 437, such as 'K\u00e4fer/1.png'",)


@pytest.mark.parametrize(
    ("encoding", "name"),
    [
        ("cp1252", "K\u00e4fer/1.png"),
        ("cp932", "猫の写真/1.png"),
        ("gbk", "大熊猫/1.png"),
        ("cp866", "кошка/1.png"),
    ],
)
def test_names_in_a_code_page_that_nobody_names_are_refused(tmp_path: Path, encoding: str, name: str) -> None:
    path = unsaid(tmp_path / "monday.zip", encoding, name, "dog/2.png")
    with pytest.raises(
        InputError, match="in a code page that it does not name; pack it again with names in UTF"
    ):
        find(path)


@pytest.mark.parametrize(
    "member",
    [
        special("cat/a.png", tarfile.SYMTYPE, "/etc/passwd"),
        special("cat/a.png", tarfile.LNKTYPE, "cat/b.png"),
        special("cat/a.png", tarfile.CHRTYPE),
        special("cat/a.png", tarfile.FIFOTYPE),
    ],
)
def test_links_and_devices_are_refused(tmp_path: Path, member: tarfile.TarInfo) -> None:
    path = tmp_path / "monday.tar"
    path.write_bytes(tar_bytes(FILES, member))
    with pytest.raises(InputError, match=r"holds 'cat/a.png', a link, a device or a sparse file"):
        find(path)


def test_a_link_in_a_zip_is_refused(tmp_path: Path) -> None:
    path = zip_file(tmp_path / "monday.zip", FILES)
    with zipfile.ZipFile(path, "a") as pack:
        link = zipfile.ZipInfo("cat/link.png")
        link.external_attr = 0o120777 << 16
        pack.writestr(link, "/etc/passwd")
    with pytest.raises(InputError, match=r"holds 'cat/link.png', a link or a device"):
        find(path)


def test_an_encrypted_zip_is_refused(tmp_path: Path) -> None:
    path = zip_file(tmp_path / "monday.zip", {"cat/a.png": b"a"})
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1  # the flag in the central directory
    path.write_bytes(data)
    with pytest.raises(
        InputError, match=r"'cat/a.png', which is encrypted; pack it again without a password"
    ):
        find(path)


def test_a_member_without_a_name_is_refused(tmp_path: Path) -> None:
    path = zip_file(tmp_path / "monday.zip", {"a": b"1"})
    data = path.read_bytes()
    at = data.index(b"PK\x01\x02") + 46  # where the directory says the name
    path.write_bytes(data[:at] + b"\0" + data[at + 1 :])
    with pytest.raises(InputError, match="is damaged or no such archive"):
        find(path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_members_of_one_name_are_refused(tmp_path: Path) -> None:
    path = zip_file(tmp_path / "monday.zip", {"cat/a.png": b"a", "./cat/a.png": b"b"})
    with pytest.raises(InputError, match=r"holds 'cat/a.png', twice"):
        find(path)


def test_bombs_are_refused_by_what_they_declare_and_by_what_comes_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(allowance, "ALWAYS_ALLOWED", 2**20)
    zeros = {"cat/a.bmp": bytes(4 * 2**20)}
    tar = tmp_path / "monday.tar.gz"
    tar.write_bytes(gzip.compress(tar_bytes(zeros)))
    for path in (zip_file(tmp_path / "monday.zip", zeros), tar):
        with pytest.raises(InputError, match=r"grows to more than 200 times its size"):
            find(path)
    honest = {f"cat/{i}.png": os.urandom(2**20) for i in range(3)}
    with find(zip_file(tmp_path / "honest.zip", honest)) as batch:
        assert len(batch.items) == 3


def test_a_member_that_holds_more_than_it_declares_is_refused(tmp_path: Path, scratch: Path) -> None:
    path = zip_file(tmp_path / "monday.zip", {"cat/a.png": bytes(5000)})
    data = path.read_bytes()
    path.write_bytes(data.replace((5000).to_bytes(4, "little"), (10).to_bytes(4, "little")))
    with pytest.raises(InputError, match="damaged or no such archive"):
        find(path)
    target = archives._Target(path, tmp_path)
    with pytest.raises(InputError, match="grows to more than"):
        target.add("cat/a.png", io.BytesIO(bytes(11)), 10)
    target.allowance.left = 5
    with pytest.raises(InputError, match="grows to more than"):
        target.add("cat/a.png", io.BytesIO(bytes(10)), 10)


def test_a_header_without_end_is_refused_before_it_is_read(tmp_path: Path) -> None:
    member = tarfile.TarInfo("x")
    member.type, member.size = tarfile.XHDTYPE, 2**32
    path = tmp_path / "monday.tar"
    path.write_bytes(member.tobuf() + bytes(1024))
    with pytest.raises(InputError, match="a header of 4294967296 bytes, 1048576 are allowed"):
        find(path)


def test_a_file_that_is_too_large_for_an_image_is_refused(tmp_path: Path) -> None:
    member = tarfile.TarInfo("cat/film.mov")
    member.size = 2**30
    path = tmp_path / "monday.tar"
    path.write_bytes(member.tobuf() + bytes(1024))
    with pytest.raises(InputError, match=r"holds 'cat/film.mov', of 1073741824 bytes"):
        find(path)


@pytest.mark.parametrize("length", [0, 100, 700, 1100, 1536, 2048, 3000])
def test_a_tar_that_ends_early_is_never_taken_for_a_shorter_one(tmp_path: Path, length: int) -> None:
    whole = tar_bytes(FILES)
    path = tmp_path / "monday.tar"
    path.write_bytes(whole[:length])
    with pytest.raises(InputError, match=r"damaged|ends"):
        find(path)


@pytest.mark.parametrize("position", [600, 1030, 1100])
def test_a_damaged_header_in_the_middle_is_not_taken_for_the_end(tmp_path: Path, position: int) -> None:
    data = bytearray(tar_bytes(FILES))
    data[1024 + position % 512] ^= 0xFF
    path = tmp_path / "monday.tar"
    path.write_bytes(data)
    with pytest.raises(
        InputError, match=r"monday.tar is damaged or no such archive .it ends early, bad checksum"
    ):
        find(path)


@pytest.mark.parametrize("name", ["monday.zip", "monday.tar", "monday.tar.gz", "monday.tar.zst"])
def test_what_is_no_archive_is_said(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(
        b"\x28\xb5\x2f\xfd no archive at all" if "zst" in name else b"no archive" * 99
    )
    with pytest.raises(InputError, match=r"damaged"):
        find(tmp_path / name)


def test_a_zip_with_damaged_content_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "monday.zip"
    with zipfile.ZipFile(path, "w") as pack:
        pack.writestr("cat/a.png", b"0123456789")
    path.write_bytes(path.read_bytes().replace(b"0123456789", b"0123456780"))
    with pytest.raises(InputError, match=r"damaged or no such archive .*CRC"):
        find(path)


def test_ctrl_c_while_unpacking_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    path = zip_file(tmp_path / "monday.zip", FILES)
    monkeypatch.setattr(archives._Target, "add", interrupt)
    with pytest.raises(KeyboardInterrupt):
        find(path)


def test_a_full_disk_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fill(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    path = zip_file(tmp_path / "monday.zip", FILES)
    monkeypatch.setattr(archives._Target, "add", fill)
    with pytest.raises(InputError, match=r"does not fit into .* with more space in TMPDIR"):
        find(path)
