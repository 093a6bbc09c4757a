"""What a person points at, and what becomes of it in the store."""

import csv
import io
from pathlib import Path

import pytest
from source_files import folder

from nightshift import storage
from nightshift.config.clutter import LEFT_BEHIND
from nightshift.data.sources import Batch, Ingested, Item, check_name, find, ingest
from nightshift.errors import InputError


def manifest(root: Path, text: str, *files: str) -> Path:
    folder(root, *files)
    root.mkdir(exist_ok=True)
    (root / "manifest.csv").write_text(text, encoding="utf-8")
    return root / "manifest.csv"


@pytest.fixture
def store(tmp_path: Path) -> str:
    return f"file://{tmp_path}/store/incoming/pets"


def keys(store: str) -> list[str]:
    return [stored.key for stored in storage.listing(store)]


def times(store: str) -> dict[str, float]:
    return {stored.key: stored.modified for stored in storage.listing(store)}


def test_a_folder_of_class_folders_becomes_a_batch(tmp_path: Path, store: str) -> None:
    source = folder(tmp_path / "monday", "cat/a.png", "cat/b.png", "dog/a.png")
    result = ingest(find(source), store)
    assert keys(store) == ["monday/_READY", "monday/cat/a.png", "monday/cat/b.png", "monday/dog/a.png"]
    assert storage.read(f"{store}/monday/dog/a.png") == b"content of dog/a.png"
    assert result == Ingested("monday", f"{store}/monday", {"cat": 2, "dog": 1}, 60, 3, 0, 0, {})


def test_the_batch_can_be_named(tmp_path: Path, store: str) -> None:
    ingest(find(folder(tmp_path / "x", "cat/a.png"), "2026-11-22"), store)
    assert keys(store) == ["2026-11-22/_READY", "2026-11-22/cat/a.png"]


def test_the_working_folder_has_a_name_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder(tmp_path / "monday", "cat/a.png"))
    assert find(Path()).name == "monday"


def test_ingesting_twice_changes_nothing(tmp_path: Path, store: str) -> None:
    batch = find(folder(tmp_path / "monday", "cat/a.png", "dog/a.png"))
    ingest(batch, store)
    before = times(store)
    result = ingest(batch, store)
    assert (result.uploaded, result.skipped) == (0, 2)
    assert times(store) == before


def test_only_what_is_new_or_changed_is_uploaded(tmp_path: Path, store: str) -> None:
    source = folder(tmp_path / "monday", "cat/a.png", "cat/b.png")
    ingest(find(source), store)
    before = times(store)
    (source / "cat/a.png").write_bytes(b"CONTENT OF cat/a.png")  # as long as before
    folder(source, "dog/c.png")
    result = ingest(find(source), store)
    assert (result.uploaded, result.skipped) == (2, 1)
    assert times(store)["monday/cat/b.png"] == before["monday/cat/b.png"]
    assert storage.read(f"{store}/monday/cat/a.png") == b"CONTENT OF cat/a.png"
    assert times(store)["monday/_READY"] > before["monday/_READY"]


def test_an_interrupted_upload_leaves_no_marker_and_is_continued(tmp_path: Path, store: str) -> None:
    good = [Item(f"cat/{i}.png", "cat", b"x%d" % i) for i in range(40)]
    lost = Item("cat/zz.png", "cat", tmp_path / "unplugged.png")
    lost.content.write_bytes(b"12")  # type: ignore[union-attr]
    batch = Batch("monday", (*good, lost))

    def unplug(files: int) -> None:
        (tmp_path / "unplugged.png").unlink(missing_ok=True)

    with pytest.raises(InputError, match=r"unplugged.png cannot be read \(No such file"):
        ingest(batch, store, advance=unplug)
    assert "monday/_READY" not in keys(store)
    (tmp_path / "unplugged.png").write_bytes(b"12")
    result = ingest(batch, store)
    assert result.skipped > 0
    assert result.uploaded + result.skipped == 41
    assert "monday/_READY" in keys(store)


def test_a_growing_batch_is_not_ready_while_it_grows(tmp_path: Path, store: str) -> None:
    ingest(Batch("monday", (Item("cat/a.png", "cat", b"a"),)), store)
    seen: list[bool] = []
    more = Batch("monday", (Item("cat/a.png", "cat", b"a"), Item("cat/b.png", "cat", b"b")))
    ingest(more, store, advance=lambda files: seen.append(storage.exists(f"{store}/monday/_READY")))
    assert seen == [True, False]  # what is skipped is known before anything changes
    assert storage.exists(f"{store}/monday/_READY")


