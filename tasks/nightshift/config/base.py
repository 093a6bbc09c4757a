"""What all settings have in common, and the digest that names equal things equally."""

import hashlib
import json
import re
from typing import Final

from pydantic import BaseModel, ConfigDict, field_validator
from pydantic.config import JsonDict

ADVANCED: Final[JsonDict] = {"advanced": True}
CONTROL: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]")  # tabs and new lines are text


class Settings(BaseModel):
    """A frozen group of knobs; an unknown key is an error, so that a typing mistake is never ignored.

    Infinity and NaN, which JSON lacks, and control characters, which PostgreSQL and XML refuse, are none of
    the values of any knob.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _is_text(cls, value: object) -> object:
        if isinstance(value, str) and (control := CONTROL.search(value)):
            raise ValueError(f"must not have control characters, got {control[0]!r}; take it out")
        return value

    def digest(self) -> str:
        """SHA-256 over the canonical JSON of all values: equal settings, equal digest."""
        return digest_of(self.model_dump(mode="json"))


def digest_of(value: object) -> str:
    """SHA-256 (64 hex digits) of the canonical JSON of `value`."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
