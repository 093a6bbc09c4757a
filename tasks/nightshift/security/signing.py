"""Signatures of models by the OpenSSF model-signing scheme, with elliptic-curve keys.

Trust comes from the configuration alone: NIGHTSHIFT_PUBLIC_KEYS names the PEM files of the keys whose
models are used, NIGHTSHIFT_SIGNING_KEY the private key where models are registered. With public keys
configured, what they did not sign is refused, without exception. Elsewhere the same signature is checked by
`model_signing verify key --signature BUNDLE --public_key KEY model.onnx`.
"""

import hashlib
import json
import os
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from nightshift.errors import InputError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey

SIGNING_KEY: Final = "NIGHTSHIFT_SIGNING_KEY"
PUBLIC_KEYS: Final = "NIGHTSHIFT_PUBLIC_KEYS"
PASSPHRASE_FILE: Final = "NIGHTSHIFT_SIGNING_PASSPHRASE_FILE"  # noqa: S105 - a name
PRIVATE_NAME, PUBLIC_NAME = "signing.key", "signing.pub"
CURVES: Final = ("secp256r1", "secp384r1", "secp521r1")  # those of the scheme
_PEM = re.compile(rb"-----BEGIN PUBLIC KEY-----.*?-----END PUBLIC KEY-----", re.DOTALL)


class PublicKey(NamedTuple):
    """A key whose signatures are trusted."""

    fingerprint: str
    pem: bytes

    @property
    def hint(self) -> str:
        """How a bundle names the key that made it, SHA-256 of the PEM text in hexadecimal."""
        return hashlib.sha256(self.pem).hexdigest()


class Signer(NamedTuple):
    """Where the private key is, and the fingerprint of its public one."""

    path: Path
    passphrase: bytes | None
    fingerprint: str


def fingerprint(key: "EllipticCurvePublicKey") -> str:
    """SHA-256 of the DER SubjectPublicKeyInfo, 64 hexadecimal digits."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def make_keys(folder: Path, passphrase: bytes | None = None) -> str:
    """Make a P-256 key pair, `signing.key` (mode 0600) and `signing.pub`, and return its fingerprint.

    Raises InputError when one of the files is there already: keys are never overwritten.
    """
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    for name in (PRIVATE_NAME, PUBLIC_NAME):
        if (folder / name).exists():
            raise InputError(f"{folder / name} exists and keys are never overwritten; name another folder")
    key = ec.generate_private_key(ec.SECP256R1())
    encryption = (
        serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
    )
    form = serialization.PrivateFormat.PKCS8
    _make_folder(folder)
    write_new(folder / PRIVATE_NAME, key.private_bytes(serialization.Encoding.PEM, form, encryption))
    write_new(folder / PUBLIC_NAME, _pem(key.public_key()), mode=0o644)
    return fingerprint(key.public_key())


def ensure_keys(folder: Path) -> str:
    """The fingerprint of the pair in a folder, made at the first call.

    A public key that is missing is made of the private one. Raises InputError when the private one is
    missing, because another one would leave all that was signed so far without a key that is trusted.
    """
    private, public = folder / PRIVATE_NAME, folder / PUBLIC_NAME
    if not private.exists() and not public.exists():
        return make_keys(folder)
    if not private.exists():
        raise InputError(f"{public} has lost its private key {private}; put it back, or move both away")
    key = _private_key(private, None)
    if not public.exists():
        write_new(public, _pem(key.public_key()), mode=0o644)
    return fingerprint(key.public_key())


def write_new(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Write a file that does not exist yet, whole or not at all; InputError when it exists."""
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}-") as draft:
            draft.write(data)
            draft.flush()
            os.fchmod(draft.fileno(), mode)
            os.link(draft.name, path)  # unlike a rename, it never replaces a file
    except FileExistsError as error:
        raise InputError(f"{path} exists and keys are never overwritten; name another file") from error
    except OSError as error:
        raise InputError(
            f"{path} cannot be written ({error.strerror}); name a folder you may write"
        ) from error


def trusted_keys() -> tuple[PublicKey, ...]:
    """The keys that NIGHTSHIFT_PUBLIC_KEYS names; none when it is not set.

    Raises InputError for a file that is missing or that holds no public key of the scheme.
    """
    configured = os.environ.get(PUBLIC_KEYS)
    if not configured:
        return ()
    keys = tuple(key for path in configured.split(os.pathsep) if path for key in _public_keys(Path(path)))
    if not keys:
        raise InputError(f"{PUBLIC_KEYS} is {configured!r}, which names no file; name the public key's file")
    return keys


def signer() -> Signer | None:
    """The private key that NIGHTSHIFT_SIGNING_KEY names, or None when signing is not configured.

    Raises InputError when the key cannot be read, or when only one of the private and the public key is
    configured or they do not belong together: what is registered then could never be loaded.
    """
    configured, trusted = os.environ.get(SIGNING_KEY), trusted_keys()
    if not configured:
        if trusted:
            raise InputError(
                f"{PUBLIC_KEYS} asks for signed models and {SIGNING_KEY} is not set, so what is registered "
                f"here could not be loaded; set it to the private key of {trusted[0].fingerprint}"
            )
        return None
    passphrase = os.environ.get(PASSPHRASE_FILE)
    secret = read_passphrase(Path(passphrase)) if passphrase else None
    mine = fingerprint(_private_key(Path(configured), secret).public_key())
    if mine not in {key.fingerprint for key in trusted}:
        known = ", ".join(key.fingerprint for key in trusted) or "none"
        raise InputError(
            f"the key {configured} ({SIGNING_KEY}) has the fingerprint {mine}, {PUBLIC_KEYS} has {known}; "
            "add its public key there"
        )
    return Signer(Path(configured), secret, mine)


