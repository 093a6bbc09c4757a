"""The endpoint's web application: POST /v1/predict, /health, /ready, /metrics, /docs."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Annotated, Any, Final

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from nightshift.data.images import UnreadableError
from nightshift.serving import responses, uploads
from nightshift.serving.batching import Batcher, FailedError, QueueFullError, Row, ShuttingDownError
from nightshift.serving.docs_page import documentation
from nightshift.serving.loaded_model import LoadedModel, Options
from nightshift.serving.metrics import Metrics
from nightshift.serving.model_watcher import ModelWatcher
from nightshift.serving.responses import Answer, Health, Problem, RefusedError
from nightshift.serving.uploads import Upload, Uploads

DESCRIPTION: Final = "Classifies images with a model that Nightshift made. Every refusal is one sentence."
BINARY: Final = {"schema": {"type": "string", "format": "binary", "description": "One image."}}
FORM: Final = {
    "schema": {
        "type": "object",
        "description": "Many images, one in each part.",
        "additionalProperties": {"type": "string", "format": "binary"},
    }
}
BODY: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": dict.fromkeys(uploads.KINDS, BINARY) | {uploads.FORM: FORM},
    }
}
PROBLEMS: Final = {
    400: "No image, or a form that cannot be read.",
    408: "The body did not arrive in time.",
    413: "Too many bytes, pixels or files.",
    415: "No JPEG, PNG or WebP.",
    422: "A damaged image, or a wrong parameter.",
    500: "The model failed.",
    503: "Too many images wait, there is no model yet, or the endpoint stops; see Retry-After.",
}


class Endpoint:
    """What the requests share: the model of the moment, the line through it, and what is counted."""

    def __init__(self, watcher: ModelWatcher, options: Options, metrics: Metrics) -> None:
        self.watcher, self.options, self.metrics = watcher, options, metrics
        self.batcher = Batcher(options, metrics, watcher.recent)

    async def answer(self, request: Request, top: int) -> Response:
        """Predictions for the images of a request. Raises RefusedError."""
        try:
            with self.batcher.admit(1) as take:  # from its first byte on, so that bodies take bounded memory
                self._served()
                given = await self._uploads(request, take)
                with self.batcher.admit(len(given.files) - 1):
                    served = self._served()
                    rows = await self._rows(served, given.files)
        except QueueFullError as error:
            most = f"{self.options.queue} images or {self.options.queue_bytes >> 20} MiB"
            waiting = f"as much as may wait does already ({most}); send it again a little later"
            raise responses.busy("full", waiting) from error
        except ShuttingDownError as error:
            raise responses.busy("stopping", "the endpoint stops; send it to another one") from error
        if not given.form and isinstance(rows[0], UnreadableError):
            raise responses.refused(rows[0])
        classes = served.model.classes
        found = [
            responses.prediction(upload.name, row, classes, top)
            for upload, row in zip(given.files, rows, strict=True)
        ]
        return responses.as_json(Answer(model=responses.named(served), predictions=found))

    async def _uploads(self, request: Request, take: Callable[[int], None]) -> Uploads:
        megabytes, most = self.options.max_megabytes, self.options.queue
        try:
            return await uploads.uploads(request, take, megabytes=megabytes, most=most)
        except RefusedError as refusal:
            self.metrics.refused.labels(refusal.reason).inc()
            raise

    def _served(self) -> LoadedModel:
        served = self.watcher.served
        if served is None:
            raise responses.busy("no-model", "there is no model yet; see /health for what it waits for")
        return served

    async def _rows(self, served: LoadedModel, files: list[Upload]) -> list[Row | UnreadableError]:
        """What the model says of each file, or why it says nothing. Raises RefusedError when it fails."""
        rows = await asyncio.gather(*(self._row(served, file.data) for file in files))
        for row in rows:
            if isinstance(row, UnreadableError):
                self.metrics.refused.labels(row.reason).inc()
        return rows

    async def _row(self, served: LoadedModel, data: bytes) -> Row | UnreadableError:
        try:
            uploads.check_kind(data, served.settings)
            return await self.batcher.ask(served, data)
        except UnreadableError as unreadable:
            return unreadable
        except FailedError as error:
            raise RefusedError(500, "model-failed", "the model failed; see the endpoint's log") from error

    async def counted(self, request: Request, top: int) -> Response:
        """The answer to a request, whatever it is, with its status and time counted."""
        started = time.perf_counter()
        try:
            response = await self.answer(request, top)
        except RefusedError as refusal:
            response = refusal.response()
        self.metrics.requests.labels(str(response.status_code)).inc()
        self.metrics.seconds.observe(time.perf_counter() - started)
        return response


def create(watcher: ModelWatcher, options: Options, metrics: Metrics) -> FastAPI:
    """The application around a model that may be there already, or come later."""
    endpoint = Endpoint(watcher, options, metrics)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        endpoint.batcher.start()
        watcher.start()
        yield
        endpoint.batcher.stop()
        watcher.stop()

    app = FastAPI(
        title="Nightshift",
        description=DESCRIPTION,
        version=version("nightshift-ml"),
        docs_url=None,  # FastAPI's own page loads its scripts from elsewhere
        redoc_url=None,
        lifespan=lifespan,
    )
    app.add_exception_handler(HTTPException, _wrong_address)
    app.add_exception_handler(RequestValidationError, _wrong_parameter)
    _predictions(app, endpoint)
    _pages(app, endpoint)
    app.openapi()  # without what follows, which would be each page a second time
    for route in app.routes:
        if isinstance(route, Route | APIRoute) and route.methods and "GET" in route.methods:
            route.methods.add("HEAD")  # load balancers and `curl -I` ask for no more
    return app


def _predictions(app: FastAPI, endpoint: Endpoint) -> None:
    problems: dict[int | str, dict[str, Any]] = {
        status: {"model": Problem, "description": words} for status, words in PROBLEMS.items()
    }

    @app.post("/v1/predict", response_model=Answer, responses=problems, openapi_extra=BODY)
    async def predict(
        request: Request, top: Annotated[int, Query(ge=1, description="How many labels of each image.")] = 1
    ) -> Response:
        """Classify one image, or many of a form. In a form, a bad image is one item with an error."""
        return await endpoint.counted(request, top)


def _pages(app: FastAPI, endpoint: Endpoint) -> None:
    @app.get("/health", response_model=Health)
    async def health() -> Response:
        """How it is: 200 as long as the process lives."""
        return responses.as_json(responses.health(endpoint.watcher))

    @app.get("/ready", response_model=Health, responses={503: {"model": Health, "description": "No model."}})
    async def ready() -> Response:
        """Whether requests may come: 503 until a model serves."""
        found = endpoint.watcher.served is not None and not endpoint.batcher.stopping
        return responses.as_json(responses.health(endpoint.watcher), 200 if found else 503)

    @app.get("/metrics", response_class=Response)
    async def metrics() -> Response:
        """For Prometheus."""
        return Response(endpoint.metrics.text(), media_type=CONTENT_TYPE_LATEST)

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return HTMLResponse(documentation(app.openapi()))


async def _wrong_address(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    sentence = f"{request.method} {request.url.path} is not answered ({error.detail}); see /docs"
    return RefusedError(error.status_code, "address", sentence, **dict(error.headers or {})).response()


async def _wrong_parameter(request: Request, error: Exception) -> Response:
    if not isinstance(error, RequestValidationError):
        raise error
    first = error.errors()[0]
    sentence = f"parameter {first['loc'][-1]} got {first['input']!r}: {first['msg']}; see /docs"
    return RefusedError(422, "parameter", sentence).response()
