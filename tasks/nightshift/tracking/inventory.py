"""All that MLflow knows, for cleaning up; `tracking.py` and `registry.py` look at one thing at a time.

A deleted run or logged model is one that a person can still restore, so MLflow knows it. Only what was
removed here, with its version, is not wanted back; the logged model is tagged so.
"""

import re
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import mlflow
from mlflow.entities import ViewType
from mlflow.exceptions import RestException

from nightshift.tracking.runs import client, mlflow_errors

REMOVED: Final = "nightshift.removed"  # tag of a logged model: the version that it was
PAGE: Final = 200  # runs at a time, since each comes with all its metrics
MISSING: Final = "RESOURCE_DOES_NOT_EXIST"


class Version(NamedTuple):
    """A registered version; `created` in seconds since 1970, `source` is where its file is."""

    name: str
    version: str
    tags: dict[str, str]
    aliases: tuple[str, ...]
    created: float
    source: str

    @property
    def uri(self) -> str:
        return f"models:/{self.name}/{self.version}"

    @property
    def model_id(self) -> str:
        """Of the logged model that holds its file; empty when the file is somewhere else."""
        found = re.fullmatch(r"models:/(m-[0-9a-f]{32})", self.source)
        return found[1] if found else ""


@mlflow_errors()
def versions() -> list[Version]:
    """All versions of all models."""
    asked, aliases = client(), dict[tuple[str, str], list[str]]()
    for model in _pages(asked.search_registered_models):
        for alias, version in model.aliases.items():  # a search for versions answers without them
            aliases.setdefault((model.name, str(version)), []).append(alias)
    return [
        Version(
            name=found.name,
            version=str(found.version),
            tags=dict(found.tags),
            aliases=tuple(aliases.get((found.name, str(found.version)), ())),
            created=found.creation_timestamp / 1000,
            source=str(found.source),
        )
        for found in _pages(asked.search_model_versions)
    ]


@mlflow_errors()
def experiments() -> set[tuple[str, int]]:
    """Ids of all experiments, deleted ones among them, with the milliseconds of their creation."""
    found = _pages(client().search_experiments, view_type=ViewType.ALL)
    return {(str(each.experiment_id), int(each.creation_time or 0)) for each in found}


@mlflow_errors()
def runs() -> set[str]:
    """Ids of all runs, deleted ones among them."""
    found = _pages(
        client().search_runs, experiment_ids=_experiments(), run_view_type=ViewType.ALL, max_results=PAGE
    )
    return {str(run.info.run_id) for run in found}


@mlflow_errors()
def logged_models() -> set[str]:
    """Ids of all logged models that are not deleted."""
    found = _pages(client().search_logged_models, experiment_ids=_experiments())
    return {str(model.model_id) for model in found}


@mlflow_errors()
def is_given_up(model_id: str) -> bool:
    """Whether a logged model that is not among `logged_models` is unknown, or was removed here."""
    try:
        # The client's own method does not find deleted ones.
        found = client()._tracking_client.store.get_logged_model(model_id, allow_deleted=True)
    except RestException as error:
        if error.error_code != MISSING:
            raise
        return True
    return REMOVED in found.tags


@mlflow_errors()
def has_file(version: Version) -> bool:
    """Whether the version's `model.onnx` is there; True where it is not kept as a logged model."""
    if not version.model_id:
        return True
    try:
        found = client().get_logged_model(version.model_id)
        files = mlflow.artifacts.list_artifacts(artifact_uri=found.artifact_location)
    except RestException as error:
        if error.error_code != MISSING:
            raise
        return False
    return any(file.path.rpartition("/")[2] == "model.onnx" for file in files)


@mlflow_errors()
def remove(name: str, version: str) -> bool:
    """Remove a version and give its logged model up; False when it has an alias by now. Gone is no error.

    The logged model goes first: after a crash in between, the version is still there to be removed.
    """
    asked = client()
    try:
        found = asked.get_model_version(name, version)
        if found.aliases:
            return False
        model_id = Version(name, version, {}, (), 0.0, str(found.source)).model_id
        if model_id and not is_given_up(model_id):
            asked.set_logged_model_tags(model_id, {REMOVED: f"{name}/{version}"})
            asked.delete_logged_model(model_id)
        asked.delete_model_version(name, version)
    except RestException as error:
        if error.error_code != MISSING:
            raise
    return True


def _experiments() -> list[str]:
    return [experiment for experiment, _ in experiments()]


def _pages(search: Any, **arguments: Any) -> Iterator[Any]:
    """Everything that a search of MLflow finds, a page at a time."""
    token = None
    while True:
        page = search(**arguments, page_token=token)
        yield from page
        token = page.token
        if not token:
            return
