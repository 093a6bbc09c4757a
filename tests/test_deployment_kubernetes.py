"""values.yaml for Airflow's Helm chart says what the compose file says, and names secrets that are made.

The chart and its schema are not here, so that the chart knows every key is not tested.
"""

import re
import shutil
import subprocess
from typing import Any

import deployment
import pytest
import yaml

VALUES: dict[str, Any] = yaml.safe_load((deployment.DOCKER / "values.yaml").read_text(encoding="utf-8"))
SETS = {one["name"]: one for one in VALUES["workers"]["celery"]["sets"]}
SCRIPT = deployment.DOCKER / "kubernetes-secrets.sh"
# Pods share no folder, so a running task's log is asked for at its worker, and all addresses are others.
OTHERS = {
    "AIRFLOW__CORE__HOSTNAME_CALLABLE",
    "AWS_ENDPOINT_URL_S3",
    "MLFLOW_TRACKING_URI",
    "NIGHTSHIFT_PUBLIC_KEYS",
}


def env(listed: list[dict[str, str]]) -> dict[str, str]:
    return {one["name"]: one["value"] for one in listed}


def made() -> dict[str, set[str]]:
    """Names of the secrets that the script makes, with their keys."""
    text = SCRIPT.read_text(encoding="utf-8").replace("\\\n", " ")
    found = {
        name: set(re.findall(r"([\w-]+)=", keys)) for name, keys in re.findall(r"(?m)^secret (\S+)(.*)", text)
    }
    return found | {"nightshift-database": {"connection"}}


def test_settings_have_the_values_of_the_compose_file():
    container, pod = deployment.environment("scheduler"), env(VALUES["env"])
    shared = container.keys() & pod.keys()
    assert len(shared) > 25
    assert {name for name in shared if container[name] != pod[name]} == OTHERS & shared
    secrets = {one["envName"] for one in VALUES["secret"]}
    chart = {
        "AIRFLOW__CORE__EXECUTOR",
        "AIRFLOW__CORE__DAGS_FOLDER",
    }  # the chart sets these, and all its addresses
    kept = {name for name in container if not name.endswith(("_FILE", "_CMD"))} - pod.keys() - secrets - chart
    assert all(
        re.match(r"AIRFLOW__(API|LOGGING|CORE__EXECUTION|CORE__DEFAULT|DAG_PROC)|NIGHTSHIFT_N", name)
        for name in kept
    )


def test_each_queue_has_a_set_that_is_scaled_by_its_own_tasks():
    assert {one["queue"] for one in SETS.values()} == {"default", "preprocess", "train"}
    for name, one in SETS.items():
        slots = env(one["env"])["AIRFLOW__CELERY__WORKER_CONCURRENCY"]
        if name == "general":
            assert one["replicas"] == 1
            continue
        assert f"queue = '{one['queue']}'" in one["keda"]["query"]
        assert f"::decimal / {slots})" in one["keda"]["query"]


def test_pools_are_as_large_as_all_workers_together():
    given = env(VALUES["migrateDatabaseJob"]["env"])
    assert int(given["PREPROCESS_WORKERS"]) == SETS["preprocess"]["keda"]["maxReplicaCount"]
    assert given["PREPROCESS_SLOTS"] == env(SETS["preprocess"]["env"])["AIRFLOW__CELERY__WORKER_CONCURRENCY"]
    assert int(given["TRAIN_WORKERS"]) == SETS["train"]["keda"]["maxReplicaCount"]


def test_only_the_general_worker_can_sign():
    mounted = {name for name, one in SETS.items() if "nightshift-signing" in str(one)}
    assert mounted == {"general"}


def test_every_secret_that_is_named_is_made():
    secrets = made()
    text = (deployment.DOCKER / "values.yaml").read_text(encoding="utf-8")
    named = set(re.findall(r"(?:ecretName|SecretName|_secret|secretName): (nightshift-\w+(?:-\w+)?)", text))
    assert named == set(secrets)
    for one in VALUES["secret"]:
        assert one["secretKey"] in secrets[one["secretName"]]
    assert {"fernet-key", "api-secret-key", "jwt-secret"} == secrets["nightshift-server"]
    people = {f"airflow_{name}_password" for name in ("admin", "operator", "approver", "viewer")}
    assert people | {"mlflow_admin_password", "mlflow_password"} == secrets["nightshift-people"]


def test_the_script_prints_kubernetes_objects(tmp_path):
    if not shutil.which("kubectl"):
        pytest.skip("kubectl is not installed")
    folder = deployment.make_secrets(tmp_path / "secrets")
    done = subprocess.run(["sh", str(SCRIPT), str(folder)], capture_output=True, text=True, check=True)
    objects = {one["metadata"]["name"]: set(one["data"]) for one in yaml.safe_load_all(done.stdout) if one}
    assert objects == made()


def test_the_image_is_made_for_the_charts_user_and_folders():
    dockerfile = (deployment.DOCKER / "Dockerfile").read_text(encoding="utf-8")
    assert f"USER {VALUES['uid']}:{VALUES['gid']}" in dockerfile
    assert f"AIRFLOW_HOME={VALUES['airflowHome']}" in dockerfile
    assert f"COPY dags {VALUES['airflowHome']}/dags" in dockerfile
    lock = (deployment.ROOT / "requirements.lock").read_text(encoding="utf-8")
    assert f"apache-airflow=={VALUES['airflowVersion']}\n" in lock
