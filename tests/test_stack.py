"""The embedded stack, with real servers: mostly the three data stores, which start in a second."""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import boto3
import httpx
import psutil
import psycopg2
import pytest
from botocore.exceptions import ClientError
from guardian import lives
from waiting import patience, wait_for

from nightshift import storage
from nightshift.errors import InputError, NightshiftError
from nightshift.hardware import processor
from nightshift.security import signing
from nightshift.stack import (
    airflow_api,
    environment,
    health,
    lifecycle,
    ports,
    prepare,
    private_files,
    processes,
)
from nightshift.stack import supervisor as supervise
from nightshift.stack.environment import Site
from nightshift.stack.private_files import Ports
from nightshift.stack.processes import Session
from nightshift.stack.roles import Health, Role, build_roles, postgres_folder
from nightshift.stack.supervisor import Supervisor
from nightshift.tracking import runs

STORES = ("postgres", "valkey", "s3")
PATIENTLY: dict[str, Any] = {"timeout": patience(30), "trust_env": False}


def site_of(home: Path) -> Site:
    site = prepare.find_site(home)
    assert site is not None
    return site


def secrets_of(home: Path) -> dict[str, str]:
    """All that may show nowhere, the first line of the private key among it."""
    site = site_of(home)
    return asdict(site.secrets) | {"signing key": site.signing_key.read_text().splitlines()[1]}


def session_of(home: Path) -> Session:
    session = processes.load(home)
    assert session is not None
    return session


def role_of(home: Path, name: str) -> Role:
    return next(role for role in build_roles(site_of(home), {}) if role.name == name)


def database(home: Path, statement: str) -> list[tuple[object, ...]]:
    site = site_of(home)
    url = site.database_url("mlflow").replace("+psycopg2", "")
    connection = psycopg2.connect(url)
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute(statement)
            return list(cursor.fetchall()) if cursor.description else []
    finally:
        connection.close()


def wait_until_dead(found: list[psutil.Process]) -> None:
    wait_for(
        lambda: not any(map(lives, found)), lambda: f"the end of {[one for one in found if lives(one)]}", 5
    )


def test_a_port_in_use_is_replaced_and_the_others_kept() -> None:
    wanted = ports.choose_ports(None, random_ports=True)
    with socket.create_server(("127.0.0.1", wanted.mlflow)):
        chosen = ports.choose_ports(wanted, random_ports=False)
    assert chosen.mlflow != wanted.mlflow
    assert chosen == Ports(**{**asdict(wanted), "mlflow": chosen.mlflow})


def test_a_port_in_use_on_every_interface_counts_as_taken() -> None:
    wanted = ports.choose_ports(None, random_ports=True)
    with socket.create_server(("0.0.0.0", wanted.s3)):  # noqa: S104
        assert ports.choose_ports(wanted, random_ports=False).s3 != wanted.s3


def test_the_usual_ports_are_wanted_first_and_random_ones_on_request() -> None:
    assert len(set(asdict(ports.choose_ports(None, random_ports=True)).values())) == 7
    usual = {"airflow": 8080, "mlflow": 5000, "s3": 9000, "postgres": 5433, "valkey": 6380, "serve": 8500}
    usual["metrics"] = 8501
    assert asdict(Ports()) == usual


def test_workers_get_no_secret_of_the_servers(tmp_path: Path) -> None:
    site = Site(tmp_path, Ports(), private_files.ensure_secrets(tmp_path), tmp_path, cores=4)
    parent = {
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": "postgresql://elsewhere",
        "AIRFLOW__CORE__PARALLELISM": "7",
    }
    workers = [role for role in build_roles(site, parent) if role.group == "workers"]
    assert {role.name for role in workers} == {"worker", "worker-train"}
    for role in workers:
        values = " ".join(role.environment.values())
        hidden = asdict(site.secrets) | {"database": "postgresql"}
        assert {name for name, value in hidden.items() if value in values} == {
            "airflow_password",
            "mlflow_password",
            "s3_key",
            "s3_secret",
            "valkey_password",
        }
        assert role.environment["AIRFLOW__CORE__PARALLELISM"] == "7"


