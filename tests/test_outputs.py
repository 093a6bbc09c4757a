"""What stages made: named by its bytes, found again while it is whole, the first record stays."""

import pytest
from pydantic import BaseModel

from tasks import outputs, storage
from tasks.errors import InputError
from tasks.records import Artifact


class Made(BaseModel):
    """A record like those of the stages."""

    file: Artifact
    by: str


def files(record: Made) -> list[Artifact]:
    return [record.file]


@pytest.fixture
def folder(tmp_path) -> str:
    return f"file://{tmp_path}/checkpoints/k"


def test_a_late_twin_with_other_bytes_overwrites_nothing(folder):
    uri = f"{folder}/checkpoint.json"
    mine = Made(file=outputs.write(folder, "model.safetensors", b"mine"), by="me")
    assert outputs.claim(uri, mine, files) == mine
    late = Made(file=outputs.write(folder, "model.safetensors", b"late"), by="twin")
    assert outputs.claim(uri, late, files) == mine
    assert outputs.found(uri, Made, files) == mine
    assert storage.read_artifact(mine.file) == b"mine"


@pytest.mark.parametrize("harm", [None, b"", b"other size"])
def test_what_lost_a_file_is_not_found_and_may_be_made_again(folder, harm, capsys):
    uri = f"{folder}/checkpoint.json"
    first = Made(file=outputs.write(folder, "model.onnx", b"mine"), by="me")
    outputs.claim(uri, first, files)
    if harm is None:
        storage.delete(first.file.uri)
    else:
        storage.write(first.file.uri, harm)
    assert outputs.found(uri, Made, files) is None
    assert f"made again: {first.file.uri} is not there, or not whole" in capsys.readouterr().out
    other = Made(file=outputs.write(folder, "model.onnx", b"yours"), by="other")
    assert outputs.claim(uri, other, files) == other
    assert outputs.found(uri, Made, files) == other


def test_a_record_that_is_none_is_not_found(folder, capsys):
    uri = f"{folder}/checkpoint.json"
    assert outputs.found(uri, Made, files) is None
    storage.write(uri, b"{")
    assert outputs.found(uri, Made, files) is None
    assert "is no Made" in capsys.readouterr().out


@pytest.mark.parametrize("mark", outputs.MARKS)
def test_damaged_bytes_take_the_mark_beside_them_away(folder, mark):
    file = outputs.write(folder, "model.onnx", b"mine")
    storage.write(f"{folder}/{mark}", b"{}")
    assert outputs.read(file) == b"mine"
    assert storage.exists(f"{folder}/{mark}")
    storage.write(file.uri, b"mime")
    with pytest.raises(InputError, match="changed or damaged; the next night makes it again"):
        outputs.read(file)
    assert not storage.exists(f"{folder}/{mark}")


@pytest.mark.parametrize("mark", outputs.MARKS)
def test_the_mark_stays_where_the_store_refuses_to_answer(folder, mark, monkeypatch):
    file = outputs.write(folder, "model.onnx", b"mine")
    storage.write(f"{folder}/{mark}", b"{}")
    refusal = InputError("the store answers 403 AccessDenied")

    def refuse(_: str) -> bytes:
        raise refusal

    monkeypatch.setattr(storage, "read", refuse)
    with pytest.raises(InputError) as raised:
        outputs.read(file)
    assert raised.value is refusal
    assert storage.exists(f"{folder}/{mark}")
