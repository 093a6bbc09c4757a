"""Sealed files: what is opened, and what is refused in words."""

import base64
import hashlib
import secrets

import pytest
from small_models import onnx_model

from nightshift.errors import InputError
from nightshift.security import encryption

MODEL = onnx_model(1)
KEY = bytes(range(32))


def test_a_sealed_model_comes_back_and_shows_nothing_of_itself():
    sealed = encryption.seal(MODEL, KEY)
    assert encryption.unseal(sealed, KEY) == MODEL
    assert b"softmax" not in sealed.lower()
    assert hashlib.sha256(MODEL).digest() in sealed
    assert encryption.seal(MODEL, KEY) != sealed
    assert encryption.unseal(encryption.seal(b"", KEY), KEY) == b""


def test_every_changed_byte_is_noticed():
    sealed = encryption.seal(b"a model", KEY)
    for place in range(len(sealed)):
        changed = bytearray(sealed)
        changed[place] ^= 1
        with pytest.raises(InputError):
            encryption.unseal(bytes(changed), KEY)


def test_every_missing_end_and_every_longer_file_is_noticed():
    sealed = encryption.seal(b"a model", KEY)
    for length in range(len(sealed)):
        with pytest.raises(InputError, match=r"no file that|ends after|its header says"):
            encryption.unseal(sealed[:length], KEY)
    with pytest.raises(InputError, match="its header says"):
        encryption.unseal(sealed + b"x", KEY)


def test_what_is_wrong_is_told_apart():
    sealed = encryption.seal(MODEL, KEY)
    with pytest.raises(InputError, match="was made with another key"):
        encryption.unseal(sealed, secrets.token_bytes(32))
    with pytest.raises(InputError, match="was changed or damaged"):
        encryption.unseal(sealed[:-1] + bytes([sealed[-1] ^ 1]), KEY)
    with pytest.raises(InputError, match="has format 2, this Nightshift reads 1"):
        encryption.unseal(sealed[:8] + b"\x02" + sealed[9:], KEY)
    with pytest.raises(InputError, match="no file that `nightshift export --encrypt` made"):
        encryption.unseal(MODEL, KEY)


def test_a_model_that_is_too_large_is_refused(monkeypatch):
    monkeypatch.setattr(encryption, "MOST", 3)
    with pytest.raises(InputError, match="a model of 4 bytes cannot be sealed; 3 are the most"):
        encryption.seal(b"four", KEY)


def test_a_key_is_read_from_a_file_or_the_environment(tmp_path, monkeypatch):
    monkeypatch.delenv(encryption.EXPORT_KEY, raising=False)
    with pytest.raises(InputError, match="no key was given: name its file with --key-file"):
        encryption.read_key(None)
    for text in (KEY.hex(), KEY.hex().upper(), base64.b64encode(KEY).decode(), f" {KEY.hex()}\n"):
        monkeypatch.setenv(encryption.EXPORT_KEY, text)
        (tmp_path / "key").write_text(text)
        assert encryption.read_key(None) == encryption.read_key(tmp_path / "key") == KEY
    monkeypatch.setenv(encryption.EXPORT_KEY, KEY[::-1].hex())
    assert encryption.read_key(tmp_path / "key") == KEY
    assert len(bytes.fromhex(encryption.new_key())) == 32
    assert encryption.new_key() != encryption.new_key()


@pytest.mark.parametrize(
    "text", ["", "swordfish", "zz" * 32, KEY.hex()[:-1], base64.b64encode(KEY[:31]).decode()]
)
def test_what_is_no_key_is_refused_without_showing_it(text, tmp_path):
    (tmp_path / "key").write_text(text)
    with pytest.raises(InputError, match="are not 32 bytes in hexadecimal or base64") as refused:
        encryption.read_key(tmp_path / "key")
    assert not text or text not in str(refused.value)
    with pytest.raises(InputError, match="cannot be read"):
        encryption.read_key(tmp_path / "none")