def test_the_callers_airflow_settings_win(tmp_path: Path) -> None:
    site = Site(tmp_path, Ports(), private_files.ensure_secrets(tmp_path), tmp_path, cores=4)
    lowered = {"AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "20"}
    lower = {role.name for role in build_roles(site, lowered) if role.environment.items() >= lowered.items()}
    assert lower >= {"scheduler", "worker", "dag-processor"}


def test_metrics_of_airflow_are_switched_on_in_all_that_is_airflow(tmp_path: Path) -> None:
    site = Site(tmp_path, Ports(), private_files.ensure_secrets(tmp_path), tmp_path, cores=4)
    wanted = {
        "AIRFLOW__METRICS__STATSD_ON": "True",
        "AIRFLOW__METRICS__OTEL_ON": "True",
        "AIRFLOW__LOGGING__JSON_LOGS": "True",
    }
    roles = build_roles(site, wanted)
    told = {role.name for role in roles if role.environment.items() >= wanted.items()}
    assert told == {role.name for role in roles if "airflow" in role.command} | {"janitor"}
    assert told >= {"api-server", "scheduler", "dag-processor", "triggerer", "worker", "worker-train"}


def test_threads_times_slots_stay_within_the_cores(tmp_path: Path) -> None:
    site = Site(tmp_path, Ports(), private_files.ensure_secrets(tmp_path), tmp_path, cores=8)
    threads = {role.name: role.environment.get("NIGHTSHIFT_THREADS") for role in build_roles(site, {})}
    assert (threads["worker"], threads["worker-train"]) == ("1", "8")


@pytest.mark.parametrize(("asked", "least"), [("1", 1), ("", None), ("9999", None)])
def test_a_cap_on_threads_caps_the_cores_of_a_stack(
    monkeypatch: pytest.MonkeyPatch, asked: str, least: int | None
) -> None:
    monkeypatch.setenv("NIGHTSHIFT_THREADS", asked)
    assert prepare.cores() == (least or processor.cores())


def test_the_janitor_reaches_the_database_and_starts_after_the_others(tmp_path: Path) -> None:
    site = Site(tmp_path, Ports(), private_files.ensure_secrets(tmp_path), tmp_path, cores=2)
    roles = {role.name: role for role in build_roles(site, {"NIGHTSHIFT_KEEP_DAYS": "30"})}
    found = roles["janitor"]
    assert found.environment == {**roles["scheduler"].environment, "NIGHTSHIFT_KEEP_DAYS": "30"}
    assert "postgresql" in found.environment["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"]
    assert "api-server" in found.after
    with pytest.raises(InputError, match="NIGHTSHIFT_KEEP_DAYS is '6'; it must be a whole number of days"):
        build_roles(site, {"NIGHTSHIFT_KEEP_DAYS": "6"})


def test_every_role_waits_only_for_roles_that_exist(tmp_path: Path) -> None:
    site = Site(tmp_path, Ports(), private_files.ensure_secrets(tmp_path), tmp_path, cores=2)
    roles = build_roles(site, {})
    names = {role.name for role in roles}
    assert all(set(role.after) <= names for role in roles)
    # A task that is queued before the API server answers would fail.
    assert all(
        "api-server" in role.after for role in roles if role.group == "workers" or role.name == "scheduler"
    )


def test_the_endpoint_starts_on_request_only_and_serves_what_the_caller_names(tmp_path: Path) -> None:
    site = Site(tmp_path, Ports(serve=8600), private_files.ensure_secrets(tmp_path), tmp_path, cores=4)
    roles = build_roles(site, {"NIGHTSHIFT_SERVE": "models:/photos@champion"})
    usual = {role.name for role in prepare.choose(roles, (), ())}
    assert usual == {role.name for role in roles} - {"serve", "metrics"}
    assert {role.name for role in prepare.choose(roles, (), ("serve",), ("serve",))} == usual
    (serve,) = [role for role in prepare.choose(roles, (), (), ("serve",)) if role.name not in usual]
    assert serve.command[2:6] == ("nightshift.cli", "serve", "models:/photos@champion", "--wait")
    assert (serve.health.target, serve.address) == ("http://127.0.0.1:8600/health", "127.0.0.1:8600")
    assert signing.PUBLIC_KEYS in serve.environment
    assert signing.SIGNING_KEY not in serve.environment
    (unnamed,) = [role for role in build_roles(site, {}) if role.name == "serve"]
    assert "models:/digits@champion" in unnamed.command


def test_secrets_are_made_once_and_only_for_their_owner(tmp_path: Path) -> None:
    first = private_files.ensure_secrets(tmp_path)
    assert stat.S_IMODE((tmp_path / "secrets.json").stat().st_mode) == 0o600
    assert private_files.ensure_secrets(tmp_path) == first
    assert all(len(value) >= 16 for value in asdict(first).values())


def test_a_secret_that_the_file_lacks_is_made_once_and_the_others_stay(tmp_path: Path) -> None:
    first = asdict(private_files.ensure_secrets(tmp_path))
    older = {name: value for name, value in first.items() if not name.startswith("mlflow_")}
    private_files.write_private(tmp_path / "secrets.json", json.dumps(older))
    found = private_files.stored_secrets(tmp_path)
    assert found is not None
    assert asdict(found).items() >= older.items()
    assert len(found.mlflow_password) >= 16
    assert private_files.ensure_secrets(tmp_path) == found


def test_mlflow_gets_no_password_of_another_server(tmp_path: Path) -> None:
    site = Site(tmp_path, Ports(), private_files.ensure_secrets(tmp_path), tmp_path, cores=4)
    (role,) = [role for role in build_roles(site, {}) if role.name == "mlflow"]
    values = " ".join(role.environment.values())
    assert {name for name, value in asdict(site.secrets).items() if value in values} == {
        *("mlflow_secret_key", "postgres_password", "s3_key", "s3_secret")
    }


def test_the_key_pair_is_made_once_and_only_for_its_owner(home: Path) -> None:
    made = prepare.make_site(prepare.make_home(home), running=False, random_ports=True)
    before = made.signing_key.read_bytes()
    assert stat.S_IMODE(made.signing_key.stat().st_mode) == 0o600
    assert stat.S_IMODE(made.signing_key.parent.stat().st_mode) == 0o700
    again = prepare.make_site(home, running=False, random_ports=True)
    assert again.signing_key.read_bytes() == before


def test_clients_trust_the_stacks_key_and_only_the_worker_that_registers_has_it(tmp_path: Path) -> None:
    site = Site(tmp_path, Ports(), private_files.ensure_secrets(tmp_path), tmp_path, cores=4)
    assert signing.SIGNING_KEY not in environment.client_variables(site)
    public = environment.client_variables(site)[signing.PUBLIC_KEYS]
    assert Path(public) == site.signing_key.with_name(signing.PUBLIC_NAME)
    roles = {role.name: role.environment for role in build_roles(site, {})}
    assert {name for name, variables in roles.items() if signing.SIGNING_KEY in variables} == {"worker"}
    assert {roles[name][signing.PUBLIC_KEYS] for name in ("worker", "worker-train")} == {public}


def test_the_callers_own_keys_stay_with_the_caller() -> None:
    own = {signing.SIGNING_KEY: "/k", signing.PASSPHRASE_FILE: "/p", "NIGHTSHIFT_EXPORT_KEY": "00"}
    assert not own.keys() & environment.inherited(own | {"PATH": "/bin"}).keys()


def test_airflow_s_connections_reach_it_and_its_settings_do_not() -> None:
    given = {
        "AIRFLOW_CONN_HOOK": "http://h",
        "AIRFLOW__CORE__EXECUTOR": "x",
        "NIGHTSHIFT_NOTIFY": "http:hook",
    }
    assert environment.inherited(given).keys() & given.keys() == {"AIRFLOW_CONN_HOOK", "NIGHTSHIFT_NOTIFY"}


def test_a_folder_without_a_stack_has_no_variables(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is no stack in .*nightshift up"):
        environment.client_environment(tmp_path)


def test_a_missing_pipelines_folder_is_one_sentence(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIGHTSHIFT_DAGS", str(home / "nowhere"))
    with pytest.raises(InputError, match=r"NIGHTSHIFT_DAGS is .*/nowhere, which is not a folder"):
        lifecycle.up(home, only=STORES, random_ports=True)
    assert supervise.connect(home) is None


def test_an_unknown_role_is_one_sentence(home: Path) -> None:
    with pytest.raises(
        InputError, match="there is no role redis in the stack: the roles are postgres, valkey"
    ):
        lifecycle.up(home, only=["redis"], random_ports=True)


def test_stores_start_and_start_only_once(home: Path) -> None:
    said: list[str] = []
    lifecycle.up(home, only=STORES, random_ports=True, on_event=said.append)
    assert {line.split()[0] for line in said} == set(STORES)
    before = {one.name: one.pid for one in lifecycle.status(home)}
    lifecycle.up(home, only=STORES, on_event=said.append)
    assert said[-1] == "everything is up already"
    found = lifecycle.status(home)
    assert {one.name: one.pid for one in found} == before
    assert all(one.healthy and one.memory and one.restarts == 0 for one in found)


def test_no_store_answers_without_its_password(home: Path) -> None:
    lifecycle.up(home, only=STORES, random_ports=True)
    site = site_of(home)
    with socket.create_connection(("127.0.0.1", site.ports.valkey), timeout=patience(5)) as connection:
        connection.sendall(b"PING\r\nAUTH guess\r\n")
        answer = b""
        while answer.count(b"\r\n") < 2 and (more := connection.recv(256)):
            answer += more
    assert answer.startswith(b"-NOAUTH")
    assert b"-WRONGPASS" in answer
    right = site.database_url("mlflow").replace("+psycopg2", "")
    for wrong in (
        right.replace(site.secrets.postgres_password, "guess"),
        right.replace("nightshift:", "postgres:"),
    ):
        with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
            psycopg2.connect(wrong)
    assert httpx.get(f"{site.s3_url}/nightshift", **PATIENTLY).status_code in (400, 403)
    guess = {"aws_access_key_id": site.secrets.s3_key, "aws_secret_access_key": "guess"}
    client = boto3.Session().client("s3", endpoint_url=site.s3_url, region_name="us-east-1", **guess)
    with pytest.raises(ClientError, match="SignatureDoesNotMatch"):
        client.list_objects_v2(Bucket="nightshift")


def test_a_killed_role_comes_back(home: Path) -> None:
    lifecycle.up(home, only=["valkey"], random_ports=True)
    (first,) = lifecycle.status(home)
    assert first.pid is not None
    os.kill(first.pid, signal.SIGKILL)

    def back() -> bool:
        (now,) = lifecycle.status(home)
        return now.healthy and now.pid != first.pid

    wait_for(back, "the server to be back", 15)
    (now,) = lifecycle.status(home)
    assert now.restarts == 1


def test_a_killed_servers_children_end_before_it_is_started_again(home: Path) -> None:
    prepare.make_home(home)
    command = ("/bin/sh", "-c", "sleep 1000 & wait")
    role = Role("pair", command, Health("finished"), environment={"ODD": '100% "it\'s" $HOME'})
    supervisor = supervise.launch(supervise.write_configuration([role], home), home, os.environ)
    try:
        supervisor.start("pair")
        first = wait_for_child(supervisor)
        os.kill(first.ppid(), signal.SIGKILL)
        wait_until_dead([first])
        second = wait_for_child(supervisor)
        assert second.environ()["ODD"] == '100% "it\'s" $HOME'
        assert supervise.restarts(home) == {"pair": 1}
    finally:
        lifecycle.down(home)


def test_the_supervisors_log_is_rotated_and_starts_are_counted_across(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervise, "LOG_SIZE", 1000)
    prepare.make_home(home)
    role = Role("short", ("/bin/true",), Health("finished"), group="once")
    supervisor = supervise.launch(supervise.write_configuration([role], home), home, os.environ)
    try:
        for count in range(8):
            supervisor.start("short")
            wait_for(lambda count=count: supervise.restarts(home).get("short") == count, "its start", 10)
            wait_for(lambda: supervisor.programs()["short"].state == "EXITED", "its end", 10)
        logs = sorted(path.name for path in (home / "run").glob("supervisord.log*"))
        assert logs == ["supervisord.log", "supervisord.log.1", "supervisord.log.2"][: len(logs)]
        assert len(logs) > 1
        assert supervise.restarts(home) == {"short": 7}
    finally:
        lifecycle.down(home)
    supervise.launch(supervise.write_configuration([role], home), home, os.environ)
    try:
        assert supervise.restarts(home) == {}
    finally:
        lifecycle.down(home)


def wait_for_child(supervisor: Supervisor) -> psutil.Process:
    found: list[psutil.Process] = []

    def look() -> bool:
        pid = supervisor.programs()["pair"].pid
        with contextlib.suppress(psutil.NoSuchProcess):
            found.extend(psutil.Process(pid).children() if pid else ())
        return bool(found)

    wait_for(look, "a child of the pair", 10)
    return found[0]


def test_the_endpoint_is_shown_once_it_was_asked_for(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIGHTSHIFT_SERVE", "models:/none@champion")
    lifecycle.up(home, only=["valkey"], random_ports=True)
    assert [one.name for one in lifecycle.status(home)] == ["valkey"]
    assert lifecycle.endpoint(home) is None
    lifecycle.up(home, only=["valkey"], also=["serve"])
    found = lifecycle.status(home)
    assert [(one.name, one.health) for one in found] == [("valkey", "healthy"), ("serve", "healthy")]
    assert lifecycle.endpoint(home) == f"http://{found[1].address}"
    assert httpx.get(f"http://{found[1].address}/ready", **PATIENTLY).status_code == 503
    assert lifecycle.down(home)
    assert "serve" not in {one.name for one in lifecycle.status(home)}


def test_up_starts_what_is_missing(home: Path) -> None:
    lifecycle.up(home, only=["valkey"], random_ports=True)
    said: list[str] = []
    lifecycle.up(home, only=["valkey", "s3"], on_event=said.append)
    assert [line.split()[0] for line in said] == ["s3"]
    assert [one.name for one in lifecycle.status(home) if one.healthy] == ["valkey", "s3"]


def test_data_survives_down_and_up(home: Path) -> None:
    lifecycle.up(home, only=STORES, random_ports=True)
    variables = environment.client_environment(home)

    def bucket() -> Any:
        keys = {"aws_access_key_id": variables["AWS_ACCESS_KEY_ID"], "region_name": "us-east-1"}
        secret = variables["AWS_SECRET_ACCESS_KEY"]
        return boto3.Session().client(
            "s3", endpoint_url=site_of(home).s3_url, aws_secret_access_key=secret, **keys
        )

    bucket().put_object(Bucket="nightshift", Key="a/b", Body=b"kept")
    database(home, "CREATE TABLE kept AS SELECT 41 + 1 AS answer")
    assert lifecycle.down(home) is True
    lifecycle.up(home, only=STORES)
    assert environment.client_environment(home) == variables
    assert bucket().get_object(Bucket="nightshift", Key="a/b")["Body"].read() == b"kept"
    assert database(home, "SELECT answer FROM kept") == [(42,)]


def test_down_ends_the_orphans_of_a_killed_supervisor(home: Path) -> None:
    lifecycle.up(home, only=STORES, random_ports=True)
    session = session_of(home)
    alive = list(processes.living(session).values())
    assert len(alive) > len(STORES)
    os.kill(session.leader.pid, signal.SIGKILL)
    wait_for(lambda: supervise.connect(home) is None, "the end of the supervisor")
    assert lifecycle.down(home) is True
    wait_until_dead(alive)
    assert lifecycle.down(home) is False


def test_orphans_are_known_by_their_session_when_nothing_else_was_recorded(home: Path) -> None:
    lifecycle.up(home, only=["valkey", "s3"], random_ports=True)
    session = session_of(home)
    leader = psutil.Process(session.leader.pid)
    leader.kill()
    wait_until_dead([leader])
    names = {one.name() for one in processes.living(Session(session.leader, session.boot)).values()}
    assert names == {"valkey-server", "rclone"}


def test_up_ends_orphans_before_it_starts(home: Path) -> None:
    lifecycle.up(home, only=["valkey"], random_ports=True)
    session = session_of(home)
    orphans = [one for one in processes.living(session).values() if one.pid != session.leader.pid]
    os.kill(session.leader.pid, signal.SIGKILL)
    lifecycle.up(home, only=["valkey"])
    wait_until_dead(orphans)
    assert [one.health for one in lifecycle.status(home)] == ["healthy"]


def test_a_failed_start_names_the_server_and_leaves_nothing(home: Path) -> None:
    prepare.make_home(home)
    (home / "valkey" / "appendonlydir").write_text("in the way")
    with pytest.raises(NightshiftError) as failure:
        lifecycle.up(home, only=STORES, random_ports=True)
    message = str(failure.value)
    assert "the server valkey did not start" in message
    assert "appendonly" in message
    assert f"{home}/logs/valkey.log" in message
    assert supervise.connect(home) is None
    assert processes.load(home) is None


def test_an_interrupted_start_leaves_nothing(home: Path) -> None:
    script = (
        "import sys, pathlib; from nightshift.stack import lifecycle; lifecycle.up(pathlib.Path(sys.argv[1]))"
    )
    child = subprocess.Popen([sys.executable, "-c", script, str(home)], stderr=subprocess.PIPE, text=True)
    wait_for((home / "logs" / "migrate.log").exists, "the start of the migration")
    session = session_of(home)
    alive = list(processes.living(session).values())
    assert len(alive) > 4
    child.send_signal(signal.SIGTERM)
    _, errors = child.communicate(timeout=patience(60))
    assert "KeyboardInterrupt" in errors
    wait_until_dead(alive)
    assert processes.living(session) == {}


def test_a_deep_folder_works(home: Path) -> None:
    home.chmod(0o711)
    deep = home / ("deep" * 20) / ("er" * 30)
    lifecycle.up(deep, only=STORES, random_ports=True)
    try:
        assert [one.health for one in lifecycle.status(deep)] == ["healthy"] * 3
        folder = supervise.socket_path(deep).parent
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    finally:
        lifecycle.down(deep)
        shutil.rmtree(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root needs another user for PostgreSQL")
def test_a_folder_closed_to_postgresqls_user_gets_its_data_elsewhere(home: Path) -> None:
    closed = home / "closed"
    closed.mkdir(mode=0o700)
    try:
        for _ in range(2):  # the second time the stack's folder was removed and its secrets are new
            lifecycle.up(closed / "stack", only=["postgres"], random_ports=True)
            data = postgres_folder(closed / "stack")
            assert data.parent == Path("/var/lib/nightshift")
            assert [one.health for one in lifecycle.status(closed / "stack")] == ["healthy"]
            lifecycle.down(closed / "stack")
            shutil.rmtree(closed / "stack")
    finally:
        lifecycle.down(closed / "stack")
        shutil.rmtree(data)


def test_health_says_why_not(home: Path) -> None:
    lifecycle.up(home, only=["valkey"], random_ports=True)
    site = site_of(home)
    for name in ("postgres", "s3", "scheduler", "mlflow"):
        assert re.search("refused", health.ask(role_of(home, name).health, site, 0.0) or "")
    assert "does not answer" in (health.ask(role_of(home, "worker").health, site, 0.0) or "")


def test_the_whole_stack_is_healthy(stack: Any) -> None:
    def ill() -> list[str]:
        return [f"{one.name}: {one.health}" for one in lifecycle.status(stack.home) if not one.healthy]

    wait_for(lambda: not ill(), lambda: f"the health of {ill()}")
    assert len(lifecycle.status(stack.home)) == 11


def test_no_process_shows_a_secret_in_its_command_line(stack: Any) -> None:
    hidden = secrets_of(stack.home).values()
    lines = []
    for process in processes.living(session_of(stack.home)).values():
        with contextlib.suppress(psutil.NoSuchProcess):  # some live for a moment only
            lines.append(" ".join(process.cmdline()))
    assert len(lines) > 10
    assert [line for line in lines if any(value in line for value in hidden)] == []


def test_no_log_shows_a_secret(stack: Any) -> None:
    hidden = secrets_of(stack.home).items()
    texts = {path.name: path.read_text() for path in (stack.home / "logs").iterdir()}
    assert [(name, log) for name, value in hidden for log, text in texts.items() if value in text] == []


def test_private_files_are_private(stack: Any) -> None:
    for name in (
        "secrets.json",
        "keys/signing.key",
        "airflow/passwords.json",
        "run/valkey.conf",
        "run/mlflow-login.ini",
        "run/supervisord.conf",
        "run/mlflow.env",
    ):
        assert stat.S_IMODE((stack.home / name).stat().st_mode) == 0o600
    for name in ("run", "logs", "s3", "valkey", "airflow", "postgres"):
        assert stat.S_IMODE((stack.home / name).stat().st_mode) == 0o700
    assert stat.S_IMODE(stack.home.stat().st_mode) & 0o077 == (0o011 if os.geteuid() == 0 else 0)


def test_everything_listens_on_loopback_only(stack: Any) -> None:
    addresses = set()
    for process in processes.living(session_of(stack.home)).values():
        with contextlib.suppress(psutil.NoSuchProcess):  # a short-lived one, such as a health check
            addresses |= {
                one.laddr for one in process.net_connections("inet") if one.status == psutil.CONN_LISTEN
            }
    assert {address.ip for address in addresses} == {"127.0.0.1"}
    usual = {
        port for name, port in asdict(site_of(stack.home).ports).items() if name not in ("serve", "metrics")
    }
    assert {address.port for address in addresses} == usual


def test_airflow_has_the_pools(stack: Any) -> None:
    site = site_of(stack.home)
    client = airflow_api.login(site)
    pools = {pool["name"]: pool["slots"] for pool in client.get("/api/v2/pools").json()["pools"]}
    client.close()
    expected = {"preprocess": site.concurrency, "train": 1, "promotion": 1, "default_pool": site.concurrency}
    assert pools.items() >= expected.items()


def test_mlflow_keeps_artifacts_in_the_bucket(stack: Any) -> None:
    url = f"{stack.environment['MLFLOW_TRACKING_URI']}/api/2.0/mlflow-artifacts/artifacts/probe/note.txt"
    login = (environment.ADMIN, stack.environment["MLFLOW_TRACKING_PASSWORD"])
    assert httpx.put(url, content=b"kept", auth=login, **PATIENTLY).status_code == 200
    assert storage.read("s3://nightshift/mlflow/probe/note.txt") == b"kept"


MLFLOW_PAGES = (
    *("", "api/2.0/mlflow/experiments/search?max_results=1", "api/2.0/mlflow-artifacts/artifacts?path=probe"),
)


def ask_mlflow(stack: Any, path: str, password: str | None = None, **headers: str) -> int:
    """The status of an answer; without a password, to nobody."""
    url = f"{stack.environment['MLFLOW_TRACKING_URI']}/{path}"
    login = (environment.ADMIN, password) if password else None
    return httpx.get(url, auth=login, headers=headers, **PATIENTLY).status_code


def test_airflow_and_mlflow_answer_nobody_without_a_login(stack: Any) -> None:
    right = stack.environment["MLFLOW_TRACKING_PASSWORD"]
    for path in MLFLOW_PAGES:
        statuses = [ask_mlflow(stack, path, password) for password in (None, "password1234", right)]
        assert statuses == [401, 401, 200]
    assert ask_mlflow(stack, "health") == 200
    airflow = stack.environment["NIGHTSHIFT_AIRFLOW_URL"]
    for path in ("dags", "connections", "variables", "assets", "dags/digits/dagRuns"):
        assert httpx.get(f"{airflow}/api/v2/{path}", **PATIENTLY).status_code == 401
    guess = {"username": environment.ADMIN, "password": environment.ADMIN}
    assert httpx.post(f"{airflow}/auth/token", json=guess, **PATIENTLY).status_code == 401


def test_mlflow_answers_to_no_other_name(stack: Any) -> None:
    """What a page on another host sends once its name is made to mean this address."""
    password, port = stack.environment["MLFLOW_TRACKING_PASSWORD"], site_of(stack.home).ports.mlflow
    for path in MLFLOW_PAGES:
        assert ask_mlflow(stack, path, password, Host="rebound.example.org") == 403
        assert ask_mlflow(stack, path, password, Host=f"10.0.0.1:{port}") == 403
        assert ask_mlflow(stack, path, password, Host=f"localhost:{port}") == 200


def test_a_wrong_login_of_mlflow_is_one_sentence(stack: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "not-the-password")
    with pytest.raises(
        InputError, match=r"MLflow at http.* refuses the login of admin; set MLFLOW_TRACKING_"
    ):
        runs.set_tags("0" * 32, {"a": "b"})
    monkeypatch.delenv("MLFLOW_TRACKING_USERNAME")
    monkeypatch.delenv("MLFLOW_TRACKING_PASSWORD")
    with pytest.raises(InputError, match="refuses the login of nobody"):
        runs.set_tags("0" * 32, {"a": "b"})


def test_whom_the_administrator_gives_a_login_may_look_at_mlflow_and_change_nothing_of_others(
    stack: Any,
) -> None:
    url = f"{stack.environment['MLFLOW_TRACKING_URI']}/api/2.0/mlflow"
    login = (environment.ADMIN, stack.environment["MLFLOW_TRACKING_PASSWORD"])
    reader = ("reader", "only-looks-at-it-1")

    def post(path: str, body: dict[str, str], auth: tuple[str, str]) -> httpx.Response:
        return httpx.post(f"{url}/{path}", json=body, auth=auth, **PATIENTLY)

    made = post("experiments/create", {"name": "closed"}, login).json()["experiment_id"]
    user = {"username": reader[0], "password": reader[1]}
    assert post("users/create", user, login).status_code == 200
    assert post("users/create", user | {"username": "another"}, reader).status_code == 403
    looked = httpx.get(f"{url}/experiments/get?experiment_id={made}", auth=reader, **PATIENTLY)
    assert looked.status_code == 200
    assert post("experiments/delete", {"experiment_id": made}, reader).status_code == 403
    assert post("runs/create", {"experiment_id": made}, reader).status_code == 403
    run = post("runs/create", {"experiment_id": made}, login).json()["run"]["info"]
    place = run["artifact_uri"].replace("mlflow-artifacts:/", "mlflow-artifacts/artifacts/")
    file = f"{url.removesuffix('/mlflow')}/{place}/model.onnx"
    assert httpx.put(file, content=b"x", auth=login, **PATIENTLY).status_code == 200
    for method in ("PUT", "DELETE"):
        assert httpx.request(method, file, auth=reader, **PATIENTLY).status_code == 403
    assert httpx.get(file, auth=reader, **PATIENTLY).content == b"x"
    assert post("experiments/delete", {"experiment_id": made}, login).status_code == 200
