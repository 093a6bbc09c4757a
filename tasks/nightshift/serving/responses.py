"""What the endpoint answers, as JSON: predictions, or one sentence and a code to count by."""

from typing import Final

import numpy as np
from pydantic import BaseModel, Field
from starlette.responses import Response

from nightshift.data.images import UnreadableError
from nightshift.serving.batching import Row
from nightshift.serving.loaded_model import LoadedModel
from nightshift.serving.model_watcher import ModelWatcher

# Status of a refused image by its reason; of every other reason it is 422.
STATUS: Final = {
    "empty": 400,
    "too-large": 413,
    "too-much-memory": 413,
    "not-an-image": 415,
    "unsupported": 415,
}
RETRY_SECONDS: Final = 1


class Model(BaseModel):
    """Which model answers."""

    uri: str
    version: str = Field(description="In the registry; empty for a file.")
    sha256: str


class Scored(BaseModel):
    label: str
    probability: float


class Prediction(BaseModel):
    """Of one image: a label, or the error and the reason why there is none."""

    file: str | None = Field(None, description="Its name in the form.")
    label: str | None = None
    probability: float | None = None
    top: list[Scored] | None = Field(None, description="The most probable labels, best first.")
    error: str | None = None
    reason: str | None = None


class Answer(BaseModel):
    model: Model
    predictions: list[Prediction] = Field(description="In the order of the images.")


class Problem(BaseModel):
    """Why there is no answer: one sentence, and a code."""

    error: str
    reason: str


class Health(BaseModel):
    """How the endpoint is; `following` is ok or what is wrong with the alias or its version."""

    status: str = Field(description="serving, or waiting while there is no model.")
    uri: str
    version: str | None = None
    sha256: str | None = None
    runtime: str | None = None
    following: str


class RefusedError(Exception):
    """A request that gets no predictions."""

    def __init__(self, status: int, reason: str, error: str, **headers: str) -> None:
        super().__init__(error)
        self.status, self.reason, self.headers = status, reason, headers

    def response(self) -> Response:
        return as_json(Problem(error=str(self), reason=self.reason), self.status, self.headers)


def as_json(content: BaseModel, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Without the fields that are empty."""
    return Response(content.model_dump_json(exclude_none=True), status, headers, "application/json")


def busy(reason: str, error: str) -> RefusedError:
    """For a request that may well be sent again."""
    return RefusedError(503, reason, error, **{"Retry-After": str(RETRY_SECONDS)})


def refused(unreadable: UnreadableError) -> RefusedError:
    return RefusedError(STATUS.get(unreadable.reason, 422), unreadable.reason, unreadable.detail)


def prediction(
    file: str | None, row: Row | UnreadableError, classes: tuple[str, ...], top: int
) -> Prediction:
    """Of one image, with its `top` most probable labels or with what is wrong with it."""
    if isinstance(row, UnreadableError):
        return Prediction(file=file, error=row.detail, reason=row.reason)
    best = np.argsort(-row.probabilities, kind="stable")[:top]
    return Prediction(
        file=file,
        label=classes[row.label],
        probability=float(row.probabilities[row.label]),
        top=[Scored(label=classes[index], probability=float(row.probabilities[index])) for index in best],
    )


def named(served: LoadedModel) -> Model:
    return Model(uri=served.model.uri, version=served.model.version, sha256=served.model.sha256)


def health(watcher: ModelWatcher) -> Health:
    """How it is now."""
    served = watcher.served
    if served is None:
        return Health(status="waiting", uri=watcher.uri, following=watcher.status)
    return Health(
        status="serving",
        uri=watcher.uri,
        version=served.model.version,
        sha256=served.model.sha256,
        runtime=served.session.runtime,
        following=watcher.status,
    )
