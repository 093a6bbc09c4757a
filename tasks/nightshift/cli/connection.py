"""Where the command's services are: what the user's environment says, else the embedded stack."""

import os
from pathlib import Path
from typing import Final, Literal

Service = Literal["store", "tracking", "airflow"]

# Set by the user, one of these decides where the service is, and nothing of the stack is mixed in.
_DECIDED_BY: Final[dict[Service, tuple[str, ...]]] = {
    "store": ("NIGHTSHIFT_STORE", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"),
    "tracking": ("MLFLOW_TRACKING_URI",),
    "airflow": ("NIGHTSHIFT_AIRFLOW_URL",),
}
_PREFIXES: Final[dict[Service, tuple[str, ...]]] = {
    "store": ("NIGHTSHIFT_STORE", "AWS_"),
    "tracking": ("MLFLOW_", "NIGHTSHIFT_PUBLIC_KEYS"),  # the models there are signed by the stack's key
    "airflow": ("NIGHTSHIFT_AIRFLOW_",),
}


def connect(required: Service = "store") -> None:
    """Fill in the addresses that the environment does not hold from the stack in NIGHTSHIFT_HOME.

    Raises InputError when neither of them says where the required service is.
    """
    missing = [service for service in _DECIDED_BY if not decided(service)]
    if not missing:
        return
    from nightshift.errors import InputError
    from nightshift.stack.environment import client_environment, home

    try:
        known = client_environment(home())
    except InputError:
        if required in missing:
            raise
        return
    for name, value in known.items():
        if any(name.startswith(_PREFIXES[service]) for service in missing):
            os.environ.setdefault(name, value)


def connect_for(model: str) -> None:
    """Connect to what the address of a model needs: the registry, the store or nothing."""
    if model.startswith("models:/"):
        connect("tracking")
    elif model.startswith("s3://"):
        connect()


def connect_signing() -> None:
    """Sign with the stack's key what this process registers, where that key is the one that is trusted."""
    from nightshift.security import signing
    from nightshift.stack.environment import home, keys_folder

    folder = keys_folder(home())
    if os.environ.get(signing.PUBLIC_KEYS) == str(folder / signing.PUBLIC_NAME):
        os.environ.setdefault(signing.SIGNING_KEY, str(folder / signing.PRIVATE_NAME))


def decided(service: Service) -> bool:
    """Whether the user's environment says where the service is."""
    return any(os.environ.get(name) for name in _DECIDED_BY[service])


def pipelines_folder() -> Path:
    """The folder of the pipeline files: `pipelines` in NIGHTSHIFT_DAGS, else in `dags` of the checkout."""
    import nightshift

    beside = Path(nightshift.__file__).resolve().parents[2] / "dags"
    return Path(os.environ.get("NIGHTSHIFT_DAGS") or beside).expanduser() / "pipelines"
