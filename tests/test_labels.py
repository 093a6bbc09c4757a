"""Labels from manifests: both formats say the same, and every mistake is said with its place."""

import base64
import csv
import io
import json
import zlib
from datetime import date
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nightshift.data import labels
from nightshift.data.labels import Label, check_name
from nightshift.errors import InputError


def parquet(**columns: list[Any]) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer)
    return buffer.getvalue()


def test_csv_and_parquet_of_the_same_rows_are_the_same_labels() -> None:
    text = (
        "\ufeffpath,label,split,group,age,site,day\na.png,3,val,p1,41,,2026-11-22\nx/b.png,cat,,,1.5,Köln,\n"
    )
    same = parquet(
        path=["a.png", "x/b.png"],
        label=["3", "cat"],
        split=["val", None],
        group=["p1", ""],
        age=["41", "1.5"],
        site=[None, "Köln"],
        day=[date(2026, 11, 22), None],
    )
    expected = {
        "a.png": Label("3", "validation", "p1", '{"age":"41","day":"2026-11-22"}'),
        "x/b.png": Label("cat", None, None, '{"age":"1.5","site":"Köln"}'),
    }
    assert labels.read(text.encode(), "m.csv") == expected
    assert labels.read(same, "m.parquet") == expected


PLAIN = "path,label,split,group,Größe\na.png,cat,val,p1,3\nx/ü.png,dog,,,\n"


@pytest.mark.parametrize(
    "data",
    [
        PLAIN.encode(),
        PLAIN.encode("utf-8-sig"),
        PLAIN.encode("utf-16"),
        b"\xfe\xff" + PLAIN.encode("utf-16-be"),
        PLAIN.replace("\n", "\r\n").encode(),
        PLAIN.replace(",", " , ").encode(),
        PLAIN.replace(",", ";").encode("utf-8-sig"),
        PLAIN.replace(",", "\t").encode("utf-16"),
        PLAIN.replace("\n", ",,\n").encode(),
        PLAIN.replace("\n", "\n,,,,\n\n  , ,,,\n").encode(),
        '"path","label","split","group","Größe"\n"a.png","cat","val","p1","3"\n"x/ü.png","dog","","",""\n'.encode(),
        (PLAIN + ",,,,\n" * 5).encode(),
    ],
)
def test_a_csv_is_read_however_a_spreadsheet_writes_it(data: bytes) -> None:
    assert labels.read(data, "m.csv") == {
        "a.png": Label("cat", "validation", "p1", '{"Größe":"3"}'),
        "x/ü.png": Label("dog"),
    }


def test_the_line_is_that_of_the_file_also_behind_empty_rows() -> None:
    with pytest.raises(InputError, match=r"m.csv, line 4: label must not be empty"):
        labels.read(b"path,label\n,\n\na.png,\n", "m.csv")


def test_empty_rows_of_a_table_are_passed_over_too() -> None:
    data = parquet(path=["a", None, "b"], label=["x", None, ""])
    with pytest.raises(InputError, match=r"m.parquet, row 3: label must not be empty"):
        labels.read(data, "m.parquet")


def test_a_code_page_is_refused_with_what_to_do() -> None:
    with pytest.raises(InputError, match=r"m.csv is not a readable CSV file in UTF-8 .*; save it as one"):
        labels.read("path,label\nü.png,cat\n".encode("cp1252"), "m.csv")


def test_without_further_columns_there_is_no_extra() -> None:
    assert labels.read(b"path,label,note\na.png,cat,\n", "m.csv") == {"a.png": Label("cat")}
    assert labels.read(b"path,label\na.png,cat\n", "m.csv")["a.png"].extra == ""


def test_extra_is_canonical_whatever_the_order_of_the_columns() -> None:
    one = labels.read(b"path,label,b,a\nx.png,cat,1,2\n", "m.csv")
    other = labels.read(b"a,path,b,label\n2,x.png,1,cat\n", "m.csv")
    assert one == other
    assert one["x.png"].extra == '{"a":"2","b":"1"}'


