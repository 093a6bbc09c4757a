"""The deployment's first start: the real programs in the settings of docker/, without containers.

PostgreSQL is SQLite here and SeaweedFS is rclone; MLflow, Airflow, its auth manager and the entry points are
themselves.
"""

import json
import os
import socket
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import boto3
import deployment
import httpx
import pytest
from waiting import patience, wait_for

from nightshift.errors import InputError, OutageError
from nightshift.stack import airflow_access, provision
from nightshift.stack.airflow_api import POOLS

PROGRAMS = Path(sysconfig.get_path("scripts"))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class Site:
    """A deployment in a folder of this machine."""

    folder: Path
    s3: str
    mlflow: str

    @property
    def secrets(self) -> Path:
        return self.folder / "secrets"

    def secret(self, name: str) -> str:
        return provision.secret(self.secrets, name)

    def environment(self, service: str) -> dict[str, str]:
        """A service's own variables, with this machine's folders, ports and programs."""
        moved = {
            deployment.SECRETS: str(self.secrets),
            "/opt/airflow": str(self.folder / "airflow"),
            "http://mlflow:5000": self.mlflow,
        }
        found = deployment.environment(service, {"S3_ENDPOINT": self.s3, "PREPROCESS_WORKERS": "3"})
        for old, new in moved.items():
            found = {name: value.replace(old, new) for name, value in found.items()}
        return found | {
            "PATH": f"{PROGRAMS}:/usr/bin:/bin",
            "HOME": str(self.folder),
            "TMPDIR": str(self.folder),
            "AIRFLOW_HOME": str(self.folder / "airflow"),
            "PYTHONPATH": str(deployment.ROOT / "tasks"),
            "NO_PROXY": "127.0.0.1",
        }

    def run(self, service: str, *command: str) -> str:
        """Run a command as the service's container does, through its entry point."""
        entry = ("sh", str(deployment.DOCKER / "with-secrets.sh"))
        done = subprocess.run(
            [*entry, *command],
            env=self.environment(service),
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@contextmanager
def running(command: list[str], environment: dict[str, str], log: Path) -> Iterator[None]:
    with log.open("wb") as out, subprocess.Popen(command, env=environment, stdout=out, stderr=out) as server:
        try:
            yield
        finally:
            server.terminate()


def answers_at(url: str) -> bool:
    try:
        httpx.get(url, timeout=patience(5))
    except httpx.HTTPError:
        return False
    return True


def start_s3(site: Site, up: ExitStack) -> None:
    (site.folder / "s3").mkdir()
    login = f'"{site.secret("s3_access_key")},{site.secret("s3_secret_key")}"'
    environment = os.environ | {"RCLONE_AUTH_KEY": login, "RCLONE_CONFIG": os.devnull}
    address = site.s3.removeprefix("http://")
    command = [str(PROGRAMS / "rclone"), "serve", "s3", str(site.folder / "s3"), "--addr", address]
    up.enter_context(running(command, environment, site.folder / "s3.log"))


def start_mlflow(site: Site, up: ExitStack) -> None:
    template = {"MLFLOW_AUTH_TEMPLATE": str(deployment.MLFLOW / "basic_auth.ini")}
    hosts = {"MLFLOW_SERVER_ALLOWED_HOSTS": site.mlflow.removeprefix("http://")}
    words = deployment.command("mlflow")
    words[words.index("--host") + 1] = "127.0.0.1"
    words[words.index("--port") + 1] = site.mlflow.rpartition(":")[2]
    words[words.index("--workers") + 1] = "1"
    entry = ["sh", str(deployment.DOCKER / "with-secrets.sh"), "sh", str(deployment.MLFLOW / "entrypoint.sh")]
    environment = site.environment("mlflow") | template | hosts
    up.enter_context(running([*entry, *words], environment, site.folder / "mlflow.log"))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A deployment after its first start."""
    folder = tmp_path_factory.mktemp("deployed")
    (folder / "airflow" / "dags").mkdir(parents=True)
    (folder / "secrets").mkdir()
    for secret, name in {
        "airflow_database_url": "airflow.db",
        "mlflow_database_url": "mlflow%40.db",  # the percent sign of a password with an @
    }.items():
        (folder / "secrets" / secret).write_text(f"sqlite:///{folder}/{name}")
    deployment.make_secrets(folder / "secrets")
    found = Site(folder, f"http://127.0.0.1:{free_port()}", f"http://127.0.0.1:{free_port()}")
    with ExitStack() as up:
        start_s3(found, up)
        start_mlflow(found, up)
        found.run("migrate", *deployment.command("migrate"))
        wait_for(lambda: answers_at(f"{found.mlflow}/health"), (folder / "mlflow.log").read_text, 240)
        command = [
            word.replace(deployment.SECRETS, str(found.secrets)) for word in deployment.command("provision")
        ]
        assert "admin, operator, approver, viewer was added" in found.run("provision", *command)
        yield found


@pytest.fixture(scope="module")
def answers(site: Site) -> dict[str, Any]:
    script = deployment.ROOT / "tests" / "deployed_airflow.py"
    said = site.run("api-server", sys.executable, str(script), str(site.secrets))
    return dict(json.loads(said.splitlines()[-1]))


OK, FORBIDDEN, ALLOWED = 200, 403, 404  # what is allowed is not there: no DAG was parsed


@pytest.mark.parametrize(
    ("person", "start", "answer", "connections"),
    [
        ("admin", ALLOWED, ALLOWED, OK),
        ("operator", ALLOWED, FORBIDDEN, FORBIDDEN),
        ("approver", FORBIDDEN, ALLOWED, FORBIDDEN),
        ("viewer", FORBIDDEN, FORBIDDEN, FORBIDDEN),
    ],
)
def test_each_role_may_do_its_part_and_no_more(answers, person, start, answer, connections):
    assert answers["people"][person] == {
        "log in": 201,
        "look": OK,
        "start": start,
        "answer": answer,
        "connections": connections,
    }


def test_nobody_else_gets_in(answers):
    assert answers["strangers"] == [401, 401]


def test_pools_follow_the_number_of_workers(answers):
    assert answers["pools"] == {"default_pool": 4, "preprocess": 6, "train": 1, "promotion": 1}


def test_a_tasks_log_goes_to_s3_and_is_read_from_there(site, answers):
    key = "logs/dag_id=retrain_digits/run_id=r/task_id=plan/attempt=1.log"
    assert answers["log"] == {"sources": [f"s3://nightshift/{key}"], "lines": ["a line of the task\n"]}
    assert (site.folder / "s3" / "nightshift" / key).read_text() == "a line of the task\n"


def test_mlflow_asks_for_a_login_and_knows_the_workers_user(site):
    experiments = f"{site.mlflow}/api/2.0/mlflow/experiments/search?max_results=1"
    ask = partial(httpx.get, experiments, timeout=patience(30))
    assert ask().status_code == 401
    login = (site.environment("worker")["MLFLOW_TRACKING_USERNAME"], site.secret("mlflow_password"))
    assert ask(auth=login).status_code == 200
    assert ask(auth=login, headers={"Host": "elsewhere"}).status_code == 403


def test_a_person_who_exists_and_the_bucket_stay_when_it_runs_again(site, monkeypatch):
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_DEFAULT_REGION"):
        monkeypatch.setenv(name, site.environment("provision")[name])
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", site.secret("s3_access_key"))
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", site.secret("s3_secret_key"))
    boto3.Session().client("s3").put_object(Bucket="nightshift", Key="kept", Body=b"x")
    assert not provision.ensure_bucket("s3://nightshift/some/prefix")
    assert provision.ensure_bucket("s3://another")
    assert (site.folder / "s3" / "nightshift" / "kept").exists()
    user = ("nightshift", site.secret("mlflow_password"), site.secret("mlflow_admin_password"))
    provision.ensure_mlflow_user(site.mlflow, *user)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another one than that")
    with pytest.raises(OutageError, match="bucket nightshift at"):
        provision.ensure_bucket("s3://nightshift")
    with pytest.raises(InputError, match="mlflow_admin_password must be"):
        provision.ensure_mlflow_user(site.mlflow, "nightshift", "a-password-long-enough", "wrong")


def test_no_secret_is_in_an_output_of_the_servers(site):
    said = b"".join(path.read_bytes() for path in site.folder.glob("*.log"))
    for path in site.secrets.iterdir():
        assert path.read_bytes() not in said, path.name


def test_missing_and_empty_secrets_and_bad_numbers_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"viewer_password cannot be read .*make-secrets\.sh"):
        provision.secret(tmp_path, "airflow_viewer_password")
    (tmp_path / "x").write_text("\n")
    with pytest.raises(InputError, match="is empty"):
        provision.secret(tmp_path, "x")
    with pytest.raises(InputError, match="PREPROCESS_WORKERS is 'many'; it must be a whole number from 1"):
        provision.pool_slots({"PREPROCESS_WORKERS": "many"})


def test_every_pool_of_the_embedded_stack_is_set_here_too():
    assert set(provision.pool_slots({})) == set(POOLS)
    assert set(airflow_access.ROLES) < set(airflow_access.PEOPLE.values())
