"""What all settings have in common, and the digest that names equal things equally."""

import hashlib
import json
import re
from typing import Final

from pydantic import BaseModel, ConfigDict
from pydantic.config import JsonDict

ADVANCED: Final[JsonDict] = {"advanced": True}
SIMPLE_CRON: Final = re.compile(r"^(@(hourly|daily|weekly|monthly|yearly)|\S+( +\S+){4})$")


class Settings(BaseModel):
    """A frozen group of knobs; an unknown key is an error, so that a typing mistake is never ignored."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def digest(self) -> str:
        """SHA-256 over the canonical JSON of all values: equal settings, equal digest."""
        return digest_of(self.model_dump(mode="json"))


def digest_of(value: object) -> str:
    """SHA-256 (64 hex digits) of the canonical JSON of `value`."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def cron(value: str | None) -> str | None:
    """A schedule as it is, when it looks like one. Raises ValueError."""
    if value is not None and not SIMPLE_CRON.match(value):
        raise ValueError(f"schedule must be five cron fields or @daily and the like, got {value!r}")
    return value
