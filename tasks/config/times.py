"""When something runs by itself, as the files in `dags/` say it."""

import re
from typing import Annotated, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator

SIMPLE_CRON: Final = re.compile(r"^(@(hourly|daily|weekly|monthly|yearly)|\S+( +\S+){4})$")


def _cron(value: str) -> str:
    if not SIMPLE_CRON.match(value):
        raise ValueError(f"schedule must be five cron fields or @daily and the like, got {value!r}")
    return value


def _known_zone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise ValueError(f"timezone must be an IANA name such as Europe/Berlin, got {value!r}") from error
    return value


Cron = Annotated[str, AfterValidator(_cron)]
TimeZone = Annotated[str, AfterValidator(_known_zone)]
