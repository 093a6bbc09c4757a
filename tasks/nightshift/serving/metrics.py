"""What Prometheus reads from the endpoint, in a registry of its own."""

from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    ProcessCollector,
    generate_latest,
)

SIZES: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)
SECONDS: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)


class Metrics:
    """One of each endpoint."""

    def __init__(self) -> None:
        self._registry = own = CollectorRegistry()
        ProcessCollector(registry=own)
        self.requests = Counter("nightshift_requests", "Answers to /v1/predict.", ["status"], registry=own)
        self.images = Counter("nightshift_images", "Images that were predicted.", registry=own)
        self.refused = Counter(
            "nightshift_images_refused", "Images and bodies that were refused.", ["reason"], registry=own
        )
        self.batches = Histogram(
            "nightshift_batch_size", "Images per call of the model.", buckets=SIZES, registry=own
        )
        self.seconds = Histogram(
            "nightshift_request_seconds", "From headers to answer.", buckets=SECONDS, registry=own
        )
        self.waiting = Gauge(
            "nightshift_waiting_images", "Images that were let in and are not answered yet.", registry=own
        )
        self.ready = Gauge(
            "nightshift_ready_images", "Those of them that are prepared and wait for the model.", registry=own
        )
        self._model = Info("nightshift_model", "The model that answers.", registry=None)
        self._model_known = False
        self.polls_failed = Counter(
            "nightshift_alias_polls_failed", "Looks at the alias that failed.", registry=own
        )
        self.models_refused = Counter(
            "nightshift_models_refused", "New versions that were not taken.", registry=own
        )

    def answers(self, **facts: str) -> None:
        """This model answers from now on; before the first one there is none in the metrics."""
        self._model.info(facts)
        if not self._model_known:
            self._registry.register(self._model)
            self._model_known = True

    def text(self) -> bytes:
        """All of it in the Prometheus text format."""
        return generate_latest(self._registry)