def test_whole_numbers_truth_values_and_absent_numbers_of_a_table() -> None:
    data = parquet(path=["a", "b"], label=[7, 8], x=[1.5, float("nan")], flag=[True, False], n=[None, 2])
    assert labels.read(data, "m.parquet") == {
        "a": Label("7", extra='{"flag":"true","x":"1.5"}'),
        "b": Label("8", extra='{"flag":"false","n":"2"}'),
    }


@pytest.mark.parametrize(
    ("given", "name"),
    [
        *(("1.0", "1"), ("101.00", "101"), ("-3.0", "-3"), ("001", "001"), ("1", "1"), ("1.5", "1.5")),
        *(("v1.0", "v1.0"), ("cafe\u0301", "caf\u00e9"), ("caf\u00e9", "caf\u00e9"), ("Cat", "Cat")),
    ],
)
def test_labels_and_groups_are_spelled_alike_whoever_wrote_them(given: str, name: str) -> None:
    (label,) = labels.read(f"path,label,group\na,{given},{given}\n".encode(), "m.csv").values()
    assert label == Label(name, None, name)
    (label,) = labels.read(parquet(path=["a"], label=[given], group=[given]), "m.parquet").values()
    assert label == Label(name, None, name)


def test_whole_numbers_that_pandas_made_floats_are_whole_numbers() -> None:
    (first, second) = labels.read(
        parquet(path=["a", "b"], label=[7.0, 8.0], group=[101.0, None]), "m.parquet"
    ).values()
    assert (first, second) == (Label("7", None, "101"), Label("8"))


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (("cat", "dog", "1", "10", "0", "00x"), None),
        (("Cat", "cat"), ("Cat", "cat")),
        (("\u00c9t\u00e9", "e\u0301te\u0301"), ("e\u0301te\u0301", "\u00c9t\u00e9")),
        (("1", "2", "001"), ("001", "1")),
        (("0", "000"), ("0", "000")),
        (("STRASSE", "straße"), ("STRASSE", "straße")),
    ],
)
def test_names_that_look_alike(names: tuple[str, ...], found: tuple[str, str] | None) -> None:
    assert labels.look_alike(names) == found


def test_paths_are_composed_whoever_wrote_them() -> None:
    assert list(labels.read("path,label\ncafe\u0301/a.png,x\n".encode(), "m.csv")) == ["caf\u00e9/a.png"]


def test_what_is_written_is_read_back_the_same() -> None:
    given = {
        "a.png": Label("cat", "test", "g,1", json.dumps({"quote": 'say "x"'}, separators=(",", ":"))),
        "x/ü b.png": Label("dog", None, None, '{"lines":"one\\ntwo"}'),
        "c.png": Label("dog"),
        "=d.png": Label("@home", "train", "-x", '{"=1+1":"+2+2","n":"-1"}'),
        "'=e.png": Label("'x"),
    }
    written = labels.write(list(given.items())).decode()
    cells = [cell for row in csv.reader(io.StringIO(written)) for cell in row]
    assert [cell for cell in cells if cell.startswith(("=", "+", "-", "@"))] == ["-1"]
    assert labels.read(labels.write(list(given.items())), "manifest.csv") == given


