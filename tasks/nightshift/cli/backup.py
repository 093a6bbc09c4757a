"""`nightshift backup` and `restore`: what a stack knows, kept somewhere else and brought back."""

from pathlib import Path
from typing import Annotated

import typer

from nightshift.cli.security import KeyFile
from nightshift.errors import InputError

app = typer.Typer()


@app.command()
def backup(
    where: Annotated[
        str, typer.Argument(help="A folder, or s3://bucket/prefix of another S3 server than the stack's.")
    ] = "",
    everything: Annotated[
        bool, typer.Option("--all", help="Also shards and candidates, which nights make again.")
    ] = False,
    key_file: KeyFile = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object with its address.")] = False,
) -> None:
    """Keep the stack's databases, secrets, keys and objects somewhere else; nights may run meanwhile.

    Secrets and keys are sealed with the key, and nothing can be restored without it.
    """
    import json
    import sys

    from nightshift.security import encryption
    from nightshift.stack.backup import backup as keep
    from nightshift.stack.environment import home

    key = encryption.read_key(key_file)
    uri, made = keep(
        home(),
        _address(where) if where else _own_store(),
        key,
        everything=everything,
        say=lambda line: print(line, file=sys.stderr, flush=True),
    )
    facts = {"uri": uri, "at": made.at, "objects": len(made.objects), "size": made.size}
    print(json.dumps(facts) if as_json else f"{uri} is whole, {made.size / 1e6:,.1f} MB")


@app.command()
def restore(
    uri: Annotated[str, typer.Argument(help="The folder or address of one backup.")],
    key_file: KeyFile = None,
    force: Annotated[bool, typer.Option("--force", help="Put the stack that is there aside first.")] = False,
) -> None:
    """Make a stack of a backup, in NIGHTSHIFT_HOME; it is checked before anything is touched."""
    from nightshift.security import encryption
    from nightshift.stack.environment import home
    from nightshift.stack.restore import restore as bring_back

    place, key = home(), encryption.read_key(key_file)
    made = bring_back(place, _address(uri), key, force=force, say=lambda line: print(line, flush=True))
    print(f"{place} is the stack of {made.at} again; `nightshift up` starts it")


def _address(given: str) -> str:
    if given.startswith("s3://"):
        return given.rstrip("/")
    if "://" in given and not given.startswith("file:///"):
        raise InputError(f"{given} is no place for a backup; name a folder or s3://bucket/prefix")
    return f"file://{Path(given.removeprefix('file://')).expanduser().resolve()}"


def _own_store() -> str:
    """`backups` in the caller's own store; the stack's would be lost with it."""
    from nightshift.cli.connection import decided
    from nightshift.config import store_root

    if not decided("store"):
        raise InputError(
            "no place for the backup was given: name a folder, or s3://bucket/prefix of another S3 server"
        )
    return f"{store_root()}/backups"
