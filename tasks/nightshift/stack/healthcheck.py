"""Health checks of the containers: exit status 0, or 1 and the reason.

python -m nightshift.stack.healthcheck server http://127.0.0.1:8080/api/v2/version
python -m nightshift.stack.healthcheck heartbeat scheduler http://api-server:8080
python -m nightshift.stack.healthcheck worker /run/secrets/broker_url     # the Celery worker of this host
python -m nightshift.stack.healthcheck process nightshift.stack.janitor        # where nothing listens
"""

import os
import socket
import sys
from pathlib import Path

from nightshift.errors import InputError
from nightshift.stack import health


def _process(word: str) -> str | None:
    import psutil

    others = (found for found in psutil.process_iter(["cmdline"]) if found.pid != os.getpid())
    runs = any(word in (found.info["cmdline"] or ()) for found in others)
    return None if runs else f"no process runs {word}"


def probe(kind: str, *about: str) -> str | None:
    """None when it works, otherwise why not. Raises InputError for a question that there is not."""
    match kind, *about:
        case "server", url:
            return health.server(url)
        case "heartbeat", component, url:
            return health.heartbeat(url.rstrip("/"), component, since=0)
        case "worker", broker:
            address = Path(broker).read_text(encoding="utf-8").strip()
            return health.worker(address, f"celery@{socket.gethostname()}")
        case "process", word:
            return _process(word)
    raise InputError(
        f"there is no probe {' '.join((kind, *about))!r}: ask `server URL`, `heartbeat COMPONENT URL`, "
        "`worker BROKER_FILE` or `process WORD`"
    )


def main() -> None:
    reason = probe(*(sys.argv[1:] or [""]))
    if reason is not None:
        raise SystemExit(reason)


if __name__ == "__main__":
    main()
