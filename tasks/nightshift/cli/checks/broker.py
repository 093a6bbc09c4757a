"""The message broker: whether it answers and keeps messages, and who works on the queues."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

from nightshift.cli.checks import Finding, timed
from nightshift.errors import OutageError

QUEUES = ("default", "preprocess", "train")
PATIENCE = 2.0  # seconds for workers to answer; they do in milliseconds


def broker(url: str) -> Iterator[Finding]:
    """`url` has a login, of which nothing is printed."""
    from nightshift.stack.external_services import host

    if not url.startswith(("redis://", "rediss://")):
        yield Finding(None, f"message broker {host(url)} was not asked: only Redis and Valkey are")
        return
    import redis

    from nightshift.stack import http_client

    client = redis.Redis.from_url(
        url, socket_timeout=http_client.TIMEOUT, socket_connect_timeout=http_client.TIMEOUT
    )
    try:
        _, took = timed(client.ping)
        facts: dict[str, Any] = client.info()
        waiting = {queue: int(client.llen(queue)) for queue in QUEUES}
    except redis.RedisError as error:
        raise OutageError(
            f"message broker on {host(url)} does not answer ({error}); check its address, its password and "
            "that it runs"
        ) from error
    finally:
        client.close()
    yield Finding(True, f"message broker on {host(url)}, {_name(facts)}, answers in {took}")
    policy = facts.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        yield Finding(
            False,
            f"message broker on {host(url)} drops messages when its memory is full "
            f"(maxmemory-policy {policy}); set it to noeviction",
        )
    yield from _queues(waiting, _workers(url))


def _name(facts: dict[str, Any]) -> str:
    if "valkey_version" in facts:
        return f"Valkey {facts['valkey_version']}"
    return f"Redis {facts.get('redis_version', 'of unknown version')}"


def _workers(url: str) -> Counter[str]:
    """How many workers listen to each queue."""
    from celery import Celery  # type: ignore[import-untyped]

    with Celery(broker=url, set_as_current=False) as app:
        answers = app.control.inspect(timeout=PATIENCE).active_queues() or {}
    return Counter(queue["name"] for queues in answers.values() for queue in queues)


def _queues(waiting: dict[str, int], workers: Counter[str]) -> Iterator[Finding]:
    for queue, messages in waiting.items():
        if workers[queue]:
            yield Finding(True, f"queue {queue}: messages {messages}, workers {workers[queue]}")
        else:
            yield Finding(
                False if messages else None,
                f"queue {queue}: messages {messages}, and no worker; start one with "
                f"airflow celery worker --queues {queue}",
            )
