"""When something runs by itself, as the files in `dags/` say it."""

import re
from datetime import UTC, datetime
from typing import Annotated, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator

PRESETS: Final = ("@hourly", "@daily", "@weekly", "@monthly", "@yearly")
# croniter knows more, which Airflow cannot describe: random times (R) and such that depend on a name (H).
FIVE_FIELDS: Final = re.compile(r"(?![HhRr])[0-9A-Za-z*,/#-]+( +(?![HhRr])[0-9A-Za-z*,/#-]+){4}", re.ASCII)
ALLOWED: Final = (
    "schedule must be @daily and the like or five cron fields: minute 0-59, hour 0-23, day 1-31, month 1-12, "
    "weekday 0-7"
)


def _cron(value: str) -> str:
    if value in PRESETS:
        return value
    if not FIVE_FIELDS.fullmatch(value):
        raise ValueError(f"{ALLOWED}, got {value!r}")
    from croniter import CroniterError, croniter

    try:
        croniter(value, datetime.now(UTC)).get_next()  # Airflow's servers ask for it: it has to come
    except CroniterError as error:
        raise ValueError(f"{ALLOWED}, and come some day, got {value!r} ({error})") from error
    return value


def _known_zone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:  # a folder of zones, a name too long
        raise ValueError(f"timezone must be an IANA name such as Europe/Berlin, got {value!r}") from error
    return value


Cron = Annotated[str, AfterValidator(_cron)]
TimeZone = Annotated[str, AfterValidator(_known_zone)]
