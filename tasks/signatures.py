"""Signatures of registered models: artifacts of the MLflow run that made them, named by the model."""

import hashlib

from tasks import signing, tracking
from tasks.errors import InputError

SIGNED_BY = "nightshift.signed_by"  # tag of a version, the fingerprint; it tells people and is never trusted


def attach(run_id: str, model: bytes) -> dict[str, str]:
    """Sign a model, keep the signature with its run, and return the tag that says so.

    Nothing happens where signing is not configured. Raises InputError when it is configured wrongly.
    """
    signer = signing.signer()
    if signer is None:
        return {}
    tracking.log_artifact(run_id, _path(model), signing.sign(model, signer))
    return {SIGNED_BY: signer.fingerprint}


def check(uri: str, run_id: str | None, model: bytes) -> None:
    """Refuse a model that no configured public key signed; without public keys nothing is asked."""
    trusted = signing.trusted_keys()
    if not trusted:
        return
    signature = tracking.stored_artifact(run_id, _path(model)) if run_id else None
    if signature is None:
        raise InputError(
            f"{uri} is not signed, and {signing.PUBLIC_KEYS} asks for a signature: do not use it; to sign a "
            "version of your own, run the task `register` of its night again"
        )
    try:
        signing.verify(model, signature, trusted)
    except InputError as error:
        raise InputError(f"{uri} cannot be trusted, do not use it: {error}") from error


def _path(model: bytes) -> str:
    return f"signature/{hashlib.sha256(model).hexdigest()}.json"
