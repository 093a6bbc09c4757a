"""The containers run what the embedded stack runs: the same roles, commands, order and settings."""

import json
import re
from pathlib import Path

import deployment
import pytest
from deployment import services

from nightshift.stack import airflow_settings
from nightshift.stack.airflow_api import POOLS
from nightshift.stack.environment import Site
from nightshift.stack.prepare import make_data
from nightshift.stack.private_files import Ports, Secrets
from nightshift.stack.roles import Role, build_roles

NOT_OURS = {"postgres", "valkey", "s3"}  # other programs than the embedded ones, or settings of their own
# Settings that a container does without, and why.
WITHOUT = {
    "NIGHTSHIFT_HOME",  # there is no folder of an embedded stack
    "NIGHTSHIFT_AIRFLOW_URL",  # only the service `cli` asks Airflow for anything
    "NIGHTSHIFT_AIRFLOW_USER",
    "NIGHTSHIFT_AIRFLOW_PASSWORD",
    "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS",  # people are kept by FAB, in the database
    "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE",
    "MLFLOW_AUTH_CONFIG_PATH",  # the entry point makes the file and names it
}
# Settings that have another value in every container.
DIFFERENT = {
    "AIRFLOW__API__HOST": "0.0.0.0",  # noqa: S104 - of the container; compose publishes it on loopback
    "MLFLOW_TRACKING_USERNAME": "nightshift",  # not the administrator
}
IMAGE = {"AIRFLOW_HOME": "/opt/airflow"}  # variables of the image


def site(number: int) -> Site:
    """A stack that shares no folder, port, secret or size with one of another number."""
    ports = Ports(**{name: 20_000 + 10 * number + at for at, name in enumerate(Ports.__dataclass_fields__)})
    secrets = Secrets(**{name: f"{name}-{number}" for name in Secrets.__dataclass_fields__})
    folder = Path(f"/tmp/{number}")  # noqa: S108 - nothing is written there
    return Site(folder, ports, secrets, folder / "dags", cores=4 + number)


ROLES = {role.name: role for role in build_roles(site(1), {})}
OTHERS = {role.name: role for role in build_roles(site(2), {})}
COMPARED = sorted(set(ROLES) - NOT_OURS)


def settings(role: Role) -> dict[str, str]:
    """What a container has to have; MLflow's server is given no setting of its clients."""
    clients = ("NIGHTSHIFT_", "MLFLOW_TRACKING_") if role.name == "mlflow" else ()
    found = {name: value for name, value in role.environment.items() if not name.startswith(clients)}
    return {name: value for name, value in found.items() if name not in WITHOUT}


def same(first: Role, second: Role) -> dict[str, str]:
    """The settings that do not depend on where a stack is."""
    there = settings(second)
    return {name: value for name, value in settings(first).items() if there.get(name) == value}


def services_of(role: str) -> list[str]:
    """A role's services: the general worker is two, as each of its queues is scaled by itself."""
    return {
        "worker": ["worker", "worker-preprocess"],
        "worker-train": ["worker-train", "worker-train-gpu"],
    }.get(role, [role])


def plain(command: list[str]) -> list[str]:
    """A command without interpreter, address, name and size, which are a container's or a stack's own."""
    text = " ".join(command)
    text = re.sub(
        r"^\S*python\S* -m (nightshift\.cli\b)?", lambda found: "nightshift" if found[1] else "", text
    )
    own = "host|port|app-name|celery-hostname|concurrency|workers|queues"
    return re.sub(rf" --(?:{own}) \S+", "", text).split()


def test_each_role_is_a_service():
    named = {service for role in ROLES for service in services_of(role)}
    assert set(services()) - named == {"provision", "cli"}
    assert named <= set(services())


@pytest.mark.parametrize("role", COMPARED)
def test_the_commands_are_the_same(role):
    for service in services_of(role):
        assert plain(deployment.command(service)) == plain(list(ROLES[role].command)), service


@pytest.mark.parametrize("role", COMPARED)
def test_settings_that_are_the_same_everywhere_have_the_same_values(role):
    expected = same(ROLES[role], OTHERS[role])
    assert len(expected) >= 3
    for service in services_of(role):
        found = deployment.environment(service) | IMAGE
        differing = {
            name: (found.get(name), value)
            for name, value in expected.items()
            if found.get(name) != DIFFERENT.get(name, value)
        }
        assert differing == {}, service


