"""`nightshift up`, `status`, `logs`, `down`, `env`: the embedded stack from the command line."""

import json
import shlex
import signal
import time
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from nightshift.cli.console import console
from nightshift.errors import InputError
from nightshift.stack import environment, private_files

if TYPE_CHECKING:
    from nightshift.stack.lifecycle import RoleStatus

app = typer.Typer(help="The embedded stack: every server of Nightshift on this machine.")


def _say(line: str) -> None:
    typer.echo(line)


def _welcome(home: Path) -> None:
    from nightshift.stack import lifecycle

    variables = environment.client_environment(home)
    where = variables.get("AWS_ENDPOINT_URL_S3") or variables.get("AWS_ENDPOINT_URL") or "AWS"
    _say("")
    _say(f"Airflow  {variables['NIGHTSHIFT_AIRFLOW_URL']}")
    user, password = variables["NIGHTSHIFT_AIRFLOW_USER"], variables["NIGHTSHIFT_AIRFLOW_PASSWORD"]
    _say(f"         user {user}, password {password} (kept in {home / 'airflow' / 'passwords.json'})")
    _say(f"MLflow   {variables['MLFLOW_TRACKING_URI']}")
    if "mlflow" not in private_files.stored_own(home):
        user, password = variables["MLFLOW_TRACKING_USERNAME"], variables["MLFLOW_TRACKING_PASSWORD"]
        _say(f"         user {user}, password {password} (kept in {home / 'secrets.json'})")
    _say(f"Store    {variables['NIGHTSHIFT_STORE']} at {where}")
    if (address := lifecycle.endpoint(home)) is not None:
        _say(f"Endpoint {address}/docs")
    _say('A shell gets all of it with: eval "$(nightshift env)"')


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _stay(home: Path) -> None:
    """Keep the terminal until Ctrl-C, or until somebody else takes the stack down."""
    from nightshift.stack import lifecycle, supervisor

    try:
        _welcome(home)
        _say("Ctrl-C takes everything down")
        while supervisor.connect(home) is not None:
            time.sleep(2)
    except KeyboardInterrupt:
        _say("taking everything down")
    finally:
        lifecycle.down(home, on_event=_say)


@app.command()
def up(
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Return when everything is healthy.")
    ] = False,
    random_ports: Annotated[
        bool, typer.Option(help="Take free ports at random instead of the usual ones.")
    ] = False,
    without: Annotated[
        str, typer.Option(help="Roles to leave out: s3,mlflow. Your own are used instead.")
    ] = "",
    also: Annotated[str, typer.Option("--with", help="Roles beside the usual ones: serve, metrics.")] = "",
) -> None:
    """Start every server, or what is missing of them, and wait until all are healthy."""
    from nightshift.stack import lifecycle

    home = environment.home()
    left_out, beside = ([name for name in names.split(",") if name] for names in (without, also))
    if not detach:
        # A closed terminal or a `kill` is a Ctrl-C.
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, _interrupt)
    lifecycle.up(home, random_ports=random_ports, without=left_out, also=beside, on_event=_say)
    if detach:
        _welcome(home)
    else:
        _stay(home)


@app.command()
def down() -> None:
    """Stop every server and leave no process behind; the data stays."""
    from nightshift.stack import lifecycle

    home = environment.home()
    ran = lifecycle.down(home, on_event=_say)
    _say(f"the stack in {home} is down" if ran else f"nothing runs in {home}")


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return ""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"


def _table(found: "list[RoleStatus]") -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for title in ("role", "state", "health", "address"):
        table.add_column(title, no_wrap=title != "health", overflow="fold")
    for title in ("pid", "uptime", "memory", "restarts"):
        table.add_column(title, justify="right", no_wrap=True)
    for one in found:
        memory = f"{one.memory / 2**20:.0f} MiB" if one.memory is not None else ""
        health = f"[{'green' if one.healthy else 'red'}]{one.health}[/]"
        pid = str(one.pid or "")
        table.add_row(
            one.name, one.state, health, one.address, pid, _duration(one.uptime), memory, str(one.restarts)
        )
    return table


@app.command()
def status(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Tell how every server is; exit status 1 when one of them is not healthy."""
    from nightshift.stack import lifecycle

    home = environment.home()
    found = lifecycle.status(home)
    if as_json:
        typer.echo(json.dumps([asdict(one) | {"healthy": one.healthy} for one in found], indent=2))
    elif found:
        console().print(_table(found))
    else:
        _say(f"there is no stack in {home}: start one with `nightshift up`")
    if not found or not all(one.healthy for one in found):
        raise typer.Exit(1)


def _chosen_logs(home: Path, name: str | None) -> dict[str, Path]:
    from nightshift.stack import prepare, supervisor

    environment.client_environment(home)
    names = prepare.role_names(home)
    if name is not None and name not in names:
        raise InputError(f"there is no log named {name}: choose one of {', '.join(names)}")
    wanted = [name] if name else names
    paths = {one: supervisor.log_path(home, one) for one in wanted}
    return {one: path for one, path in paths.items() if name or path.exists()}


def _follow(paths: dict[str, Path]) -> None:
    """Print what is added, and go on with the new file when one is rotated away."""
    places = {name: path.stat().st_size for name, path in paths.items()}
    while True:
        for name, path in paths.items():
            size = path.stat().st_size if path.exists() else 0
            with_name = f"{name}: " if len(paths) > 1 else ""
            begin = places[name] if size >= places[name] else 0
            if size > begin:
                with open(path, "rb") as file:
                    file.seek(begin)
                    for line in file.read(size - begin).decode(errors="replace").splitlines():
                        typer.echo(with_name + line)
            places[name] = size
        time.sleep(0.5)


@app.command()
def logs(
    name: Annotated[str | None, typer.Argument(help="A role; all of them by default.")] = None,
    lines: Annotated[int, typer.Option("-n", "--lines", min=0, help="How many of the last lines.")] = 30,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on printing what is added.")] = False,
) -> None:
    """Print the end of the servers' logs."""
    from nightshift.stack import supervisor

    paths = _chosen_logs(environment.home(), name)
    for role, path in paths.items():
        if len(paths) > 1:
            typer.echo(f"==> {role} <==")
        for line in supervisor.last_lines(path, lines):
            typer.echo(line)
    if follow:
        try:
            _follow(paths)
        except KeyboardInterrupt:
            return


@app.command()
def env() -> None:
    """Print the variables that clients of the stack need, for a shell to read."""
    for variable, value in environment.client_environment(environment.home()).items():
        typer.echo(f"export {variable}={shlex.quote(value)}")