def test_what_the_source_no_longer_has_stays_and_is_counted(tmp_path: Path, store: str) -> None:
    source = folder(tmp_path / "monday", "cat/a.png", "cat/b.png")
    ingest(find(source), store)
    (source / "cat/b.png").unlink()
    assert ingest(find(source), store).others == 1
    assert "monday/cat/b.png" in keys(store)


def test_progress_adds_up(tmp_path: Path, store: str) -> None:
    batch = find(folder(tmp_path / "monday", *(f"cat/{i}.png" for i in range(9))))
    done: list[int] = []
    ingest(batch, store, advance=done.append)
    assert sum(done) == 9


def test_nothing_is_left_out_silently(tmp_path: Path) -> None:
    source = folder(
        tmp_path / "monday",
        "cat/a.png",
        "cat/.DS_Store",
        "cat/Thumbs.db",
        ".git/config",
        "readme.txt",
        "cat/.x/y.png",
    )
    (source / "cat" / "loop").symlink_to(source)
    batch = find(source)
    assert [item.key for item in batch.items] == ["cat/a.png"]
    assert batch.ignored == {
        LEFT_BEHIND: 4,
        "outside the class folders": 1,
        "links to folders, broken links and devices": 1,
    }


def test_folders_inside_a_class_belong_to_it(tmp_path: Path) -> None:
    batch = find(folder(tmp_path / "monday", "cat/2026/a.png", "cat/2025/a.png"))
    assert [(item.key, item.label) for item in batch.items] == [
        ("cat/2025/a.png", "cat"),
        ("cat/2026/a.png", "cat"),
    ]


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ((), "holds no class folders with files; it must look like monday/<class>/<image file>"),
        (("a.png",), "holds no class folders with files"),
        (("Cat/a.png", "cat/a.png"), "classes 'Cat' and 'cat' in .* differ only in case"),
        (("cat /a.png",), r"class folder must not begin or end with a space, got 'cat '; rename it"),
        (("a..b/a.png",), "class folder must not contain '..'"),
        (("cat/a\nb.png",), r"file name 'cat/a\\nb.png' has control"),
        (("c" * 101 + "/a.png",), "class folder must have at most 100 characters"),
        (("_READY/a.png",), "class folder must not be _READY or manifest.csv"),
    ],
)
def test_a_folder_that_cannot_be_a_batch_says_why(tmp_path: Path, files: tuple[str, ...], words: str) -> None:
    (tmp_path / "monday").mkdir()
    with pytest.raises(InputError, match=words):
        find(folder(tmp_path / "monday", *files))


def test_empty_class_folders_are_said(tmp_path: Path) -> None:
    source = tmp_path / "monday"
    (source / "cat").mkdir(parents=True)
    with pytest.raises(InputError, match=r"holds only empty class folders \(cat\)"):
        find(source)
    folder(source, "dog/a.png")
    with pytest.raises(InputError, match=r"class folder 'cat' of .* is empty; fill it or remove it"):
        find(source)


def test_a_path_that_is_nothing_of_the_kind_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist; give a folder"):
        find(tmp_path / "nowhere")
    with pytest.raises(
        InputError, match=r"a.png is none of what can be ingested; give a folder of class folders, a .csv"
    ):
        find(folder(tmp_path, "a.png") / "a.png")


def test_a_name_that_cannot_be_taken_from_the_path_is_asked_for(tmp_path: Path) -> None:
    source = folder(tmp_path / ".hidden", "cat/a.png")
    with pytest.raises(InputError, match=r"must not begin with a dot.*give one with --batch"):
        find(source)
    assert find(source, "monday").name == "monday"


@pytest.mark.parametrize(
    "name", ["", " ", ".x", "..", "a/b", "a\\b", "a\0b", "a\nb", "x" * 101, "\udce9", "_READY", "漢" * 86]
)
def test_unsafe_names_are_refused(name: str) -> None:
    with pytest.raises(InputError, match=r"^batch name must"):
        check_name("batch name", name)


@pytest.mark.parametrize("name", ["batch-1", "2026-11-22", "Küche", "a b", "x" * 100, "漢" * 85, "[1]"])
def test_usual_names_are_taken(name: str) -> None:
    assert check_name("batch name", name) == name


def test_a_manifest_becomes_images_and_a_manifest(tmp_path: Path, store: str) -> None:
    text = "\ufeffpath,label,group,split\nx/a.png,cat,g1,train\nb.png, dog ,,\n"
    path = manifest(tmp_path / "monday", text, "x/a.png", "b.png")
    result = ingest(find(path), store)
    assert keys(store) == [
        "monday/_READY",
        "monday/images/b.png",
        "monday/images/x/a.png",
        "monday/manifest.csv",
    ]
    rows = list(csv.DictReader(io.StringIO(storage.read(f"{store}/monday/manifest.csv").decode())))
    assert rows == [
        {"path": "images/x/a.png", "label": "cat", "split": "train", "group": "g1"},
        {"path": "images/b.png", "label": "dog", "split": "", "group": ""},
    ]
    assert (result.classes, result.uploaded) == ({"cat": 1, "dog": 1}, 2)


