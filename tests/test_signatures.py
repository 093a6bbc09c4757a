"""Signed models in a real MLflow server: what loads, and that nothing falls back."""

import base64
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import httpx
import psutil
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from small_models import onnx_model

from nightshift.config import PreprocessSettings
from nightshift.errors import InputError
from nightshift.records.specs import PromoteSpec
from nightshift.security import signing
from nightshift.tracking import registry, runs, signatures
from nightshift.workflows.promote.audit import audit
from nightshift.workflows.promote.promote import promote

MODEL, OTHER = onnx_model(1), onnx_model(2)
PATH = f"signature/{hashlib.sha256(MODEL).hexdigest()}.json"


@pytest.fixture
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Makes a pair, configures it and returns its fingerprint."""
    monkeypatch.delenv(signing.PASSPHRASE_FILE, raising=False)

    def use(name: str) -> str:
        fingerprint = signing.ensure_keys(tmp_path / name)
        monkeypatch.setenv(signing.SIGNING_KEY, str(tmp_path / name / "signing.key"))
        monkeypatch.setenv(signing.PUBLIC_KEYS, str(tmp_path / name / "signing.pub"))
        return fingerprint

    return use


@pytest.fixture
def unconfigured(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    def forget() -> None:
        for name in (signing.SIGNING_KEY, signing.PUBLIC_KEYS):
            monkeypatch.delenv(name, raising=False)

    return forget


def register(name: str, model: bytes = MODEL, night: str = "n1") -> str:
    """The address of a version registered as a night does it."""
    run_id = runs.open_run(name, night, params={})
    tags = {
        registry.PREPROCESS: PreprocessSettings(image_size=8).model_dump_json(),
    }
    version = registry.register_version(run_id, name, model, classes=2, shape=(4, 4, 3), tags=tags)
    registry.set_alias(name, registry.CHAMPION, version)
    return f"models:/{name}/{version}"


def run_of(uri: str) -> str:
    return str(runs.client().get_model_version(*uri.removeprefix("models:/").split("/")).run_id)


def artifacts(run_id: str) -> str:
    """Where the server takes the artifacts of a run."""
    folder = runs.client().get_run(run_id).info.artifact_uri.removeprefix("mlflow-artifacts:/")
    return f"{os.environ['MLFLOW_TRACKING_URI']}/api/2.0/mlflow-artifacts/artifacts/{folder}"


def send(url: str, data: bytes | None = None) -> None:
    """Replace an artifact, or remove it."""
    httpx.request("DELETE" if data is None else "PUT", url, content=data).raise_for_status()


def refused(uri: str, words: str) -> None:
    """Neither the address, nor the alias, nor the night's look at its champion gives the model out."""
    name = uri.removeprefix("models:/").split("/")[0]
    for address in (uri, f"models:/{name}@champion"):
        with pytest.raises(InputError, match=words):
            registry.fetch_model(address)
    with pytest.raises(InputError, match=words):
        registry.champions(name)


def test_a_signed_version_loads_and_its_tag_tells_the_fingerprint_only(mlflow_server, keys):
    fingerprint = keys("mine")
    uri = register("signed")
    model, tags = registry.fetch_model(uri)
    assert model == MODEL
    assert tags[signatures.SIGNED_BY] == fingerprint
    assert [value for value in tags.values() if "BEGIN" in value or "dsse" in value] == []
    bundle = runs.stored_artifact(run_of(uri), PATH)
    assert bundle is not None
    assert signing.verify(MODEL, bundle, signing.trusted_keys()).fingerprint == fingerprint


def test_without_keys_only_the_digest_is_asked_for(mlflow_server, unconfigured):
    unconfigured()
    uri = register("plain")
    model, tags = registry.fetch_model(uri)
    assert model == MODEL
    assert signatures.SIGNED_BY not in tags
    assert runs.stored_artifact(run_of(uri), PATH) is None


def test_an_unsigned_version_is_refused_until_its_night_registers_it_again(mlflow_server, keys, unconfigured):
    unconfigured()
    uri = register("older")
    fingerprint = keys("mine")
    refused(uri, "is not signed, and NIGHTSHIFT_PUBLIC_KEYS asks for a signature: do not use it")
    assert register("older") == uri
    model, tags = registry.fetch_model(uri)
    assert (model, tags[signatures.SIGNED_BY]) == (MODEL, fingerprint)


def test_a_removed_signature_is_refused_whatever_the_tag_says(mlflow_server, keys):
    fingerprint = keys("mine")
    uri = register("removed")
    send(f"{artifacts(run_of(uri))}/{PATH}")
    registry.set_version_tag("removed", uri[-1], signatures.SIGNED_BY, fingerprint)
    refused(uri, "is not signed")


def test_a_signature_by_another_key_is_refused(mlflow_server, keys):
    keys("stranger")
    uri = register("foreign")
    fingerprint = keys("mine")
    refused(uri, f"cannot be trusted, do not use it: .* by another key than the trusted {fingerprint}")


def test_a_signature_for_other_bytes_is_refused(mlflow_server, keys):
    keys("mine")
    uri, other = register("mixed"), register("mixed", OTHER, "n2")
    bundle = runs.stored_artifact(run_of(other), f"signature/{hashlib.sha256(OTHER).hexdigest()}.json")
    assert bundle is not None
    runs.log_artifact(run_of(uri), PATH, bundle)
    with pytest.raises(InputError, match="its signature is for other bytes"):
        registry.fetch_model(uri)


def test_a_damaged_signature_is_refused(mlflow_server, keys):
    keys("mine")
    uri = register("damaged")
    runs.log_artifact(run_of(uri), PATH, b"{}")
    refused(uri, "its signature is malformed")


