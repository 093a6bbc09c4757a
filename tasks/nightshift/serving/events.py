"""What happens to the endpoint, one line an event: key=value, on stderr."""

import json
import re
import sys
from datetime import UTC, datetime


def say(event: str, **facts: object) -> None:
    """Values with anything but plain characters are quoted as JSON does it."""
    stamp = datetime.now(UTC).isoformat(timespec="milliseconds")
    line = {"time": stamp, "event": event, **facts}
    words = (f"{key}={_quoted(without_logins(str(value)))}" for key, value in line.items())
    print(" ".join(words), file=sys.stderr, flush=True)


def without_logins(text: str) -> str:
    """A text without the user names and passwords of the addresses in it."""
    return re.sub(r"://[^/\s@]*@", "://", text)


def _quoted(value: str) -> str:
    return value if re.fullmatch(r"[\w.:/@+-]+", value) else json.dumps(value, ensure_ascii=False)
