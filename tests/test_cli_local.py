"""A night without Airflow hands its stages what the plan found."""

import pytest

from tasks.cli import local
from tasks.records import Artifact, Start
from tasks.specs import TrainSpec


def test_training_starts_from_the_weights_of_the_plan(ml_night):
    weights = Artifact(uri="s3://nightshift/model.safetensors", sha256="a" * 64, size=3)
    start = Start(name="models:/tiny/3", weights=weights)
    asked = []

    def stage(name, spec):
        asked.append(spec)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        local._model(ml_night.plan.model_copy(update={"start": start}), {"dataset_uri": "file:///d"}, stage)
    assert isinstance(asked[0], TrainSpec)
    assert asked[0].start == start
