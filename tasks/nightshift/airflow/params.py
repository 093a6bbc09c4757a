"""The Airflow forms, made of the pydantic stage models: one Param per setting, with its range and help text.

The dozen settings that people change stand open; settings marked ADVANCED sit in a collapsed section.
"""

import functools
from typing import Any

from airflow.sdk import Param

from nightshift.config import STAGE_SETTINGS, Pipeline, Settings
from nightshift.records.specs import MOST_TRIALS

FORCE = "force"
OVER, TRIALS = "over", "trials"


def night_params(pipeline: Pipeline) -> dict[str, Param]:
    """Params of `retrain_<name>` with the pipeline file's values as defaults."""
    params = {
        FORCE: Param(
            False,
            type="boolean",
            title="Force",
            description="Run everything again, even when this data and these settings were decided before.",
        )
    }
    return params | _settings(pipeline, tuple(STAGE_SETTINGS))


def sweep_params(pipeline: Pipeline) -> dict[str, Param]:
    """Params of `sweep_<name>`: what to try, and the settings that all trials have in common."""
    rate = pipeline.train.learning_rate
    params = {
        OVER: Param(
            [f"train.learning_rate=log:{rate / 10:g}..{min(rate * 10, 10):g}"],
            type="array",
            items={"type": "string"},
            title="Over",
            description="Values to try, one setting a line: a range train.dropout=0..0.5, log:0.01..1 on a "
            "logarithmic scale, 3..7:2 in steps, or choices as train.batch_size=64,128.",
        ),
        TRIALS: Param(
            20,
            type="integer",
            minimum=1,
            maximum=MOST_TRIALS,
            title="Trials",
            description="Trainings, each with other values; those that are clearly worse end early.",
        ),
    }
    return params | _settings(pipeline, ("train",))


def _settings(pipeline: Pipeline, stages: tuple[str, ...]) -> dict[str, Param]:
    """One Param for each setting of these stages."""
    fields = [
        (stage, field, flat(field, schema))
        for stage in stages
        for field, schema in schemas(STAGE_SETTINGS[stage]).items()
    ]
    params = {}
    # Sections show in the order of their first field, so the open ones come first.
    for stage, field, schema in sorted(fields, key=lambda item: "section" in item[2]):
        value = getattr(getattr(pipeline, stage), field)
        default = list(value) if isinstance(value, tuple) else value
        params[f"{stage}.{field}"] = Param(default, **schema)
    return params


def chosen(params: dict[str, Any]) -> dict[str, Any]:
    """The settings among a run's params, as `{"train.epochs": 3, ...}`."""
    return {key: value for key, value in params.items() if "." in key}


@functools.cache  # one for all pipelines: schemas are the slow part of parsing this folder
def schemas(model: type[Settings]) -> dict[str, dict[str, Any]]:
    """JSON schema of every field."""
    properties: dict[str, dict[str, Any]] = model.model_json_schema()["properties"]
    return properties


def flat(field: str, described: dict[str, Any]) -> dict[str, Any]:
    """The schema of one field in the flat shape that the form reads: no `anyOf`, no `$ref`."""
    schema = dict(described)
    schema.pop("default", None)
    schema["title"] = field.replace("_", " ").capitalize()
    if schema.pop("advanced", False):
        schema["section"] = "Advanced"
    if variants := schema.pop("anyOf", None):
        value = next(variant for variant in variants if variant["type"] != "null")
        schema |= {**value, "type": [value["type"], "null"]}
    if schema.get("type") == "array" and "enum" in schema["items"]:  # without, the form takes lines of text
        schema["examples"] = schema["items"]["enum"]
    return schema
