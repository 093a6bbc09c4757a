"""The Airflow form, made of the pydantic stage models: one Param per setting, with its range and help text.

The dozen settings that people change stand open; settings marked ADVANCED sit in a collapsed section.
"""

import functools
from typing import Any

from airflow.sdk import Param

from tasks.config import STAGE_SETTINGS, Pipeline, Settings

FORCE = "force"


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
    fields = [
        (stage, field, _flat(field, schema))
        for stage, model in STAGE_SETTINGS.items()
        for field, schema in _schemas(model).items()
    ]
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
def _schemas(model: type[Settings]) -> dict[str, dict[str, Any]]:
    """JSON schema of every field."""
    properties: dict[str, dict[str, Any]] = model.model_json_schema()["properties"]
    return properties


def _flat(field: str, described: dict[str, Any]) -> dict[str, Any]:
    """The schema of one field in the flat shape that the form reads: no `anyOf`, no `$ref`."""
    schema = dict(described)
    schema.pop("default", None)
    schema["title"] = field.replace("_", " ").capitalize()
    if schema.pop("advanced", False):
        schema["section"] = "Advanced"
    if variants := schema.pop("anyOf", None):
        value = next(variant for variant in variants if variant["type"] != "null")
        schema |= {**value, "type": [value["type"], "null"]}
    if schema.get("type") == "array":
        schema["examples"] = schema["items"]["enum"]
    return schema