def read_passphrase(path: Path) -> bytes:
    """The first line of a file."""
    try:
        passphrase = path.read_bytes().split(b"\n")[0].rstrip(b"\r")
    except OSError as error:
        raise InputError(
            f"passphrase file {path} cannot be read ({error.strerror}); check its path"
        ) from error
    if not passphrase:
        raise InputError(f"passphrase file {path} begins with an empty line; write the passphrase there")
    return passphrase


def sign(model: bytes, signer: Signer) -> bytes:
    """The signature of an ONNX file's bytes, a Sigstore bundle in JSON."""
    from model_signing import signing

    with tempfile.TemporaryDirectory() as folder:
        file, bundle = Path(folder, "model.onnx"), Path(folder, "bundle.json")
        file.write_bytes(model)
        # The library calls it a str and hands it to `cryptography`, which wants bytes.
        secret: Any = signer.passphrase
        config = signing.Config()  # type: ignore[no-untyped-call]
        config.use_elliptic_key_signer(private_key=signer.path, password=secret).sign(file, bundle)
        return bundle.read_bytes()


def verify(model: bytes, signature: bytes, public_keys: tuple[PublicKey, ...]) -> PublicKey:
    """The key that signed exactly these bytes.

    Raises InputError, in words that go on after "…: ", for a signature that is malformed, by another key, not
    made by the key it names, or for other bytes.
    """
    from cryptography.exceptions import InvalidSignature
    from model_signing import verifying

    key = _signed_by(signature, public_keys)
    with tempfile.TemporaryDirectory() as folder:
        file, bundle, public = (Path(folder, name) for name in ("model.onnx", "bundle.json", "key.pub"))
        for path, data in ((file, model), (bundle, signature), (public, key.pem)):
            path.write_bytes(data)
        try:
            config = verifying.Config()  # type: ignore[no-untyped-call]
            config.use_elliptic_key_verifier(public_key=public).verify(file, bundle)
        except InvalidSignature as error:
            raise InputError(
                f"its signature was not made by the key that it names, {key.fingerprint}"
            ) from error
        except Exception as error:  # whatever is wrong with a stranger's file, it is refused
            if str(error).startswith("Signature mismatch"):
                raise InputError("its signature is for other bytes") from error
            raise InputError(f"its signature is malformed ({type(error).__name__})") from error
    return key


def _signed_by(signature: bytes, public_keys: tuple[PublicKey, ...]) -> PublicKey:
    """The trusted key that a bundle claims to be made by."""
    try:
        hint = json.loads(signature)["verificationMaterial"]["publicKey"]["hint"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"its signature is malformed ({type(error).__name__})") from error
    for key in public_keys:
        if key.hint == hint:
            return key
    known = ", ".join(key.fingerprint for key in public_keys)
    raise InputError(f"its signature is by another key than the trusted {known}")


def _private_key(path: Path, passphrase: bytes | None) -> "EllipticCurvePrivateKey":
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(path.read_bytes(), passphrase)
    except OSError as error:
        raise InputError(
            f"the private key {path} cannot be read ({error.strerror}); check its path"
        ) from error
    except (TypeError, ValueError, UnsupportedAlgorithm) as error:
        # Its text may quote the file, so only what kind of error it is goes on.
        raise InputError(
            f"the private key {path} cannot be opened ({type(error).__name__}); give a PEM file of "
            f"`nightshift keys` and its passphrase, when it has one, in the file that {PASSPHRASE_FILE} names"
        ) from None
    if not isinstance(key, EllipticCurvePrivateKey) or key.curve.name not in CURVES:
        raise InputError(f"the private key {path} is not on one of the curves {', '.join(CURVES)}")
    return key


def _public_keys(path: Path) -> list[PublicKey]:
    """All public keys of a PEM file."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        found = [load_pem_public_key(text) for text in _PEM.findall(path.read_bytes())]
    except OSError as error:
        raise InputError(
            f"the public key {path} ({PUBLIC_KEYS}) cannot be read ({error.strerror}); nothing is trusted "
            "without it"
        ) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise InputError(f"the public key {path} ({PUBLIC_KEYS}) is damaged; copy it again") from error
    keys = [key for key in found if isinstance(key, EllipticCurvePublicKey) and key.curve.name in CURVES]
    if not found or len(keys) < len(found):
        raise InputError(
            f"{path} ({PUBLIC_KEYS}) must hold PEM public keys on the curves {', '.join(CURVES)} and nothing "
            f"else; it holds {len(keys)} of them among {len(found)} public keys"
        )
    return [PublicKey(fingerprint(key), _pem(key)) for key in keys]


def _pem(key: "EllipticCurvePublicKey") -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"folder {folder} cannot be made ({error.strerror}); name one that you may make"
        ) from error
