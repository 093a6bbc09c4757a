"""Key pairs, signatures and what is refused, with real keys."""

import base64
import hashlib
import json
import os
import re
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from small_models import onnx_model

from nightshift.errors import InputError
from nightshift.security import signing

MODEL = onnx_model(1)
PEM, SPKI = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo


@pytest.fixture(autouse=True)
def unconfigured(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (signing.SIGNING_KEY, signing.PUBLIC_KEYS, signing.PASSPHRASE_FILE):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def configure(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def set_variables(private: Path | None, *public: Path, passphrase: Path | None = None) -> None:
        monkeypatch.setenv(signing.PUBLIC_KEYS, os.pathsep.join(map(str, public)))
        monkeypatch.setenv(signing.SIGNING_KEY, str(private or ""))
        monkeypatch.setenv(signing.PASSPHRASE_FILE, str(passphrase or ""))

    return set_variables


def pair(folder: Path, passphrase: bytes | None = None) -> tuple[Path, Path]:
    signing.make_keys(folder, passphrase)
    return folder / "signing.key", folder / "signing.pub"


def signed(model: bytes = MODEL) -> bytes:
    signer = signing.signer()
    assert signer is not None
    return signing.sign(model, signer)


def test_a_pair_is_private_and_never_overwritten(tmp_path):
    fingerprint = signing.make_keys(tmp_path / "deep" / "keys")
    private, public = (tmp_path / "deep" / "keys" / name for name in ("signing.key", "signing.pub"))
    assert re.fullmatch("[0-9a-f]{64}", fingerprint)
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert stat.S_IMODE(private.parent.stat().st_mode) == 0o700
    before = private.read_bytes(), public.read_bytes()
    with pytest.raises(InputError, match=r"signing\.key exists and keys are never overwritten"):
        signing.make_keys(private.parent)
    private.unlink()
    with pytest.raises(InputError, match=r"signing\.pub exists and keys are never overwritten"):
        signing.make_keys(private.parent)
    with pytest.raises(InputError, match="never overwritten"):
        signing.write_new(public, b"other")
    assert public.read_bytes() == before[1]
    assert [path.name for path in private.parent.iterdir()] == ["signing.pub"]


def test_a_fingerprint_is_the_digest_of_what_the_public_file_holds(tmp_path):
    fingerprint = signing.make_keys(tmp_path)
    begin, *body, end = (tmp_path / "signing.pub").read_text().split("\n")[:-1]
    assert (begin, end) == ("-----BEGIN PUBLIC KEY-----", "-----END PUBLIC KEY-----")
    assert hashlib.sha256(base64.b64decode("".join(body))).hexdigest() == fingerprint


def test_a_pair_is_made_once_and_a_lost_public_key_again(tmp_path):
    first = signing.ensure_keys(tmp_path / "keys")
    private, public = tmp_path / "keys" / "signing.key", tmp_path / "keys" / "signing.pub"
    text = public.read_bytes()
    public.unlink()
    assert signing.ensure_keys(tmp_path / "keys") == first
    assert public.read_bytes() == text
    private.unlink()
    with pytest.raises(InputError, match=r"signing\.pub has lost its private key"):
        signing.ensure_keys(tmp_path / "keys")


def test_what_was_signed_is_verified_by_its_key(tmp_path, configure):
    private, public = pair(tmp_path)
    configure(private, public)
    (key,) = signing.trusted_keys()
    assert signing.verify(MODEL, signed(), (key,)) == key
    assert signing.signer() == signing.Signer(private, None, key.fingerprint)


def test_the_schemes_own_command_verifies_it_too(tmp_path, configure):
    private, public = pair(tmp_path)
    configure(private, public)
    (tmp_path / "model.onnx").write_bytes(MODEL)
    (tmp_path / "bundle.json").write_bytes(signed())
    command = [sys.executable, "-m", "model_signing", "verify", "key", "--public_key", str(public)]
    files = ["--signature", str(tmp_path / "bundle.json"), str(tmp_path / "model.onnx")]
    assert subprocess.run([*command, *files], capture_output=True, check=False).returncode == 0
    (tmp_path / "model.onnx").write_bytes(onnx_model(2))
    assert subprocess.run([*command, *files], capture_output=True, check=False).returncode != 0


def test_a_key_may_be_locked_by_a_passphrase(tmp_path, configure):
    private, public = pair(tmp_path, b"open sesame")
    (tmp_path / "pass").write_text("open sesame\nsecond line\n")
    (tmp_path / "wrong").write_text("open barley\n")
    (tmp_path / "empty").write_text("\n")
    assert b"ENCRYPTED" in private.read_bytes()
    configure(private, public, passphrase=tmp_path / "pass")
    signing.verify(MODEL, signed(), signing.trusted_keys())
    for passphrase in (tmp_path / "wrong", None):
        configure(private, public, passphrase=passphrase)
        with pytest.raises(InputError, match="cannot be opened") as refused:
            signing.signer()
        assert "barley" not in str(refused.value)
    for name, words in (("empty", "begins with an empty line"), ("none", "cannot be read")):
        configure(private, public, passphrase=tmp_path / name)
        with pytest.raises(InputError, match=words):
            signing.signer()


def test_keys_are_rotated_by_trusting_both(tmp_path, configure):
    (old, old_public), (new, new_public) = pair(tmp_path / "old"), pair(tmp_path / "new")
    configure(old, old_public)
    before = signed()
    configure(new, old_public, new_public)
    signing.verify(MODEL, before, signing.trusted_keys())
    after = signed()
    signing.verify(MODEL, after, signing.trusted_keys())
    (tmp_path / "both.pem").write_bytes(old_public.read_bytes() + new_public.read_bytes())
    configure(new, tmp_path / "both.pem")
    assert len(signing.trusted_keys()) == 2
    configure(new, new_public)
    with pytest.raises(InputError, match="by another key than the trusted"):
        signing.verify(MODEL, before, signing.trusted_keys())


def changed(bundle: bytes, **parts: object) -> bytes:
    found = json.loads(bundle)
    found["dsseEnvelope"] |= parts
    return json.dumps(found).encode()


def test_other_bytes_another_key_and_a_forged_signature_are_told_apart(tmp_path, configure):
    private, public = pair(tmp_path)
    configure(private, public)
    trusted = signing.trusted_keys()
    bundle = signed()
    with pytest.raises(InputError, match="its signature is for other bytes"):
        signing.verify(MODEL + b"x", bundle, trusted)

    stranger, stranger_public = pair(tmp_path / "stranger")
    configure(stranger, stranger_public)
    foreign = signed()
    with pytest.raises(InputError, match=f"by another key than the trusted {trusted[0].fingerprint}"):
        signing.verify(MODEL, foreign, trusted)

    # It claims to be made by the trusted key.
    forged = foreign.replace(signing.trusted_keys()[0].hint.encode(), trusted[0].hint.encode())
    with pytest.raises(InputError, match="was not made by the key that it names"):
        signing.verify(MODEL, forged, trusted)

    # A statement about other bytes, under the signature of this one.
    configure(private, public)
    other = json.loads(signed(onnx_model(2)))["dsseEnvelope"]["payload"]
    with pytest.raises(InputError, match="was not made by the key that it names"):
        signing.verify(onnx_model(2), changed(bundle, payload=other), trusted)


@pytest.mark.parametrize(
    "bundle",
    [
        *(b"", b"\xff\xfe", b"null", b"[]", b"{}", b"[" * 100_000, b'{"verificationMaterial": 3}'),
        b'{"verificationMaterial": {"publicKey": {}}}',
    ],
)
def test_what_is_no_bundle_is_malformed(bundle, tmp_path, configure):
    configure(*pair(tmp_path))
    with pytest.raises(InputError, match="its signature is malformed"):
        signing.verify(MODEL, bundle, signing.trusted_keys())


@pytest.mark.parametrize(
    "parts", [{"signatures": []}, {"payload": "!"}, {"payload": 3}, {"signatures": None}]
)
def test_a_damaged_envelope_is_refused(parts, tmp_path, configure):
    configure(*pair(tmp_path))
    with pytest.raises(InputError, match="its signature"):
        signing.verify(MODEL, changed(signed(), **parts), signing.trusted_keys())


def test_nothing_configured_asks_for_nothing():
    assert signing.trusted_keys() == ()
    assert signing.signer() is None


def test_half_a_configuration_is_refused(tmp_path, configure):
    (private, public), (_, other_public) = pair(tmp_path), pair(tmp_path / "other")
    configure(private)
    with pytest.raises(InputError, match=r"NIGHTSHIFT_PUBLIC_KEYS has none; add its public key there"):
        signing.signer()
    configure(private, other_public)
    with pytest.raises(InputError, match=r"has the fingerprint .*, NIGHTSHIFT_PUBLIC_KEYS has"):
        signing.signer()
    configure(None, public)
    with pytest.raises(InputError, match="NIGHTSHIFT_SIGNING_KEY is not set, so what is registered"):
        signing.signer()
    configure(tmp_path / "nowhere", public)
    with pytest.raises(InputError, match=r"private key .*nowhere cannot be read \(No such file"):
        signing.signer()
    configure(private, tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"public key .*nowhere .*nothing is trusted without it"):
        signing.trusted_keys()


def test_a_setting_without_a_file_in_it_does_not_mean_no_keys(monkeypatch):
    monkeypatch.setenv(signing.PUBLIC_KEYS, os.pathsep)
    with pytest.raises(InputError, match="names no file"):
        signing.trusted_keys()


def test_other_keys_than_the_schemes_are_refused(tmp_path, configure):
    private, public = pair(tmp_path)
    koblitz = ec.generate_private_key(ec.SECP256K1())
    wrong = {
        "rsa": rsa.generate_private_key(65537, 2048).public_key().public_bytes(PEM, SPKI),
        "koblitz": koblitz.public_key().public_bytes(PEM, SPKI),
        "private": private.read_bytes(),
        "text": b"ssh-ed25519 AAAA",
    }
    for name, data in wrong.items():
        (tmp_path / name).write_bytes(data)
        configure(private, tmp_path / name)
        with pytest.raises(InputError, match="must hold PEM public keys on the curves"):
            signing.trusted_keys()
    damaged = b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----"
    (tmp_path / "damaged").write_bytes(public.read_bytes() + damaged)
    configure(private, tmp_path / "damaged")
    with pytest.raises(InputError, match="is damaged; copy it again"):
        signing.trusted_keys()
    (tmp_path / "koblitz.key").write_bytes(
        koblitz.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    configure(tmp_path / "koblitz.key", public)
    with pytest.raises(InputError, match="is not on one of the curves"):
        signing.signer()


def test_a_signature_does_not_hold_the_private_key(tmp_path, configure):
    private, public = pair(tmp_path)
    configure(private, public)
    key = serialization.load_pem_private_key(private.read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    secret = key.private_numbers().private_value.to_bytes(32, "big")
    envelope = json.loads(bundle := signed())["dsseEnvelope"]
    text = bundle + base64.b64decode(envelope["payload"]) + base64.b64decode(envelope["signatures"][0]["sig"])
    assert secret not in text
    assert base64.b64encode(secret)[:40] not in text
