"""`nightshift metrics`: what there is to watch, for Prometheus."""

import os
from typing import Annotated

import typer

app = typer.Typer()


@app.command()
def metrics(
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Answer HTTP there instead; 0 takes a free one.")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen at; there is no login.")] = "127.0.0.1",
) -> None:
    """Print what Prometheus reads: queues and their workers, the ages of champions and of decisions."""
    from nightshift.cli.connection import connect

    connect()
    os.environ.setdefault("AWS_MAX_ATTEMPTS", "2")  # the answer is wanted now
    from prometheus_client import generate_latest

    from nightshift.stack.metrics import registry

    found = registry()
    if port is None:
        print(generate_latest(found).decode(), end="")
        return
    from prometheus_client import start_http_server

    from nightshift.errors import InputError

    try:
        server, thread = start_http_server(port, host, found)
    except OSError as error:
        raise InputError(
            f"cannot listen at {host} port {port} ({error.strerror or error}); choose another --port"
        ) from error
    print(f"metrics at http://{host}:{server.server_port}/metrics", flush=True)
    try:
        thread.join()
    except KeyboardInterrupt:
        server.shutdown()
