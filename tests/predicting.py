"""A pipeline whose champion tells bright images from dark ones, and batches for it to predict."""

import json
from typing import Any

import cv2
import numpy as np
import pytest
from mlflow_server import Door
from small_models import brightness

from nightshift import storage
from nightshift.config import Pipeline, PreprocessSettings, store_root
from nightshift.records import PredictionPlan
from nightshift.records.specs import LookSpec, PredictSpec, SummariseSpec
from nightshift.tracking import registry, runs
from nightshift.workflows.predict.plan import look
from nightshift.workflows.predict.predict import predict
from nightshift.workflows.predict.summarize import Summary, summarise

PREPROCESS = PreprocessSettings(image_size=8, resize="stretch")


STORED: dict[int, Any] = {}  # the version with the file that others share, by the server's port


class Lights:
    """The pipeline `lights` of one test, its registry, and its store."""

    def __init__(self, name: str, server: Door) -> None:
        self.server = server
        self.pipeline = Pipeline(name=name, settle_minutes=0)
        self.runs = 0

    def register(self, dataset: str = "", champion: bool = True) -> str:
        """Register the model once more, as a night does, and make it champion."""
        self.runs += 1
        run = runs.open_run(self.pipeline.name, f"night {self.runs}", params={})
        tags = {
            registry.PREPROCESS: PREPROCESS.model_dump_json(),
            registry.DATASET: dataset,
        }
        name = self.pipeline.name
        version = self._register(run, name, tags)
        if champion:
            registry.set_alias(name, registry.CHAMPION, version)
        return version

    def _register(self, run: str, name: str, tags: dict[str, str]) -> str:
        """As `registry.register_version` does, but for storing the same file again, which takes a second."""
        client, server = runs.client(), self.server.behind
        if server not in STORED:
            version = registry.register_version(
                run, name, brightness(), classes=2, shape=(8, 8, 3), tags=tags
            )
            STORED[server] = client.get_model_version(name, version)
            return version
        if not client.search_registered_models(f"name = '{name}'"):
            client.create_registered_model(name)
        found = STORED[server]
        model_id = found.source.removeprefix("models:/")
        bound = tags | {registry.SHA256: found.tags[registry.SHA256]}
        made = client.create_model_version(name, found.source, found.run_id, bound, model_id=model_id)
        return str(made.version)

    def batch(self, name: str, greys: list[int]) -> None:
        """A batch of uniform images without labels."""
        for number, grey in enumerate(greys):
            self.file(name, f"{number:03d}.png", png(grey))

    def file(self, batch: str, key: str, data: bytes) -> None:
        storage.write(storage.join(store_root(), "unlabelled", self.pipeline.name, batch, key), data)

    def look(self, **asked: object) -> PredictionPlan:
        self.runs += 1
        return look(LookSpec.model_validate({"pipeline": self.pipeline, "run": f"run {self.runs}", **asked}))

    def run(self, **asked: object) -> Summary | None:
        """A whole run, as the DAG does it; None when there was nothing to do."""
        forecast = self.look(**asked)
        for message in forecast.messages:
            predict(PredictSpec(forecast=forecast, message=message))
        return summarise(SummariseSpec(forecast=forecast)) if forecast.messages else None

    def keys(self, version: str) -> list[str]:
        """What is stored of a version's predictions."""
        root = storage.join(store_root(), "predictions", self.pipeline.name, version)
        return [stored.key for stored in storage.listing(root)]


def png(grey: int) -> bytes:
    return cv2.imencode(".png", np.full((9, 7), grey, np.uint8))[1].tobytes()


@pytest.fixture
def lights(registering: Door, request: pytest.FixtureRequest) -> Lights:
    """A pipeline of this test's own, without a champion yet."""
    slug = request.node.name.lower().replace("_", "-").partition("[")[0]
    return Lights(f"l{abs(hash(request.node.nodeid)) % 10**6}-{slug}"[:40].strip("-"), registering)


def lines(uri: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in storage.read(uri).splitlines()]
