"""Whose a store is: a record for each pipeline of each MLflow server whose nights wrote to it.

An experiment's id and the moment of its creation tell servers apart, after a restore too.
"""

from typing import Final
from urllib.parse import urlsplit

from nightshift import storage
from nightshift.config import store_root
from nightshift.errors import InputError
from nightshift.records import Record
from nightshift.tracking import inventory
from nightshift.tracking.runs import address, client, mlflow_errors

FOLDER: Final = "owners"


class Owner(Record):
    """A pipeline's experiment; `created` in milliseconds since 1970, `server` without a login."""

    pipeline: str
    experiment: str
    created: int
    server: str


def note(pipeline: str) -> None:
    """Write down that nights of this pipeline are tracked by this MLflow; once."""
    with mlflow_errors():
        found = client().get_experiment_by_name(pipeline)
    if found is not None:
        owner = Owner(
            pipeline=pipeline,
            experiment=str(found.experiment_id),
            created=int(found.creation_time or 0),
            server=_shown(address()),
        )
        uri = _uri(owner)
        if not storage.exists(uri):
            storage.create_record(uri, owner)


def strangers() -> list[Owner]:
    """Pipelines of other servers that write to this store too."""
    known = inventory.experiments()
    folder = storage.join(store_root(), FOLDER)
    owners = [
        storage.read_record(storage.join(folder, stored.key), Owner)
        for stored in storage.listing(folder, etags=False)
    ]
    return [owner for owner in owners if (owner.experiment, owner.created) not in known]


def check() -> None:
    """Raise InputError where another MLflow's nights are in this store: theirs looks unwanted from here."""
    if found := strangers():
        named = ", ".join(f"{owner.pipeline} of {owner.server}" for owner in found[:5])
        raise InputError(
            f"the store {store_root()} is also that of {named}, of which MLflow at {_shown(address())} knows "
            "nothing, so nothing is deleted; give each MLflow a store of its own, or remove "
            f"{_uri(found[0])} where that server is gone for good"
        )


def _uri(owner: Owner) -> str:
    return storage.join(store_root(), FOLDER, f"{owner.pipeline}-{owner.experiment}-{owner.created}.json")


def _shown(uri: str) -> str:
    """An address without what stands before an @ in it."""
    parts = urlsplit(uri)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