def test_a_folder_with_a_manifest_is_that_manifest(tmp_path: Path) -> None:
    path = manifest(tmp_path / "monday", "path,label\na.png,cat\n", "a.png")
    assert find(path.parent) == find(path)
    path.rename(path.with_name("tuesday.csv"))
    assert find(path.with_name("tuesday.csv")).name == "tuesday"


def test_changed_labels_alone_make_the_batch_new(tmp_path: Path, store: str) -> None:
    source = tmp_path / "monday"
    ingest(find(manifest(source, "path,label\na.png,cat\n", "a.png")), store)
    before = times(store)
    result = ingest(find(manifest(source, "path,label\na.png,dog\n")), store)
    assert result.uploaded == 0
    assert b"images/a.png,dog" in storage.read(f"{store}/monday/manifest.csv")
    after = times(store)
    assert after["monday/images/a.png"] == before["monday/images/a.png"]
    assert after["monday/_READY"] >= after["monday/manifest.csv"] > before["monday/_READY"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "line 1: columns must be path,label"),
        ("path\na.png\n", r"line 1: columns must be path,label\[,split,group\] and metadata .*, got 'path'"),
        ("path|label\na.png|cat\n", "got 'path.label'"),
        ("path,label,label\na.png,cat,x\n", "got 'path,label,label'"),
        ("path,label\n", "has no rows"),
        ("path,label\na.png,cat\nmissing.png,cat\n", "line 3: 'missing.png' does not exist in"),
        ("path,label\na.png,\n", "line 2: label must not be empty, got ''"),
        ("path,label\na.png,../x\n", "line 2: label must not"),
        ("path,label\n../a.png,cat\n", "line 2: path must be relative to the manifest and inside its folder"),
        ("path,label\n/etc/passwd,cat\n", "line 2: path must be relative"),
        ("path,label\nfile:///etc/passwd,cat\n", "line 2: 'file:/etc/passwd' does not exist in"),
        ("path,label\ns3://other/a.png,cat\n", "line 2: 's3:/other/a.png' does not exist in"),
        ("path,label\n,cat\n", "line 2: path must be relative"),
        ("path,label\na.png,cat\n./a.png,dog\n", r"line 3: path 'a.png' stands already in line 2"),
        (
            "path,label,split\na.png,cat,fold1\n",
            "line 2: split must be empty or one of train, validation, test, .*, got 'fold1'",
        ),
        ("path,label\na.png,cat,train\n", "line 2: it must have 2 cells"),
        ("path,label\na.png\n", "line 2: it must have 2 cells"),
        ('path,label\n"a.png,cat\n', "is not a readable CSV file in UTF-8"),
        ("path,label\na.png,cat\nb.png,CAT\n", "differ only in case"),
    ],
)
def test_a_manifest_s_mistake_is_said_with_its_line(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        find(manifest(tmp_path / "monday", text, "a.png", "b.png"))


def test_the_line_is_that_of_the_file_even_after_cells_of_two_lines(tmp_path: Path) -> None:
    text = 'path,label,group\na.png,cat,"two\nlines"\nmissing.png,cat,\n'
    with pytest.raises(InputError, match=r"line 4: 'missing.png'"):
        find(manifest(tmp_path / "monday", text, "a.png"))


@pytest.mark.parametrize("row", ["caf\u00e9", "cafe\u0301"])
@pytest.mark.parametrize("disk", ["caf\u00e9", "cafe\u0301"])
@pytest.mark.parametrize("source", ["monday", "monday/manifest.csv"])
def test_a_row_finds_its_file_however_accents_are_written(
    tmp_path: Path, row: str, disk: str, source: str
) -> None:
    manifest(tmp_path / "monday", f"path,label\n{row}.png,x\n", f"{disk}.png")
    batch = find(tmp_path / source)
    assert [item.key for item in batch.items] == ["images/caf\u00e9.png"]
    assert batch.items[0].read() == f"content of {disk}.png".encode()


def test_a_batch_is_of_one_kind(tmp_path: Path, store: str) -> None:
    classes = find(folder(tmp_path / "folders", "cat/a.png"), "monday")
    labelled = find(manifest(tmp_path / "labelled", "path,label\na.png,cat\n", "a.png"), "monday")
    ingest(classes, store)
    with pytest.raises(InputError, match=r"batch 'monday' .* already has class folders; choose another name"):
        ingest(labelled, store)
    ingest(labelled, f"{store}-2")
    with pytest.raises(InputError, match="already has a manifest"):
        ingest(classes, f"{store}-2")