def test_a_tampered_model_is_refused_also_when_the_registry_was_changed_to_agree(mlflow_server, keys):
    keys("mine")
    uri = register("tampered")
    version = runs.client().get_model_version("tampered", uri[-1])
    model_id = version.source.removeprefix("models:/")
    stored = artifacts(run_of(uri)).split("/artifacts/")[1].split("/")[0]
    base = f"{os.environ['MLFLOW_TRACKING_URI']}/api/2.0/mlflow-artifacts/artifacts"
    send(f"{base}/{stored}/models/{model_id}/artifacts/model.onnx", OTHER)
    refused(uri, "has SHA-256 .*, its tag says .*: do not use it")
    registry.set_version_tag("tampered", uri[-1], registry.SHA256, hashlib.sha256(OTHER).hexdigest())
    refused(uri, "is not signed")


def test_a_missing_public_key_is_no_reason_to_ask_for_less(mlflow_server, keys, tmp_path):
    keys("mine")
    uri = register("keyless")
    (tmp_path / "mine" / "signing.pub").unlink()
    refused(uri, r"signing\.pub .*cannot be read .*nothing is trusted without it")


def test_nothing_is_registered_with_half_a_configuration(mlflow_server, keys, monkeypatch, tmp_path):
    keys("mine")
    for name, value, words in (
        (signing.PUBLIC_KEYS, "", "add its public key there"),
        (signing.SIGNING_KEY, str(tmp_path / "nowhere"), "cannot be read"),
        (signing.SIGNING_KEY, "", "NIGHTSHIFT_SIGNING_KEY is not set"),
    ):
        keys("mine")
        monkeypatch.setenv(name, value)
        with pytest.raises(InputError, match=words):
            register("half")
    assert runs.client().search_registered_models("name = 'half'") == []


def test_the_private_key_shows_nowhere(mlflow_server, keys, tmp_path, monkeypatch, capfd):
    keys("mine")
    (tmp_path / "pass").write_text("open sesame\n")
    signing.make_keys(tmp_path / "locked", b"open sesame")
    monkeypatch.setenv(signing.SIGNING_KEY, str(tmp_path / "locked" / "signing.key"))
    monkeypatch.setenv(signing.PUBLIC_KEYS, str(tmp_path / "locked" / "signing.pub"))
    monkeypatch.setenv(signing.PASSPHRASE_FILE, str(tmp_path / "pass"))
    key = serialization.load_pem_private_key(
        (tmp_path / "locked" / "signing.key").read_bytes(), b"open sesame"
    )
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    number = key.private_numbers().private_value.to_bytes(32, "big")
    body = (tmp_path / "locked" / "signing.key").read_text().split("\n")[1]
    uri = register("quiet")
    run = runs.client().get_run(run_of(uri))
    bundle = runs.stored_artifact(run.info.run_id, PATH)
    shown = (
        *("".join(capfd.readouterr()), str(run.to_dictionary()), str(registry.fetch_model(uri)[1])),
        *(" ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"])),
        (bundle or b"").decode(),
        json.dumps(dict(os.environ)),
    )
    for secret in ("open sesame", body, number.hex(), base64.b64encode(number).decode()):
        assert [text for text in shown if secret in text] == []


def judged(name: str, night: str, verdict: str) -> str:
    """Register a version that one gate judged."""
    run_id = runs.open_run(name, night, params={})
    tags = {f"{registry.GATE}size": f"{verdict}: so it is", registry.DATA: night}
    return registry.register_version(run_id, name, MODEL, classes=2, shape=(4, 4, 3), tags=tags)


def test_gates_that_were_not_signed_are_adopted_by_nobody(ml_store, mlflow_server, keys):
    """Who may write to MLflow gives a signed file that was refused the tags of one that passed."""
    keys("mine")
    good, bad = judged("forged", "n1", "pass"), judged("forged", "n2", "FAIL")
    assert promoted("forged", good) == good
    registry.set_version_tag("forged", bad, f"{registry.GATE}size", "pass: so it is")
    with pytest.raises(
        InputError, match=r"nightshift\.gate\.size of models:/forged/2 are not as they were sign"
    ):
        promoted("forged", bad)
    registry.set_alias("forged", registry.CHAMPION, bad)
    assert "is disputed: nightshift.gate.size of models:/forged/2" in audit("forged").reason
    assert judged("forged", "n2", "FAIL") == bad  # its night registers it again: as it was judged
    assert registry.version_tags("forged", bad)[f"{registry.GATE}size"] == "FAIL: so it is"


def test_a_signed_file_under_another_name_or_run_brings_no_gates(ml_store, mlflow_server, keys):
    keys("honest")
    good = judged("honest", "n1", "pass")
    tags = registry.version_tags("honest", good)
    original = runs.client().get_model_version("honest", good)
    runs.client().create_registered_model("elsewhere")
    other_night = runs.open_run("honest", "n9", params={})
    for name, run_id in (("elsewhere", original.run_id), ("honest", other_night)):
        model_id = original.source.removeprefix("models:/")
        made = runs.client().create_model_version(name, original.source, run_id, tags, model_id=model_id)
        with pytest.raises(InputError, match=r"signed for the model honest and another run|is not signed"):
            promoted(name, made.version)
    registry.set_version_tag("honest", good, f"{registry.GATE}more", "pass: of course")
    with pytest.raises(InputError, match=rf"gate\.more of models:/honest/{good} are not as they were signed"):
        promoted("honest", good)


def promoted(name: str, version: str) -> str:
    asked = {"action": "move", "pipeline": name, "version": version, "asks": "never"}
    return promote(PromoteSpec.model_validate(asked)).version
