"""Signatures of registered models: artifacts of the MLflow run that made them, named by the model.

Two are kept: of the file, which `model_signing` checks elsewhere too, and of the judgement, which binds
name, run, digest and gates to each other. Without it, gates would be tags that anybody may write.
"""

import hashlib
from collections.abc import Mapping
from typing import Final

from nightshift.errors import InputError
from nightshift.records import Record
from nightshift.security import signing
from nightshift.tracking import runs

SIGNED_BY = "nightshift.signed_by"  # tag of a version, the fingerprint; it tells people and is never trusted
FOLDER: Final = "signature"
SHA256: Final = "nightshift.sha256"  # tag of a version, the digest of its file
GATE: Final = "nightshift.gate."  # what tags begin with of which no more may be there than were signed


class Judgement(Record):
    """What is said of a version when it is registered, by the night that judged it."""

    name: str
    run_id: str
    tags: dict[str, str]


def attach(run_id: str, model: bytes, judgement: Judgement) -> dict[str, str]:
    """Sign a model and its judgement, keep both with the run, and return the tag that says so.

    Nothing happens where signing is not configured. Raises InputError when it is configured wrongly.
    """
    signer = signing.signer()
    if signer is None:
        return {}
    digest, text = hashlib.sha256(model).hexdigest(), judgement.model_dump_json().encode()
    files = {
        f"{digest}.json": signing.sign(model, signer),
        f"{digest}.judgement.json": text,
        f"{digest}.judgement.signature.json": signing.sign(text, signer),
    }
    runs.log_artifacts(run_id, FOLDER, files)
    return {SIGNED_BY: signer.fingerprint}


def check(uri: str, run_id: str | None, model: bytes) -> None:
    """Refuse a model that no configured public key signed; without public keys nothing is asked."""
    _checked(uri, run_id, hashlib.sha256(model).hexdigest(), model)


def check_judgement(uri: str, name: str, run_id: str | None, tags: Mapping[str, str]) -> None:
    """Refuse a version whose tags are not what a configured key signed; without public keys nothing is asked.

    Tags beside those that were signed are anybody's, but there is no gate among them.
    """
    digest = tags.get(SHA256, "")
    text = _stored(run_id, f"{digest}.judgement.json") if signing.trusted_keys() else None
    _checked(f"the judgement of {uri}", run_id, f"{digest}.judgement.signature", text)
    if text is None:
        return
    signed = Judgement.model_validate_json(text)
    changed = [key for key, value in signed.tags.items() if tags.get(key) != value]
    changed += [key for key in tags if key.startswith(GATE) and key not in signed.tags]
    if (signed.name, signed.run_id) != (name, run_id):
        raise InputError(
            f"the judgement of {uri} is signed for the model {signed.name} and another run: do not use it"
        )
    if changed:
        raise InputError(
            f"{', '.join(sorted(changed))} of {uri} are not as they were signed: do not use it; to put them "
            "right in a version of your own, run the task `register` of its night again"
        )


def _checked(uri: str, run_id: str | None, name: str, data: bytes | None) -> None:
    """Check the signature called `name` of a run over these bytes."""
    trusted = signing.trusted_keys()
    if not trusted:
        return
    signature = _stored(run_id, f"{name}.json")
    if signature is None or data is None:
        raise InputError(
            f"{uri} is not signed, and {signing.PUBLIC_KEYS} asks for a signature: do not use it; to sign a "
            "version of your own, run the task `register` of its night again"
        )
    try:
        signing.verify(data, signature, trusted)
    except InputError as error:
        raise InputError(f"{uri} cannot be trusted, do not use it: {error}") from error


def _stored(run_id: str | None, name: str) -> bytes | None:
    return runs.stored_artifact(run_id, f"{FOLDER}/{name}") if run_id else None
