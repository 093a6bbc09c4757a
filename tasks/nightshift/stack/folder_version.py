"""Which versions last worked on a stack's folder, so that an older one leaves it alone.

`.nightshift/version` is written before anything else of a start touches the data: databases are brought to
the installed versions, and none of them goes back.
"""

from importlib.metadata import version
from pathlib import Path
from typing import Final

from packaging.version import InvalidVersion, Version
from pydantic import BaseModel, ConfigDict, ValidationError

from nightshift.errors import InputError
from nightshift.stack.private_files import write_private
from nightshift.stack.roles import POSTGRES

FORMAT: Final = 1  # of the folder: one more when an earlier Nightshift could not read it
FILE: Final = "version"


class State(BaseModel):
    """The format of the folder, and the versions whose schemas its databases have."""

    model_config = ConfigDict(frozen=True, extra="ignore")  # a newer one may say more

    format: int
    airflow: str
    mlflow: str
    postgresql: str  # the major version, which alone can open the files


def installed() -> State:
    """What is installed here."""
    return State(
        format=FORMAT,
        airflow=version("apache-airflow-core"),
        mlflow=version("mlflow"),
        postgresql=POSTGRES,
    )


def read(home: Path) -> State | None:
    """What worked on this folder last; None where nothing did, or before there was such a file."""
    path = home / FILE
    try:
        return State.model_validate_json(path.read_text())
    except FileNotFoundError:
        return None
    except (ValidationError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path} is not readable: restore it, or remove it if no newer Nightshift ever ran there"
        ) from error


def claim(home: Path) -> None:
    """Write down that the installed versions work on this folder from now on. Raises InputError."""
    if (found := read(home)) is not None:
        check(found, f"the stack in {home}")
        if found.postgresql != POSTGRES:
            raise InputError(
                f"the databases in {home} are of PostgreSQL {found.postgresql}, and {POSTGRES} cannot open "
                "them: run `nightshift backup` with the Nightshift that made them, then `nightshift restore` "
                "with this one"
            )
    write_private(home / FILE, installed().model_dump_json(indent=2) + "\n")


def check(found: State, what: str) -> None:
    """Raises InputError when `what` was made by something newer than what is installed here."""
    here = installed()
    if found.format > here.format:
        raise InputError(
            f"{what} has format {found.format}, this Nightshift reads formats up to {here.format}: "
            "update Nightshift"
        )
    for name, label in (("airflow", "Airflow"), ("mlflow", "MLflow"), ("postgresql", "PostgreSQL")):
        theirs, ours = getattr(found, name), getattr(here, name)
        if _number(theirs) > _number(ours):
            raise InputError(
                f"{what} is of {label} {theirs}, and {ours} is installed here, to which its database cannot "
                f"go back: install {label} {theirs} or later"
            )


def _number(text: str) -> Version:
    try:
        return Version(text)
    except InvalidVersion as error:
        raise InputError(f"{text!r} in the state of the stack is no version: restore its file") from error
