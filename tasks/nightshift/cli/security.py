"""`nightshift keys`, `export`, `unseal`, `sbom`: who signed a model, how it is carried out, what made it."""

import os
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer()
KeyFile = Annotated[
    Path | None,
    typer.Option("--key-file", help="File with the 32 bytes of the key; else NIGHTSHIFT_EXPORT_KEY."),
]


@app.command()
def keys(
    folder: Annotated[Path, typer.Option(help="Where the pair is kept.")] = Path("~/.config/nightshift/keys"),
    passphrase_file: Annotated[
        Path | None, typer.Option(help="Lock the private key by the first line of this file.")
    ] = None,
    export_key: Annotated[
        Path | None, typer.Option(help="Make a key for `export --encrypt` in this file, and no pair.")
    ] = None,
) -> None:
    """Make a key pair for signing models and say how to use it; no key is ever overwritten."""
    from nightshift.security import encryption, signing

    if export_key is not None:
        signing.write_new(export_key.expanduser(), f"{encryption.new_key()}\n".encode())
        print(f"export key   {export_key}  (whoever has it can open what it seals)")
        return
    place = folder.expanduser().resolve()
    passphrase = signing.read_passphrase(passphrase_file.expanduser()) if passphrase_file else None
    fingerprint = signing.make_keys(place, passphrase)
    private, public = place / signing.PRIVATE_NAME, place / signing.PUBLIC_NAME
    print(f"private key  {private}  (only where models are registered)")
    print(f"public key   {public}  (wherever models are loaded)")
    print(f"fingerprint  {fingerprint}")
    # What was signed by the keys before this one stays trusted.
    trusted = os.pathsep.join(filter(None, [os.environ.get(signing.PUBLIC_KEYS), str(public)]))
    variables = {signing.SIGNING_KEY: str(private), signing.PUBLIC_KEYS: trusted}
    if passphrase_file:
        variables[signing.PASSPHRASE_FILE] = str(passphrase_file.expanduser().resolve())
    for name, value in variables.items():
        print(f"export {name}={shlex.quote(value)}")


@app.command()
def export(
    model: Annotated[str, typer.Argument(help="models:/digits@champion or models:/digits/3.")],
    file: Annotated[Path, typer.Argument(help="Where the ONNX file is written.")],
    encrypt: Annotated[bool, typer.Option("--encrypt", help="Seal it with AES-256-GCM.")] = False,
    key_file: KeyFile = None,
) -> None:
    """Write a registered model to a file, its digest and signature checked."""
    from nightshift.cli.connection import connect
    from nightshift.errors import InputError
    from nightshift.security import encryption, signing

    if key_file and not encrypt:
        raise InputError("--key-file is for --encrypt, which was not given; add it, or leave the key out")
    place, key = _place(file), encryption.read_key(key_file) if encrypt else None
    connect("tracking")
    from nightshift.tracking.registry import SHA256, fetch_model

    data, tags = fetch_model(model)
    _write(place, encryption.seal(data, key) if key else data)
    signature = "signature checked" if signing.trusted_keys() else f"no {signing.PUBLIC_KEYS} to check it by"
    print(
        f"{file}: version {tags['version']}, SHA-256 {tags[SHA256]}, {signature}{', sealed' if key else ''}"
    )


@app.command()
def unseal(
    file: Annotated[Path, typer.Argument(help="A file of `nightshift export --encrypt`.")],
    out: Annotated[Path, typer.Argument(help="Where the ONNX file is written.")],
    key_file: KeyFile = None,
) -> None:
    """Open a sealed model; nothing is written unless every byte is as it was sealed."""
    import hashlib

    from nightshift.errors import InputError
    from nightshift.security import encryption

    place, key = _place(out), encryption.read_key(key_file)
    try:
        data = encryption.unseal(file.read_bytes(), key)
    except OSError as error:
        raise InputError(f"{file} cannot be read ({error.strerror}); give a sealed file") from error
    except InputError as error:
        raise InputError(f"{file} is not opened: {error}") from error
    _write(place, data)
    print(f"{out}: SHA-256 {hashlib.sha256(data).hexdigest()}")


@app.command()
def sbom(
    file: Annotated[Path | None, typer.Argument(help="Where to write it; stdout by default.")] = None,
) -> None:
    """Write what is installed here as a bill of materials, CycloneDX in JSON."""
    from nightshift.security.sbom import sbom as make

    made = make()
    if file is None:
        sys.stdout.write(made.decode() + "\n")
    else:
        _write(_place(file), made)


def _place(path: Path) -> Path:
    from nightshift.errors import InputError

    place = path.expanduser().resolve()
    if place.is_dir():
        raise InputError(f"{path} is a folder; name a file")
    return place


def _write(place: Path, data: bytes) -> None:
    """Write a file whole or not at all, for its owner alone."""
    from nightshift import storage

    storage.write(f"file://{place}", data)