def test_what_needs_no_metadata_is_written_without() -> None:
    assert labels.write([("a.png", Label("cat"))]) == b"path,label,split,group\na.png,cat,,\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"path,label,\na.png,cat,x\n", "m.csv, line 2: it must have 2 cells"),
        (b"path,,label\na.png,,cat\n", "m.csv, line 1: columns must be path,label"),
        (b"Path,Label\na.png,cat\n", "got 'Path,Label'"),
        (b"path,label\n", "m.csv has no rows"),
        (b"path,label\na\\b.png,cat\n", r"line 2: path must be relative .* with slashes, got 'a\\\\b.png'"),
        (b"path,label\n\xff.png,cat\n", "m.csv is not a readable CSV file in UTF-8"),
        (b"path,label\na.png," + b"x" * 200_000 + b"\n", "field larger than field limit"),
        (b"path,label\na.png,cat\x07\n", "line 2: label must not contain control"),
        (b"path,label,split\na.png,cat,fold1\n", "one of train, .*, dev, testing, got 'fold1'"),
        (b"path,label\na.png,cat\na.png,cat\n", "line 3: path 'a.png' stands already in line 2"),
    ],
)
def test_a_mistake_in_a_csv_is_said_with_its_line(text: bytes, words: str) -> None:
    with pytest.raises(InputError, match=words):
        labels.read(text, "m.csv")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"path,label\na.png,cat\n", "m.parquet is not a readable Parquet file"),
        (parquet(path=["a"]), "m.parquet: columns must be path,label"),
        (parquet(path=["a", "b"], label=["cat", ""]), "m.parquet, row 2: label must not be empty"),
        (parquet(path=["a"], label=["cat"], x=[[1]]), "row 1: column 'x' holds a list; only text"),
        (parquet(path=["a"], label=["cat"], x=[b"1"]), "row 1: column 'x' holds a bytes; only text"),
        (parquet(path=["a", "a"], label=["x", "y"]), "row 2: path 'a' stands already in row 1"),
    ],
)
def test_a_mistake_in_a_table_is_said_with_its_row(data: bytes, words: str) -> None:
    with pytest.raises(InputError, match=words):
        labels.read(data, "m.parquet")


@pytest.mark.parametrize("name", ["manifest.csv", "manifest.parquet", "_READY"])
def test_names_that_mean_something_in_a_batch_are_refused(name: str) -> None:
    with pytest.raises(InputError, match="must not be _READY or"):
        check_name("class folder", name)


def test_a_parquet_manifest_whose_columns_are_not_those_of_its_schema_is_refused():
    """A group without fields, which pyarrow counts among the columns and then gives no values of."""
    packed = (
        b"c-obd&2G~`5XWcNjulloq!D9zB_DEVRz;$rtrQL@QngMKS`pON5(-9KoYZnFh1#Sk;URbgjywP-PCQDFJOoE(*ZH7LE{xWm@"
        b"qcE1yB;U!Dm*|NcW|dq4r%};0Qk_%Z&Do$b%201tUaTA6&-"
        b"Z^7qDA039l4ux4li3oGzO&i&L48{(@$aJc_5<U1pm|7RjDPC2N!_R{O{erLaFokNdsyBD0EIzPmwP(k;d~pe_0>@SNMxRq`="
        b"L2e8uMo}I_js|NIaDl<Z991oN6Txo0}_pCTgz_o=h+7f)Mh!!|iQFJ0D+;5DQJdx#1Qxf{*fV4l*3vg(=PlO{R*o6NVSL|ze"
        b"Ul}cV&*XRJw;oPwomP23+nUq#nGNd~qb2XT{K5Zka%($1rG2=bru*A+ZCNG<!uKjF49^BHX{z%tW+`nKs<78e%~X)8o>Hmmq"
        b"(%z@rQYbEqtvMpR$djUU|&aPOH?O&PG(BJ7;&_!H+HOV(cp4y^i=aA?F&nfqeXuZ8YOzv-_y6@tKRkd!A#>$b$wT<xBA?~In"
        b"nQ74zq0P_PPdQ^zI6EVZ`WNm@S@zc^<ra9#1~qCDXl8p6|tzNj9s0PA0e4*-ibh)!c6$h&KK1iUmJu+UN9N{R_Ubspb"
    )
    data = zlib.decompress(base64.b85decode(packed))
    with pytest.raises(InputError, match=r"m\.parquet: its columns are not those of its own schema"):
        list(labels.rows(data, "m.parquet"))
