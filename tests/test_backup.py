"""A stack is lost and comes back: databases, objects, secrets and keys, with real servers."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from promotions import act, challenger
from typer.testing import CliRunner

from nightshift.cli import app
from nightshift.inference.runtime import Session
from nightshift.security import encryption, signing
from nightshift.stack import backup, environment, folder_version, lifecycle, prepare
from nightshift.stack.backup import Manifest
from nightshift.tracking import ledger, registry

KEY = "5a" * 32
IMAGES = np.random.default_rng(0).integers(0, 255, (8, 4, 4, 3), np.uint8)


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Short, for PostgreSQL's user; the stack is in `stack`, backups go to `kept`."""
    made = Path(tempfile.mkdtemp(prefix="ns-", dir="/tmp"))
    made.chmod(0o711)
    (made / "dags").mkdir()
    for name in [name for name in os.environ if name.startswith(("AWS_", "MLFLOW_", "NIGHTSHIFT_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NIGHTSHIFT_DAGS", str(made / "dags"))
    monkeypatch.setenv("NIGHTSHIFT_HOME", str(made / "stack"))
    monkeypatch.setenv(encryption.EXPORT_KEY, KEY)
    yield made
    lifecycle.down(made / "stack")
    shutil.rmtree(made)


@pytest.fixture
def small(folder: Path) -> Path:
    """A stack that was never started: secrets, keys, and what is in its bucket."""
    home = prepare.make_home(folder / "stack")
    folder_version.claim(home)
    prepare.make_site(home, running=False, random_ports=True)
    for key in ("ledger/p/1.json", "incoming/p/b/cat/a.png", "shards/d/part.json", "candidates/c/model.onnx"):
        put(home, key, key.encode())
    return home


def put(home: Path, key: str, data: bytes) -> None:
    path = home / "s3" / environment.BUCKET / key
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def run(*arguments: str, code: int = 0) -> str:
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == code, done.output
    return done.stdout if code == 0 else done.output


def keep(place: Path, *more: str) -> Path:
    """Back up to a folder of this machine, and where that is."""
    uri = json.loads(run("backup", str(place), "--json", *more))["uri"]
    return Path(uri.removeprefix("file://"))


def manifest_of(place: Path) -> Manifest:
    return Manifest.model_validate_json((place / backup.MANIFEST).read_text())


def test_a_stack_that_is_lost_comes_back_with_its_champion(folder, monkeypatch):
    home, roles = folder / "stack", ("postgres", "s3", "mlflow")
    lifecycle.up(home, only=roles, random_ports=True)
    variables = environment.client_environment(home)
    for name, value in (variables | {signing.SIGNING_KEY: str(home / "keys" / "signing.key")}).items():
        monkeypatch.setenv(name, value)
    first = challenger("digits", 1)
    act("move", "digits", first)
    model, tags = registry.fetch_model("models:/digits@champion")
    said, history = Session(model).predict(IMAGES), ledger.history("digits")
    monkeypatch.delenv("AWS_ENDPOINT_URL_S3")  # the shell of an operator, who has another S3

    kept = keep(folder / "kept")
    names = {path.name for path in kept.iterdir()}
    assert names == {"airflow.dump", "mlflow.dump", "private.sealed", "objects", "manifest.json"}
    assert lifecycle.status(home)[0].healthy  # what ran goes on
    lifecycle.down(home)
    shutil.rmtree(home)

    told = run("restore", str(kept))
    assert "database mlflow is restored" in told
    assert lifecycle.status(home)[0].health == "not running"
    assert environment.client_environment(home) == variables
    lifecycle.up(home, only=roles)
    for name, value in environment.client_environment(home).items():
        monkeypatch.setenv(name, value)
    again, tags_again = registry.fetch_model("models:/digits@champion")
    assert (again, tags_again) == (model, tags)
    assert [part.tobytes() for part in Session(again).predict(IMAGES)] == [part.tobytes() for part in said]
    assert ledger.history("digits") == history
    # It goes on as if nothing had happened: the restored key signs, and is trusted.
    monkeypatch.setenv(signing.SIGNING_KEY, str(home / "keys" / "signing.key"))
    act("move", "digits", challenger("digits", 2))
    assert registry.alias_version("digits", "champion") == "2"


def test_what_nights_make_again_is_left_out_unless_all_is_asked_for(small, folder):
    put(small, "backups/old/manifest.json", b"{}")
    put(small, "incoming/p/b/cat/b.png.0a1b2c3d.partial", b"half")
    kept = manifest_of(keep(folder / "kept"))
    assert {each.name for each in kept.objects} == {"incoming/p/b/cat/a.png", "ledger/p/1.json"}
    everything = manifest_of(keep(folder / "all", "--all"))
    assert {each.name.split("/")[0] for each in everything.objects} == {
        *("candidates", "incoming", "ledger", "shards")
    }


def test_no_decision_is_kept_that_the_dump_of_mlflow_may_lack(small, folder, monkeypatch):
    """A night that registers and promotes a version while the databases are dumped."""

    def meanwhile(*given):
        put(small, "ledger/p/2.json", b"version 2 is champion")
        put(small, "incoming/p/c/cat/a.png", b"later")
        return iter(())

    monkeypatch.setattr(backup, "_databases", meanwhile)
    names = [each.name for each in manifest_of(keep(folder / "kept")).objects]
    assert names == ["ledger/p/1.json", "incoming/p/b/cat/a.png", "incoming/p/c/cat/a.png"]


def test_every_file_is_in_the_manifest_with_its_digest_and_equal_objects_are_kept_once(small, folder):
    put(small, "incoming/p/b/dog/a.png", b"incoming/p/b/cat/a.png")
    place = keep(folder / "kept")
    manifest = manifest_of(place)
    found = {each.sha256: each.size for each in (*manifest.files, *manifest.objects)}
    there = [path for path in place.rglob("*") if path.is_file() and path.name != backup.MANIFEST]
    digests = {hashlib.sha256(path.read_bytes()).hexdigest(): path.stat().st_size for path in there}
    assert digests == found
    assert len(manifest.objects) == 3
    assert len(there) == 3


def test_no_secret_can_be_read_without_the_key(small, folder):
    kept = keep(folder / "kept")
    hidden = [value.encode() for value in json.loads((small / "secrets.json").read_text()).values()]
    hidden.append((small / "keys" / "signing.key").read_bytes().splitlines()[1])
    content = b"".join(path.read_bytes() for path in kept.rglob("*") if path.is_file())
    assert [value for value in hidden if value in content] == []


def test_without_a_key_nothing_is_kept(small, folder, monkeypatch):
    monkeypatch.delenv(encryption.EXPORT_KEY)
    assert "no key was given: name its file with --key-file" in run("backup", str(folder / "kept"), code=2)
    assert not (folder / "kept").exists()


@pytest.mark.parametrize("given", ["inside", "own s3", "nothing", "ftp"])
def test_a_place_that_would_be_lost_too_or_is_none_is_refused(small, monkeypatch, given):
    arguments = {
        "inside": [str(small / "kept")],
        "own s3": ["s3://kept"],
        "nothing": [],
        "ftp": ["ftp://h/x"],
    }
    sentence = {
        "inside": "lies in the stack's own folder and would be lost with it",
        "own s3": "lies in the S3 server of this stack and would be lost with it",
        "nothing": "no place for the backup was given",
        "ftp": "ftp://h/x is no place for a backup",
    }
    if given == "own s3":
        variables = environment.client_environment(small)
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", variables["AWS_ENDPOINT_URL_S3"])
    assert sentence[given] in run("backup", *arguments[given], code=2)


def test_what_is_not_the_stacks_own_is_said(small, folder):
    shutil.rmtree(small / "s3" / environment.BUCKET)
    (small / "s3" / environment.BUCKET).mkdir()
    done = CliRunner().invoke(app, ["backup", str(folder / "kept")])
    assert done.exit_code == 0, done.output
    assert "no database is in this backup: use its server's own" in done.stderr
    assert "objects in an S3 server of your own are not in this backup" in done.stderr


def test_a_folder_without_a_stack_is_a_sentence(folder):
    assert "there is no stack in" in run("backup", str(folder / "kept"), code=2)
