"""`nightshift serve`: a model behind HTTP, in this process."""

import os
import signal
import socket
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from nightshift.cli.predict import Model

if TYPE_CHECKING:
    from nightshift.serving.loaded_model import Options
    from nightshift.serving.metrics import Metrics
    from nightshift.serving.model_watcher import ModelWatcher

app = typer.Typer()
RuntimeName = Literal[
    "auto", "onnxruntime", "onnxruntime-exact", "onnxruntime-cuda", "openvino", "openvino-f32"
]


@app.command()
def serve(
    model: Model,
    host: Annotated[str, typer.Option(help="Address to listen at; there is no login.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8500,
    wait: Annotated[bool, typer.Option(help="Start without a champion; answer 503 until then.")] = False,
    queue: Annotated[int, typer.Option(min=1, help="Images that may wait; more are answered 503.")] = 256,
    max_batch: Annotated[int, typer.Option(min=1, help="Images per call of the model.")] = 64,
    max_megabytes: Annotated[int, typer.Option(min=1, max=1024, help="MiB of one request.")] = 16,
    max_pixels: Annotated[int, typer.Option(min=64, help="Pixels of one image.")] = 50_000_000,
    decode_megabytes: Annotated[int, typer.Option(min=64, help="MiB of memory to decode one image.")] = 512,
    queue_megabytes: Annotated[int, typer.Option(min=1, help="MiB of requests that may wait.")] = 256,
    poll_seconds: Annotated[float, typer.Option(min=0.1, help="Between two looks at the alias.")] = 10,
    runtime: Annotated[RuntimeName, typer.Option(help="auto finds the fastest that agrees.")] = "auto",
) -> None:
    """Answer images over HTTP: POST /v1/predict, /health, /ready, /metrics, /docs.

    An alias is followed: a new champion takes over between two batches, once it is verified and warm.
    """
    from nightshift.cli.connection import connect_for
    from nightshift.serving.loaded_model import Options
    from nightshift.serving.metrics import Metrics
    from nightshift.serving.model_watcher import ModelWatcher

    connect_for(model)
    # A silent registry is asked again at the next look; until then it is to be known as silent.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    limits = (queue, max_batch, max_megabytes, max_pixels, decode_megabytes, queue_megabytes)
    options = Options(*limits, poll_seconds, runtime)
    metrics = Metrics()
    watcher = ModelWatcher(model, options, metrics)
    watcher.open(wait=wait)
    _answer(watcher, options, metrics, _listener(host, port))


def _listener(host: str, port: int) -> socket.socket:
    from nightshift.errors import InputError

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        reason = (error.strerror or str(error)).partition(" (while")[0]  # Python says the address again
        raise InputError(
            f"cannot listen at {host} port {port} ({reason}); choose another --port, or 0 for a free one"
        ) from error


def _answer(watcher: "ModelWatcher", options: "Options", metrics: "Metrics", listener: socket.socket) -> None:
    """Until SIGTERM or Ctrl-C; then nothing new is accepted, and what is under way is finished."""
    from nightshift.serving.app import create
    from nightshift.serving.events import say
    from nightshift.serving.http import server

    # Once it has ended in order, uvicorn raises the signal again, which would make that a death by signal.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    host, port = listener.getsockname()[:2]
    say("listening", address=f"http://{f'[{host}]' if ':' in host else host}:{port}")
    server(create(watcher, options, metrics), options.queue).run(sockets=[listener])
    say("stopped")
