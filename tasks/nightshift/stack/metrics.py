"""What Airflow's own metrics do not tell, for Prometheus: queues, their workers, champions and decisions.

Everything is asked for when it is scraped. A part that does not answer is missing from the answer, which says
so, and the others are there.
"""

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import Final

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from nightshift import storage
from nightshift.config import store_root
from nightshift.errors import InputError, NightshiftError, OutageError
from nightshift.stack import prepare
from nightshift.stack.environment import BROKER_URL, home
from nightshift.tracking import ledger

QUEUES: Final = ("default", "preprocess", "train")
PATIENCE: Final = 2.0  # seconds for all workers to answer


class Gauges(Collector):
    """Collects at each scrape."""

    def __init__(self, broker: str) -> None:
        self._broker = broker

    def collect(self) -> Iterator[Metric]:
        success = GaugeMetricFamily(
            "nightshift_scrape_success", "1 when this part answered, 0 when it did not.", labels=["part"]
        )
        parts: dict[str, Callable[[], Iterable[Metric]]] = {
            "broker": lambda: queues(self._broker),
            "ledger": lambda: decisions(time.time()),
        }
        for part, ask in parts.items():
            try:
                yield from list(ask())
                success.add_metric([part], 1)
            except NightshiftError as error:
                print(f"metrics: {error}", file=sys.stderr, flush=True)
                success.add_metric([part], 0)
        yield success


def registry() -> CollectorRegistry:
    """What `nightshift metrics` shows. Raises InputError when nobody says where the broker is."""
    made = CollectorRegistry()
    made.register(Gauges(os.environ.get(BROKER_URL) or _broker()))
    return made


def _broker() -> str:
    if (site := prepare.find_site(home())) is None:
        raise InputError(
            f"there are no queues to measure: set {BROKER_URL}, or NIGHTSHIFT_HOME to the folder of a stack"
        )
    return site.broker_url


def queues(broker: str) -> Iterator[Metric]:
    """Length of each queue, and how many workers listen to it. Raises OutageError."""
    from celery import Celery  # type: ignore[import-untyped]
    from kombu.exceptions import ChannelError, OperationalError

    lengths: dict[str, int] = {}
    try:
        with Celery(broker=broker, set_as_current=False) as app:
            answers = app.control.inspect(timeout=PATIENCE).active_queues() or {}
            listening = [queue["name"] for answer in answers.values() for queue in answer]
            with app.connection_for_read() as connection:
                for name in dict.fromkeys([*QUEUES, *sorted(listening)]):
                    lengths[name] = 0
                    with contextlib.suppress(ChannelError):  # an empty queue is not there
                        found = connection.default_channel.queue_declare(queue=name, passive=True)
                        lengths[name] = found.message_count
    except (OperationalError, OSError) as error:
        raise OutageError(f"the broker does not answer ({error}): see `nightshift status`") from error
    length = GaugeMetricFamily(
        "nightshift_queue_length", "Messages that no worker has taken.", labels=["queue"]
    )
    workers = GaugeMetricFamily("nightshift_queue_workers", "Workers that take from it.", labels=["queue"])
    for name, number in lengths.items():
        length.add_metric([name], number)
        workers.add_metric([name], listening.count(name))
    yield from (length, workers)


def decisions(now: float) -> Iterator[Metric]:
    """How old each pipeline's champion and decisions are at `now`, in seconds since 1970."""
    champion = GaugeMetricFamily(
        "nightshift_champion_age_seconds", "Since it became champion.", labels=["pipeline"]
    )
    version = GaugeMetricFamily(
        "nightshift_champion_version", "Number of the champion's version.", labels=["pipeline"]
    )
    night = GaugeMetricFamily(
        "nightshift_last_night_age_seconds",
        "Since a night registered a version; one that finds nothing new registers none.",
        labels=["pipeline"],
    )
    age = GaugeMetricFamily(
        "nightshift_last_decision_age_seconds", "Since the newest entry of the ledger.", labels=["pipeline"]
    )
    kind = GaugeMetricFamily(
        "nightshift_last_decision", "What that entry decided.", labels=["pipeline", "kind"]
    )
    for name in storage.folders(storage.join(store_root(), "ledger")):
        if (crowned := ledger.champion(name)) is not None:
            champion.add_metric([name], now - _seconds(crowned.at))
            version.add_metric([name], float(crowned.version))
        if (registered := ledger.registered(name)) is not None:
            night.add_metric([name], now - _seconds(registered.at))
        if (newest := ledger.newest(name)) is not None:
            age.add_metric([name], now - _seconds(newest.at))
            kind.add_metric([name, newest.kind], 1)
    yield from (champion, version, night, age, kind)


def _seconds(at: str) -> float:
    return datetime.fromisoformat(at).timestamp()
