"""Uploading: few files at a time, quick to stop, and the same command goes on."""

import os
import threading
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from waiting import patience

from nightshift import storage
from nightshift.data import labels
from nightshift.data.labels import Label
from nightshift.data.sources import Batch, Item, find, ingest
from nightshift.data.sources.batch import labelled
from nightshift.data.sources.upload import AHEAD, in_order
from nightshift.errors import InputError


@pytest.fixture
def store(tmp_path: Path) -> str:
    return f"file://{tmp_path}/store"


def keys(store: str) -> list[str]:
    return [stored.key for stored in storage.listing(store)]


def test_results_come_in_order_and_few_are_waiting() -> None:
    begun: list[int] = []
    results = in_order(lambda number: (begun.append(number), number)[1], range(1000), threads=2)
    assert [next(results) for _ in range(10)] == list(range(10))
    assert len(begun) <= 10 + 2 * AHEAD
    assert list(results) == list(range(10, 1000))


def test_after_an_error_nothing_more_is_begun() -> None:
    begun: list[int] = []

    def work(number: int) -> None:
        begun.append(number)
        if number == 3:
            raise InputError("no")

    with pytest.raises(InputError):
        list(in_order(work, range(1000), threads=2))
    assert len(begun) <= 4 + 2 * AHEAD


def test_ctrl_c_does_not_wait_for_what_is_under_way_and_begins_nothing_more() -> None:
    before, begun, release = set(threading.enumerate()), [], threading.Event()

    def work(number: int) -> bool:
        begun.append(number)
        return number == 0 or release.wait(patience(60))

    results = in_order(work, range(100), threads=4)
    assert next(results)
    with pytest.raises(KeyboardInterrupt):
        results.throw(KeyboardInterrupt)  # type: ignore[attr-defined]
    assert not release.is_set()
    release.set()
    for thread in set(threading.enumerate()) - before:
        thread.join()
    assert len(begun) <= 1 + 4


def test_an_interrupted_upload_goes_on_where_it_was(store: str) -> None:
    files = [(f"{i}.png", Label("cat", "train"), b"x%d" % i) for i in range(200)]
    batch = labelled("monday", files, "here")
    done = 0

    def interrupt(count: int) -> None:
        nonlocal done
        done += count
        if done >= 100:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ingest(batch, store, advance=interrupt)
    assert "monday/_READY" not in keys(store)
    assert "monday/manifest.csv" in keys(store)
    result = ingest(batch, store)
    assert result.skipped >= 100
    assert (result.skipped + result.uploaded, result.bytes) == (200, sum(len(data) for _, _, data in files))
    assert len(keys(store)) == 202


def test_few_files_are_in_memory_at_once(store: str) -> None:
    """Each file is made when it is read, and forgotten when it is stored."""
    lock, held, most = threading.Lock(), 0, 0

    class Made:
        size = None
        etag = None

        def read(self) -> bytes:
            nonlocal held, most
            with lock:
                held += 1
                most = max(most, held)
            return b"x"

    def stored(count: int) -> None:
        nonlocal held
        with lock:
            held -= count

    items = tuple(Item(f"cat/{i}.png", "cat", Made()) for i in range(2000))
    ingest(Batch("monday", items), store, advance=stored)
    assert 0 < most <= 16 * AHEAD + 16
    again = ingest(Batch("monday", items), store)
    assert (again.uploaded, again.bytes) == (0, 2000)


def test_a_file_is_read_only_where_the_sizes_agree(store: str) -> None:
    class Sized:
        etag = None

        def __init__(self, size: int) -> None:
            self.size = size
            self.reads = 0

        def read(self) -> bytes:
            self.reads += 1
            return b"x" * self.size

    ingest(Batch("monday", (Item("cat/a.png", "cat", b"xx"), Item("cat/b.png", "cat", b"xx"))), store)
    same, other = Sized(2), Sized(3)
    result = ingest(Batch("monday", (Item("cat/a.png", "cat", same), Item("cat/b.png", "cat", other))), store)
    assert (result.skipped, result.uploaded, same.reads, other.reads) == (1, 1, 1, 1)


def test_a_file_too_large_for_an_image_is_refused(tmp_path: Path, store: str) -> None:
    path = tmp_path / "monday" / "cat" / "film.mov"
    path.parent.mkdir(parents=True)
    with path.open("wb") as file:
        file.truncate(2**30)
    with pytest.raises(InputError, match=r"cat/film.mov has 1073741824 bytes, an image file may have"):
        ingest(find(tmp_path / "monday"), store)


def test_a_parquet_manifest_keeps_its_metadata(tmp_path: Path, store: str) -> None:
    source = tmp_path / "lab"
    source.mkdir()
    for name in ("a", "b", "spare"):
        (source / f"{name}.png").write_bytes(name.encode())
    table = {"path": ["a.png", "b.png"], "label": [1, 2], "split": ["valid", None], "age": [41, None]}
    pq.write_table(pa.table(table), source / "manifest.parquet")
    batch = find(source)
    assert batch.ignored == {"not named in the manifest": 1}
    ingest(batch, store)
    text = storage.read(f"{store}/lab/manifest.csv")
    assert labels.read(text, "manifest.csv") == {
        "images/a.png": Label("1", "validation", None, '{"age":"41"}'),
        "images/b.png": Label("2"),
    }
    (source / "manifest.parquet").rename(source / "patients.parquet")
    assert find(source / "patients.parquet").name == "patients"
    (source / "manifest.csv").write_text("path,label\na.png,x\n")
    (source / "patients.parquet").rename(source / "manifest.parquet")
    with pytest.raises(InputError, match=r"has both manifest.csv and manifest.parquet; keep one"):
        find(source)


def test_a_batch_with_a_parquet_manifest_in_the_store_is_left_alone(store: str) -> None:
    storage.write(f"{store}/monday/manifest.parquet", b"")
    with pytest.raises(InputError, match=r"already has a manifest \(manifest.parquet\); choose another name"):
        ingest(labelled("monday", [("a.png", Label("cat"), b"a")], "here"), store)


def test_a_manifest_may_not_name_a_file_with_an_impossible_name(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text(f"path,label\n{'x' * 1000}.png,cat\n")
    with pytest.raises(InputError, match=r"m.csv, line 2: 'xxx.* does not exist"):
        find(tmp_path / "m.csv")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_may_not_be_read_is_said(tmp_path: Path, store: str) -> None:
    path = tmp_path / "monday" / "cat" / "a.png"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"a")
    path.chmod(0)
    with pytest.raises(InputError, match=r"a.png cannot be read \(Permission denied\)"):
        ingest(find(tmp_path / "monday"), store)


def test_a_path_that_no_system_can_open_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot be read \(File name too long\); check its rights"):
        find(tmp_path / ("x" * 300))
