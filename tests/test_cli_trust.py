"""`nightshift keys`, `export`, `unseal` and `sbom`, models from a real MLflow server."""

import hashlib
import json
import os
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from small_models import onnx_model
from typer.testing import CliRunner, Result

from nightshift.cli import app
from nightshift.security import encryption, signing
from nightshift.tracking import registry, runs

MODEL = onnx_model(1)
KEY = bytes(range(32))


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No stack, no keys, no store."""
    for name in (signing.SIGNING_KEY, signing.PUBLIC_KEYS, signing.PASSPHRASE_FILE, encryption.EXPORT_KEY):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NIGHTSHIFT_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture
def registered(
    mlflow_server: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], str]:
    """Registers a signed version and returns its address."""
    signing.make_keys(tmp_path / "keys")
    monkeypatch.setenv(signing.SIGNING_KEY, str(tmp_path / "keys" / "signing.key"))
    monkeypatch.setenv(signing.PUBLIC_KEYS, str(tmp_path / "keys" / "signing.pub"))

    def register(name: str) -> str:
        run_id = runs.open_run(name, "n1", params={})
        version = registry.register_version(run_id, name, MODEL, classes=2, shape=(4, 4, 3), tags={})
        return f"models:/{name}/{version}"

    return register


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def refused(result: Result, words: str) -> None:
    assert result.exit_code == 2, result.output
    said = result.stderr.splitlines()[-1]  # before it, MLflow shows how downloads get on
    assert said.startswith("nightshift: ")
    assert words in said


def test_keys_makes_a_pair_and_says_how_to_use_it(tmp_path, monkeypatch):
    folder = tmp_path / "my keys"
    made = run("keys", "--folder", folder)
    assert made.exit_code == 0, made.output
    exports = "\n".join(line for line in made.stdout.splitlines() if line.startswith("export "))
    told = subprocess.run(
        ["/bin/sh", "-c", f'{exports}; echo "$NIGHTSHIFT_SIGNING_KEY|$NIGHTSHIFT_PUBLIC_KEYS"'],
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": os.environ["PATH"]},
    ).stdout.strip()
    private, public = told.split("|")
    assert (private, public) == (str(folder / "signing.key"), str(folder / "signing.pub"))
    monkeypatch.setenv(signing.SIGNING_KEY, private)
    monkeypatch.setenv(signing.PUBLIC_KEYS, public)
    signer = signing.signer()
    assert signer is not None
    assert f"fingerprint  {signer.fingerprint}" in made.stdout
    assert Path(private).read_text().splitlines()[1] not in made.output
    refused(run("keys", "--folder", folder), "exists and keys are never overwritten; name another folder")
    # A second key is trusted beside the first.
    second = run("keys", "--folder", tmp_path / "second")
    assert f"export NIGHTSHIFT_PUBLIC_KEYS='{public}:{tmp_path}/second/signing.pub'" in second.stdout


def test_keys_can_be_locked(tmp_path, monkeypatch):
    (tmp_path / "pass").write_text("open sesame\n")
    made = run("keys", "--folder", tmp_path / "keys", "--passphrase-file", tmp_path / "pass")
    assert made.exit_code == 0, made.output
    assert "sesame" not in made.output
    assert f"export {signing.PASSPHRASE_FILE}={tmp_path}/pass" in made.stdout
    assert "ENCRYPTED" in (tmp_path / "keys" / "signing.key").read_text()
    refused(run("keys", "--folder", tmp_path / "x", "--passphrase-file", tmp_path / "none"), "cannot be read")


def test_an_export_key_is_private_and_never_overwritten(tmp_path):
    made = run("keys", "--export-key", tmp_path / "key")
    assert made.exit_code == 0, made.output
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600
    assert encryption.read_key(tmp_path / "key").hex() not in made.output
    assert not (tmp_path / "signing.key").exists()
    refused(run("keys", "--export-key", tmp_path / "key"), "exists and keys are never overwritten")
    refused(run("keys", "--export-key", tmp_path / "no" / "key"), "cannot be written")


def test_a_verified_model_is_carried_out(registered, tmp_path):
    uri = registered("carried")
    done = run("export", uri, tmp_path / "model.onnx")
    assert done.exit_code == 0, done.output
    assert (tmp_path / "model.onnx").read_bytes() == MODEL
    assert f"version 1, SHA-256 {hashlib.sha256(MODEL).hexdigest()}, signature checked" in done.stdout


def test_an_unsigned_model_is_not_carried_out(registered, tmp_path, monkeypatch):
    uri = registered("other")
    signing.make_keys(tmp_path / "new")
    monkeypatch.setenv(signing.PUBLIC_KEYS, str(tmp_path / "new" / "signing.pub"))
    refused(run("export", uri, tmp_path / "model.onnx"), "cannot be trusted, do not use it")
    assert not (tmp_path / "model.onnx").exists()


def test_a_sealed_model_is_opened_by_its_key_alone(registered, tmp_path, monkeypatch):
    uri = registered("sealed")
    key, sealed, out = tmp_path / "key", tmp_path / "model.sealed", tmp_path / "model.onnx"
    run("keys", "--export-key", key)
    done = run("export", uri, sealed, "--encrypt", "--key-file", key)
    assert done.exit_code == 0, done.output
    assert "signature checked, sealed" in done.stdout
    assert MODEL[:64] not in sealed.read_bytes()
    refused(run("predict", sealed, tmp_path), "is sealed; open it first by nightshift unseal")

    assert run("unseal", sealed, out, "--key-file", key).exit_code == 0
    assert out.read_bytes() == MODEL
    assert stat.S_IMODE(out.stat().st_mode) == 0o600

    out.unlink()
    monkeypatch.setenv(encryption.EXPORT_KEY, KEY.hex())
    refused(run("unseal", sealed, out), f"{sealed} is not opened: the sealed file was made with another key")
    monkeypatch.setenv(encryption.EXPORT_KEY, key.read_text())
    whole = sealed.read_bytes()
    for damaged, words in (
        (whole[:-5], "its header says"),
        (whole[:40], "within its header"),
        (whole[:-1] + bytes([whole[-1] ^ 1]), "was changed or damaged"),
        (MODEL, "no file that `nightshift export --encrypt` made"),
    ):
        sealed.write_bytes(damaged)
        refused(run("unseal", sealed, out), words)
    refused(run("unseal", tmp_path / "none", out), "cannot be read (No such file or directory)")
    assert {path.name for path in tmp_path.iterdir() if path.is_file()} == {"key", "model.sealed"}


def test_what_stood_there_stays_when_nothing_is_written(registered, tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"before")
    (tmp_path / "key").write_text(KEY.hex())
    (tmp_path / "sealed").write_bytes(encryption.seal(MODEL, KEY)[:-1])
    assert (
        run("unseal", tmp_path / "sealed", tmp_path / "model.onnx", "--key-file", tmp_path / "key").exit_code
        == 2
    )
    assert run("export", "models:/nobody/1", tmp_path / "model.onnx").exit_code == 2
    assert (tmp_path / "model.onnx").read_bytes() == b"before"
    refused(run("export", registered("folder"), tmp_path), "is a folder; name a file")


def test_a_key_and_encryption_go_together(tmp_path):
    (tmp_path / "key").write_text(KEY.hex())
    out = tmp_path / "out"
    refused(run("export", "models:/a/1", out, "--key-file", tmp_path / "key"), "--key-file is for --encrypt")
    refused(run("export", "models:/a/1", out, "--encrypt"), "no key was given: name its file with --key-file")
    (tmp_path / "key").write_text("swordfish")
    result = run("export", "models:/a/1", out, "--encrypt", "--key-file", tmp_path / "key")
    refused(result, "holds 9 characters that are not 32 bytes in hexadecimal or base64")
    assert "swordfish" not in result.output
    assert not out.exists()


def test_the_bill_of_materials_goes_to_stdout_or_a_file(tmp_path):
    shown = run("sbom")
    assert json.loads(shown.stdout)["bomFormat"] == "CycloneDX"
    assert run("sbom", tmp_path / "sbom.json").exit_code == 0
    assert json.loads((tmp_path / "sbom.json").read_text()) == json.loads(shown.stdout)
