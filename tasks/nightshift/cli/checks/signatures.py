"""Whether models are signed and verified here, and by which keys."""

import os
from collections.abc import Iterator

from nightshift.cli.checks import Finding


def signatures() -> Iterator[Finding]:
    from nightshift.security import signing

    trusted, private = signing.trusted_keys(), os.environ.get(signing.SIGNING_KEY)
    signer = signing.signer() if private else None
    if signer and signer.path.stat().st_mode & 0o077:
        yield Finding(
            False, f"private key {signer.path} can be read by other users; run chmod 600 {signer.path}"
        )
    elif not trusted:
        yield Finding(None, f"models are not signed: {signing.PUBLIC_KEYS} is not set; see nightshift keys")
    else:
        names = ", ".join(key.fingerprint for key in trusted)
        signs = f", what is registered here is signed by {signer.fingerprint}" if signer else ""
        yield Finding(True, f"models are trusted when signed by {names}{signs}")
