"""What systems leave behind is no image, no class and no batch, wherever it lies, and is counted."""

import io
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from source_files import folder

from nightshift import storage
from nightshift.config.clutter import LEFT_BEHIND, is_clutter
from nightshift.config.pipelines import find_pipeline, pipeline_files
from nightshift.data import batches
from nightshift.data.sources import find, ingest
from nightshift.data.sources.unlabelled import unlabelled
from nightshift.errors import InputError

PATHS = [
    *(".DS_Store", "cat/.DS_Store", "cat/._1.png", ".Trashes/1.png", ".fseventsd/1", "cat/Icon\r"),
    *("__MACOSX/cat/._1.png", "Network Trash Folder/1.png", "Temporary Items/x/1.png"),
    *("cat/Thumbs.db", "cat/thumbs.db", "cat/ehthumbs.db", "cat/Desktop.ini", "cat/desktop.ini"),
    *("$RECYCLE.BIN/1.png", "RECYCLER/1.png", "System Volume Information/1.png"),
    *("@eaDir/cat/SYNOPHOTO_THUMB_S.jpg", "cat/@eaDir/1.png/SYNOPHOTO_THUMB_M.jpg", "#recycle/old/1.png"),
    *("#snapshot/x/1.png", "@Recycle/1.png", "@Recently-Snapshot/1.png", "cat/.@__thumb/default1.png"),
    *(
        "lost+found/1.png",
        "cat/.ipynb_checkpoints/1-checkpoint.png",
        ".git/x",
        "cat/.nfs0001",
        "cat/~$notes.docx",
    ),
    *("cat_$folder$", "cat/Picasa.ini", "cat/ZbThumbnail.info", ".Trash-1000/files/1.png"),
]
SYSTEMS = {
    "incoming/pets/.DS_Store",
    "incoming/pets/monday/.DS_Store",
    "incoming/pets/monday/cat/._1.png",
    "incoming/pets/monday/@eaDir/cat/SYNOPHOTO_THUMB_S.jpg",
    "incoming/pets/@eaDir/cat/1.png",
}


@pytest.mark.parametrize("path", PATHS)
def test_what_systems_leave_is_known(path: str) -> None:
    assert is_clutter(path)


@pytest.mark.parametrize(
    "path", ["cat/1.png", "_READY", "@home/1.png", "#1/1.png", "recycle/1.png", "a.b/c$.png"]
)
def test_other_names_are_a_person_s(path: str) -> None:
    assert not is_clutter(path)


def test_a_folder_loses_nothing_but_what_systems_left(tmp_path: Path) -> None:
    batch = find(folder(tmp_path / "monday", "cat/1.png", "dog/2.png", *PATHS))
    assert [item.key for item in batch.items] == ["cat/1.png", "dog/2.png"]
    assert set(batch.ignored) == {LEFT_BEHIND}
    assert batch.ignored[LEFT_BEHIND] > 20
    with unlabelled(str(tmp_path / "monday")) as images:
        assert [item.key for item in images.items] == ["cat/1.png", "dog/2.png"]


def test_a_zip_loses_the_same(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "monday.zip", "w") as pack:
        for path in ("cat/1.png", "dog/2.png", *PATHS):
            if "\r" not in path:
                pack.writestr(path, path)
    with find(tmp_path / "monday.zip") as batch:
        assert [item.key for item in batch.items] == ["cat/1.png", "dog/2.png"]
        assert batch.ignored == {LEFT_BEHIND: len(PATHS) - 1}


def test_what_an_s3_client_copied_along_is_no_image_and_no_batch(tmp_path: Path) -> None:
    source = f"file://{tmp_path}/incoming/pets"
    folder(tmp_path, "incoming/pets/monday/cat/1.png", "incoming/pets/monday/_READY", *SYSTEMS)
    waiting, clutter = list[str](), Counter[str]()
    found = list(batches.complete(storage.listing(source), 600, waiting, clutter))
    assert [(batch.name, [key for key, _, _ in batch.files]) for batch in found] == [
        ("monday", ["cat/1.png"])
    ]
    assert (waiting, clutter) == ([], {"monday": 3, "@eaDir": 1})
    assert list(batches.left_out(clutter)) == [
        f"batch @eaDir: 1 left out: {LEFT_BEHIND}",
        f"batch monday: 3 left out: {LEFT_BEHIND}",
    ]


def test_it_is_no_image_of_another_source(tmp_path: Path) -> None:
    source = folder(tmp_path / "monday", "cat/1.png")
    store = f"file://{tmp_path}/incoming/pets"
    folder(tmp_path, *SYSTEMS)
    assert ingest(find(source), store).others == 0


def test_a_row_that_names_what_no_night_would_see_is_a_mistake(tmp_path: Path) -> None:
    folder(tmp_path / "monday", ".x/1.png", "2.png")
    (tmp_path / "monday" / "manifest.csv").write_text("path,label\n2.png,cat\n.x/1.png,cat\n")
    for source in ("monday", "monday/manifest.csv"):
        with pytest.raises(
            InputError, match=rf"line 3: '.x/1.png' is {LEFT_BEHIND}, so that no night would see"
        ):
            find(tmp_path / source)


def test_arrays_may_have_such_companions(tmp_path: Path) -> None:
    images = io.BytesIO()
    np.savez(images, x=np.zeros((2, 4, 4), np.uint8), y=np.array([0, 1]))
    path = tmp_path / "monday.npz"
    path.write_bytes(images.getvalue())
    with zipfile.ZipFile(path, "a") as pack:
        pack.writestr("__MACOSX/._x.npy", b"\0\5\x16\7")
    with find(path) as batch:
        assert batch.classes == {"0": 1, "1": 1}


def test_a_class_from_an_array_must_not_be_called_so(tmp_path: Path) -> None:
    np.savez(tmp_path / "monday.npz", x=np.zeros((2, 4, 4), np.uint8), y=np.array(["lost+found", "cat"]))
    with pytest.raises(InputError, match="so that no night would see it; rename it"):
        find(tmp_path / "monday.npz")


def test_a_pipeline_file_s_companion_is_no_pipeline(tmp_path: Path) -> None:
    (tmp_path / "digits.toml").write_text("")
    (tmp_path / "._digits.toml").write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X        ")
    assert pipeline_files(tmp_path) == [tmp_path / "digits.toml"]
    with pytest.raises(InputError, match=r"known in .*: digits$"):
        find_pipeline("pets", tmp_path)
