"""What all settings have in common, and the digest that names equal things equally."""

import hashlib
import json
from typing import Final

from pydantic import BaseModel, ConfigDict
from pydantic.config import JsonDict

ADVANCED: Final[JsonDict] = {"advanced": True}


class Settings(BaseModel):
    """A frozen group of knobs; an unknown key is an error, so that a typing mistake is never ignored."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def digest(self) -> str:
        """SHA-256 over the canonical JSON of all values: equal settings, equal digest."""
        return digest_of(self.model_dump(mode="json"))


def digest_of(value: object) -> str:
    """SHA-256 (64 hex digits) of the canonical JSON of `value`."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
