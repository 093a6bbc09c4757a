"""Encrypted files for carrying a model out: AES-256-GCM, one file, opened by `nightshift unseal` alone.

The header says format, key, length and digest of what is inside; it is readable, and authenticated with the
rest. It is magic (8 bytes), version (1), name of the key (16), nonce (12), length (8) and SHA-256 (32),
big-endian. The nonce is random, as NIST SP 800-38D, 8.2.2 and 8.3, allows for up to 2^32 files of one key.
"""

import base64
import binascii
import hashlib
import hmac
import os
import secrets
import struct
from pathlib import Path
from typing import Final

from nightshift.errors import InputError

EXPORT_KEY: Final = "NIGHTSHIFT_EXPORT_KEY"
MAGIC: Final = b"NSSEALED"
VERSION: Final = 1
KEY_BYTES: Final = 32
TAG_BYTES: Final = 16
MOST: Final = 2**31 - 1 - TAG_BYTES  # what the library encrypts at a time
_HEADER: Final = struct.Struct(">8sB16s12sQ32s")


def seal(model: bytes, key: bytes) -> bytes:
    """Encrypt a model with a key of 32 bytes."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    if len(model) > MOST:
        raise InputError(f"a model of {len(model):,} bytes cannot be sealed; {MOST:,} are the most")
    nonce, digest = secrets.token_bytes(12), hashlib.sha256(model).digest()
    header = _HEADER.pack(MAGIC, VERSION, _name(key), nonce, len(model), digest)
    return header + AESGCM(key).encrypt(nonce, model, header)


def unseal(data: bytes, key: bytes) -> bytes:
    """The model in a sealed file.

    Raises InputError for what is no sealed file, another key, a missing end, or any changed byte.
    """
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    if not data.startswith(MAGIC):
        raise InputError("this is no file that `nightshift export --encrypt` made; give one")
    if len(data) < _HEADER.size:
        raise InputError(f"the sealed file ends after {len(data)} bytes, within its header; copy it again")
    header, sealed = data[: _HEADER.size], data[_HEADER.size :]
    _, version, name, nonce, length, _ = _HEADER.unpack(header)
    if version != VERSION:
        raise InputError(f"the sealed file has format {version}, this Nightshift reads {VERSION}; update it")
    if not hmac.compare_digest(name, _name(key)):
        raise InputError("the sealed file was made with another key; give the one that it was sealed with")
    if len(sealed) != length + TAG_BYTES:
        raise InputError(
            f"the sealed file has {len(data):,} bytes, its header says "
            f"{_HEADER.size + length + TAG_BYTES:,}; copy it again"
        )
    try:
        return AESGCM(key).decrypt(nonce, sealed, header)
    except InvalidTag as error:
        raise InputError("the sealed file was changed or damaged after it was made; copy it again") from error


def mark(data: bytes, key: bytes) -> str:
    """What only a holder of the key can say of these bytes, in hexadecimal: their HMAC-SHA256."""
    return hmac.digest(key, b"nightshift: mark of a text" + data, "sha256").hex()


def new_key() -> str:
    """A random key as it is kept, 64 hexadecimal digits."""
    return secrets.token_hex(KEY_BYTES)


def read_key(path: Path | None) -> bytes:
    """The key, 32 bytes in hexadecimal or base64, of a file or else of NIGHTSHIFT_EXPORT_KEY.

    Raises InputError, which never shows the key.
    """
    if path is None:
        origin, text = EXPORT_KEY, os.environ.get(EXPORT_KEY, "")
        if not text:
            raise InputError(
                f"no key was given: name its file with --key-file, or set {EXPORT_KEY}; "
                "`nightshift keys --export-key FILE` makes one"
            )
    else:
        origin = f"key file {path}"
        try:
            text = path.read_bytes().decode("ascii", "replace")
        except OSError as error:
            raise InputError(f"{origin} cannot be read ({error.strerror}); check its path") from error
    text = text.strip()
    try:
        key = bytes.fromhex(text) if len(text) == 2 * KEY_BYTES else base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error):
        key = b""
    if len(key) != KEY_BYTES:
        raise InputError(
            f"{origin} holds {len(text)} characters that are not {KEY_BYTES} bytes in hexadecimal or base64; "
            "`nightshift keys --export-key FILE` makes a key"
        )
    return key


def _name(key: bytes) -> bytes:
    """What tells keys apart without telling the key."""
    return hmac.digest(key, b"nightshift: name of a sealing key", "sha256")[:16]
