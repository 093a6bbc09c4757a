"""What a deployment needs before its servers start: bucket, MLflow's user, Airflow's roles, people, pools.

python -m nightshift.stack.provision /run/secrets

It runs at every start, after `airflow db migrate`, in the variables of Airflow's servers. What exists stays
as it is; only pools are set each time, since they follow the number of workers.
"""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from nightshift.errors import InputError, OutageError
from nightshift.stack import airflow_access
from nightshift.stack.airflow_api import POOLS


def secret(folder: Path, name: str) -> str:
    """The content of a secret's file. Raises InputError."""
    try:
        found = (folder / name).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise InputError(
            f"the secret {folder / name} cannot be read ({error.strerror}): "
            "make it with docker/make-secrets.sh"
        ) from error
    if not found:
        raise InputError(f"the secret {folder / name} is empty: make it with docker/make-secrets.sh")
    return found


def pool_slots(environment: Mapping[str, str]) -> dict[str, int]:
    """Slots of each pool, as many as its workers take at once. Raises InputError."""

    def number(name: str, default: int) -> int:
        given = environment.get(name) or str(default)
        if not given.isdecimal() or int(given) < 1:
            raise InputError(f"{name} is {given!r}; it must be a whole number from 1")
        return int(given)

    preprocess = number("PREPROCESS_WORKERS", 1) * number("PREPROCESS_SLOTS", 2)
    return {"preprocess": preprocess, "train": number("TRAIN_WORKERS", 1), "promotion": 1}


def ensure_pools(slots: Mapping[str, int]) -> None:
    from airflow.models.pool import Pool

    for name, (_, description) in POOLS.items():
        Pool.create_or_update_pool(name, slots[name], description, include_deferred=False)


def ensure_bucket(store: str) -> bool:
    """Make the bucket of a store's address where it is missing; whether it was made. Raises OutageError."""
    import boto3
    from botocore.exceptions import BotoCoreError, ClientError

    bucket = urlsplit(store).netloc
    client = boto3.Session().client("s3")
    try:
        try:
            client.head_bucket(Bucket=bucket)
            return False
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] != 404:
                raise
        region = client.meta.region_name
        place = {} if region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": region}}
        client.create_bucket(Bucket=bucket, **place)
    except (BotoCoreError, ClientError) as error:
        raise OutageError(
            f"the bucket {bucket} at {client.meta.endpoint_url} cannot be made ({error}): check the address, "
            "the keys and what they may do"
        ) from error
    return True


def ensure_mlflow_user(url: str, name: str, password: str, admin_password: str) -> None:
    """Make the user of the workers, or give it this password. Raises InputError, OutageError."""
    import httpx

    body = {"username": name, "password": password}
    try:
        with httpx.Client(
            base_url=url, auth=("admin", admin_password), timeout=30, trust_env=False
        ) as client:
            answer = client.post("/api/2.0/mlflow/users/create", json=body)
            if answer.status_code == 400 and answer.json().get("error_code") == "RESOURCE_ALREADY_EXISTS":
                answer = client.patch("/api/2.0/mlflow/users/update-password", json=body)
    except httpx.HTTPError as error:
        raise OutageError(f"MLflow at {url} cannot be asked ({error}): check that it runs") from error
    if answer.status_code != 200:
        raise InputError(
            f"MLflow at {url} refused the user {name} ({answer.status_code}: {answer.text[:200]}): "
            "the secret mlflow_admin_password must be the administrator's password there"
        )


def provision(folder: Path, environment: Mapping[str, str]) -> None:
    """Do all of it and say what was done. Raises InputError, OutageError."""
    slots = pool_slots(environment)
    passwords = {name: secret(folder, f"airflow_{name}_password") for name in airflow_access.PEOPLE}
    store = environment["NIGHTSHIFT_STORE"]
    print(f"provision: {store} {'is made' if ensure_bucket(store) else 'is there'}", flush=True)
    if (folder / "mlflow_admin_password").exists():
        user, url = environment["MLFLOW_TRACKING_USERNAME"], environment["MLFLOW_TRACKING_URI"]
        ensure_mlflow_user(
            url, user, secret(folder, "mlflow_password"), secret(folder, "mlflow_admin_password")
        )
        print(f"provision: MLflow knows {user}", flush=True)
    made = airflow_access.ensure_access(passwords)
    print(f"provision: {', '.join(made) or 'nobody'} was added to Airflow", flush=True)
    ensure_pools(slots)
    print(f"provision: pools {', '.join(f'{name} {count}' for name, count in slots.items())}", flush=True)


def main() -> None:
    if len(sys.argv) != 2:
        raise SystemExit("usage: python -m nightshift.stack.provision FOLDER_OF_SECRETS")
    try:
        provision(Path(sys.argv[1]), os.environ)
    except (InputError, OutageError) as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main()
