"""A manifest's labels for some files: read row by row, in a process of its own with limits."""

import io
import tracemalloc
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nightshift import preprocess, storage
from nightshift.config import PreprocessSettings
from nightshift.data import annotations, labels
from nightshift.data.annotations import Labels
from nightshift.data.labels import Label
from nightshift.errors import InputError
from nightshift.records import Message, Part, PartList
from nightshift.records.specs import PreprocessSpec

TEXT = b"path,label,split\na.png,cat,\n./b//2.png,dog,train\nc.png,cat,val\nd.png,.bad,\n"


def test_only_the_files_asked_for_are_kept() -> None:
    found = labels.of(TEXT, "m.csv", {"a.png", "b/2.png"})
    assert found == Labels(
        {"a.png": Label("cat"), "b/2.png": Label("dog", "train")}, frozenset({"train", "validation"})
    )
    assert labels.of(TEXT.replace(b"val", b""), "m.csv", {"a.png"}).splits == {"train"}
    with pytest.raises(InputError, match=r"m.csv, line 5: label must not begin with a dot"):
        labels.of(TEXT, "m.csv", {"d.png"})


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_memory_does_not_grow_with_the_rows_of_other_files(suffix: str) -> None:
    names = [f"{number:06d}.png" for number in range(100_000)]
    table = pa.table({"path": names, "label": ["cat"] * len(names)})
    buffer = io.BytesIO()
    if suffix == "parquet":
        pq.write_table(table, buffer)
        data = buffer.getvalue()
    else:
        data = b"path,label\n" + b"".join(f"{name},cat\n".encode() for name in names)
    tracemalloc.start()
    try:
        found = labels.of(data, f"m.{suffix}", {names[-1]})
        assert tracemalloc.get_traced_memory()[1] < len(data) + 6 * 2**20
    finally:
        tracemalloc.stop()
    assert set(found.by_path) == {names[-1]}


def test_rows_without_end_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labels, "MOST_ROWS", 3)
    with pytest.raises(InputError, match=r"m\.csv has more than 3 rows; cut it into several batches"):
        labels.of(TEXT, "m.csv", set())
    wide = ",".join(["path", "label", *(f"c{number}" for number in range(1000))])
    with pytest.raises(InputError, match="it has 1002 columns, at most 1000 are read"):
        labels.of(f"{wide}\n".encode(), "m.csv", set())


def test_a_parquet_file_whose_texts_are_none_is_refused_in_words() -> None:
    bytes_as_text = pa.array([b"\xfe\xfe"], pa.binary()).view(pa.string())
    buffer = io.BytesIO()
    pq.write_table(pa.table({"path": bytes_as_text, "label": ["cat"]}), buffer)
    with pytest.raises(InputError, match="is not a readable Parquet file"):
        labels.of(buffer.getvalue(), "m.parquet", set())


def test_what_is_wrong_with_a_manifest_comes_back_from_its_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = f"file://{tmp_path}/manifest.csv"
    storage.write(where, TEXT)
    assert annotations.annotations(where, frozenset({"a.png"})).by_path == {"a.png": Label("cat")}
    with pytest.raises(InputError, match=r"line 5: label must not begin with a dot, got '.bad'"):
        annotations.annotations(where, frozenset({"d.png"}))
    with pytest.raises(storage.MissingError, match="does not exist"):
        annotations.annotations(where + "x", frozenset())


def test_a_manifest_that_kills_its_reader_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    where = f"file://{tmp_path}/manifest.csv"
    storage.write(where, TEXT + b"x" * 200 * 2**20)
    monkeypatch.setattr(annotations, "READ_MEGABYTES", 64)
    with pytest.raises(InputError, match=r"could not be read \(too-much-memory\) in 600 s and 64"):
        annotations.annotations(where, frozenset({"a.png"}))


def test_a_message_reads_a_manifest_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIGHTSHIFT_STORE", f"file://{tmp_path}")
    source = f"file://{tmp_path}/incoming"
    storage.write(f"{source}/b1/manifest.csv", b"path,label\n1.png,a\n2.png,b\n3.png,c\n")
    parts = tuple(
        Part(batch="b1", keys=(f"{number}.png",), manifest="manifest.csv", digest=str(number) * 64)
        for number in (1, 2, 3)
    )
    asked = []

    def read(where: str, keys: frozenset[str]) -> Labels:
        asked.append((where, keys))
        return annotations.annotations(where, keys)

    monkeypatch.setattr(preprocess, "annotations", read)
    uri = storage.write_record(f"file://{tmp_path}/p.json", PartList(batches={}, parts=parts)).uri
    message = Message(parts_uri=uri, parts=3, images=3)
    spec = PreprocessSpec(message=message, source=source, settings=PreprocessSettings())
    done = preprocess.preprocess(spec)
    assert done.refused == 3  # the images themselves are gone
    assert asked == [(f"{source}/b1/manifest.csv", frozenset({"1.png", "2.png", "3.png"}))]