@pytest.mark.parametrize("role", COMPARED)
def test_no_setting_of_the_embedded_stack_is_forgotten(role):
    for service in services_of(role):
        found = set(deployment.environment(service) | IMAGE)
        found |= {re.sub("_(FILE|CMD)$", "", name) for name in found}
        forgotten = set(settings(ROLES[role])) - found
        if service == "worker-preprocess":
            forgotten -= {"NIGHTSHIFT_SIGNING_KEY"}  # nothing is registered there
        assert forgotten == set(), service


def test_the_two_tables_are_what_is_compared():
    server, worker = same(ROLES["scheduler"], OTHERS["scheduler"]), same(ROLES["worker"], OTHERS["worker"])
    assert airflow_settings.EVERY_PROCESS.items() <= worker.items()
    assert (airflow_settings.EVERY_PROCESS | airflow_settings.SERVERS).items() <= server.items()
    assert not airflow_settings.SERVERS.keys() & worker.keys()


def needed(service: str) -> set[str]:
    """All that has to be there before a service starts."""
    direct = set(services()[service].get("depends_on", {}))
    return direct | {other for name in direct for other in needed(name)}


@pytest.mark.parametrize("role", sorted(set(ROLES)))
def test_services_start_in_the_roles_order(role):
    for service in services_of(role):
        assert set(ROLES[role].after) <= needed(service), service


def test_a_service_waits_for_health_and_for_the_end_of_jobs():
    for name, about in services().items():
        for other, how in about.get("depends_on", {}).items():
            ends = "healthcheck" not in services()[other]
            assert how["condition"] == ("service_completed_successfully" if ends else "service_healthy"), name


def queues(words: list[str]) -> set[str]:
    return set(words[words.index("--queues") + 1].split(",")) if "--queues" in words else set()


def test_every_queue_has_a_worker_and_the_pools_have_their_slots():
    embedded = set().union(*(queues(list(role.command)) for role in ROLES.values()))
    workers = [name for name in services() if name.startswith("worker")]
    assert embedded == set().union(*(queues(deployment.command(name)) for name in workers))
    assert set(POOLS) - embedded == {"promotion"}
    scaled = {"PREPROCESS_WORKERS": "7", "PREPROCESS_SLOTS": "3", "TRAIN_WORKERS": "5"}
    about = services()["worker-preprocess"]
    assert deployment.interpolated(about["deploy"]["replicas"], scaled) == "7"
    assert deployment.interpolated(services()["worker-train"]["deploy"]["replicas"], scaled) == "5"
    assert "--concurrency 3" in " ".join(deployment.command("worker-preprocess", scaled))
    provisioned = deployment.environment("provision", scaled)
    assert {name: provisioned[name] for name in scaled} == scaled
    slots = deployment.environment("scheduler")["AIRFLOW__CORE__DEFAULT_POOL_TASK_SLOT_COUNT"]
    assert f"--concurrency {slots}" in " ".join(deployment.command("worker"))


def test_valkey_keeps_messages_as_the_embedded_one_does(tmp_path):
    own = site(1)
    home = Site(tmp_path, own.ports, own.secrets, tmp_path, 4)
    for name in ("run", "airflow"):
        (tmp_path / name).mkdir()
    make_data(home, ())
    embedded = set((tmp_path / "run" / "valkey.conf").read_text().splitlines())
    made = set((deployment.make_secrets(tmp_path / "secrets") / "valkey.conf").read_text().splitlines())
    assert {line for line in made if not line.startswith(("requirepass", "dir"))} < embedded


def test_the_store_of_the_containers_lets_in_the_keys_of_the_others(tmp_path):
    secrets = deployment.make_secrets(tmp_path / "secrets")
    (identity,) = json.loads((secrets / "s3.json").read_text())["identities"]
    keys = {"accessKey": "s3_access_key", "secretKey": "s3_secret_key"}
    assert identity["credentials"] == [{name: (secrets / file).read_text() for name, file in keys.items()}]
