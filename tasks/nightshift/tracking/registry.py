"""Registered models in MLflow: versions, aliases, and the tags that bind a version to what was evaluated.

Nothing here is ever unpickled: models are ONNX files, and every download is checked against its digest.
"""

import hashlib
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import mlflow
from mlflow.exceptions import MlflowException

from nightshift.config import PreprocessSettings
from nightshift.errors import InputError
from nightshift.records import Artifact, InitialWeights, lengths, model_facts
from nightshift.tracking import logged_model, signatures
from nightshift.tracking.runs import address, client, mlflow_errors

CHAMPION, CHALLENGER = "champion", "challenger"
# Tags of a version; every reader of the registry goes by these names.
SHA256, GATE = signatures.SHA256, signatures.GATE
STATE, REASONS = "nightshift.state", "nightshift.reasons"
CLASSES = "nightshift.classes"  # how many and the first ones, for people: all are in the file
PREPROCESS, BEST = "nightshift.preprocess", "nightshift.best_version"
DATA, SETTINGS = "nightshift.data_digest", "nightshift.settings_digest"
BATCHES = "nightshift.data.batches"  # digest of the files that it was made of
ACCURACY, DATASET = "nightshift.test_accuracy", "nightshift.data.dataset"
DECISION = "nightshift.decision"  # what these tags begin with
CHAMPION_THEN, TEST = "nightshift.champion", "nightshift.test_digest"  # beside which, and on which images
CHANGING = (STATE, REASONS)  # tags that are not signed, since what becomes of a version changes them
WITHDRAWN = "rolled-back"  # state of a version that a rollback took back
REPORT = "nightshift.report"  # address of the page that shows the evidence
MADE = "nightshift.made"  # what the version was made of and with, the Artifact of a record Made
CHECKPOINTS = "nightshift.checkpoints"  # the float weights that the version was made of, Artifacts


class Registered(NamedTuple):
    """One version of a registered model with the bytes of its ONNX file, checked against its digest."""

    version: str
    sha256: str
    model: bytes
    classes: tuple[str, ...]
    preprocess: PreprocessSettings
    tags: dict[str, str]

    @property
    def batches(self) -> str:
        """Digest of the files that it was made of, `Dataset.batches_digest`; empty where nothing says it."""
        return self.tags.get(BATCHES, "")


class Champions(NamedTuple):
    """The present champion and the best champion so far; the same version when nothing was lost."""

    current: Registered | None
    best: Registered | None


def register_version(
    run_id: str,
    name: str,
    model: bytes,
    *,
    classes: int,
    shape: tuple[int, int, int],
    tags: Mapping[str, str],
    description: str = "",
) -> str:
    """Register ONNX bytes as a version of `name` and return the version; the same bytes of the same run once.

    They are signed where a key is configured, and the tags with them. Raises InputError, before anything is
    registered, when it is configured wrongly, and when the stored file does not have the digest of `model`.
    """
    sha256 = hashlib.sha256(model).hexdigest()
    texts = {key: lengths.cut(value, lengths.VERSION_TAG) for key, value in {**tags, SHA256: sha256}.items()}
    lasting = {key: value for key, value in texts.items() if key not in CHANGING}
    signed = signatures.attach(run_id, model, signatures.Judgement(name=name, run_id=run_id, tags=lasting))
    with mlflow_errors():
        mlflow_client = client()
        _ensure_model(name)
        for version in mlflow_client.search_model_versions(f"name = '{name}' and run_id = '{run_id}'"):
            if version.tags.get(SHA256) == sha256:
                for key, value in {**lasting, **signed}.items():
                    if version.tags.get(key) != value:
                        mlflow_client.set_model_version_tag(name, version.version, key, value)
                return str(version.version)
        model_id = logged_model.log(run_id, model, classes, shape)
        source, words = f"models:/{model_id}", lengths.cut(description, lengths.DESCRIPTION)
        created = mlflow_client.create_model_version(
            name, source, run_id, {**texts, **signed}, description=words, model_id=model_id
        )
        return str(created.version)


def _ensure_model(name: str) -> None:
    try:
        client().create_registered_model(name)
    except MlflowException as error:  # a RestException only where a server is asked, not of a database
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


class Described(NamedTuple):
    """A version as a person sees it; `run_id` is that of its night."""

    description: str
    run_id: str
    tags: dict[str, str]


@mlflow_errors()
def described(name: str, version: str) -> Described:
    found = client().get_model_version(name, version)
    return Described(str(found.description or ""), str(found.run_id or ""), dict(found.tags))


def version_url(name: str, version: str) -> str:
    """The page of a version in the MLflow web interface."""
    return f"{address().rstrip('/')}/#/models/{name}/versions/{version}"


def version_tags(name: str, version: str) -> dict[str, str]:
    """The tags of a version; raises InputError when MLflow does not have it, or not any more."""
    tags = find_tags(name, version)
    if tags is None:
        raise InputError(
            f"version {version} of {name} is not in MLflow at {address()}, or not any more; give one that is"
        )
    return tags


def find_tags(name: str, version: str) -> dict[str, str] | None:
    """The tags of a version, None when MLflow does not have it: people delete versions."""
    with mlflow_errors():
        try:
            return dict(client().get_model_version(name, version).tags)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise


@mlflow_errors()
def set_version_tag(name: str, version: str, key: str, value: str) -> None:
    client().set_model_version_tag(name, version, key, lengths.cut(value, lengths.VERSION_TAG))


@mlflow_errors()
def set_alias(name: str, alias: str, version: str) -> None:
    client().set_registered_model_alias(name, alias, version)


@mlflow_errors()
def remove_alias(name: str, alias: str) -> None:
    """Take an alias away; one that is not there is no error."""
    client().delete_registered_model_alias(name, alias)


def alias_version(name: str, alias: str) -> str | None:
    """The version that `models:/<name>@<alias>` means, or None."""
    with mlflow_errors():
        try:
            return str(client().get_model_version_by_alias(name, alias).version)
        except MlflowException as error:
            # A missing alias of a known model is INVALID_PARAMETER_VALUE, an unknown model does not exist.
            if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                return None
            raise


def fetch_model(uri: str) -> tuple[bytes, dict[str, str]]:
    """Bytes and tags of `models:/<name>@<alias>` or `models:/<name>/<version>`.

    Raises InputError when it is no ONNX file that Nightshift registered, when the bytes are not those of its
    digest or, with public keys configured, not signed.
    """
    name, version = _version_of(uri)
    with mlflow_errors():
        found = client().get_model_version(name, version)
    tags = dict(found.tags)
    if SHA256 not in tags:
        raise InputError(
            f"{uri} was not registered by Nightshift: it has no tag {SHA256}; give a version that was"
        )
    with mlflow_errors(), tempfile.TemporaryDirectory() as folder:
        # Only the file itself is trusted: MLflow writes other files beside it on download.
        mlflow.artifacts.download_artifacts(f"models:/{name}/{version}", dst_path=folder)
        files = sorted(path for path in Path(folder).rglob("*") if path.is_file())
        model = next((path.read_bytes() for path in files if path.name == "model.onnx"), None)
    if model is None:
        names = ", ".join(path.name for path in files)
        raise InputError(
            f"{uri} holds no model.onnx but {names}; only ONNX files are loaded, never pickles: "
            "give another version"
        )
    digest = hashlib.sha256(model).hexdigest()
    if digest != tags.get(SHA256):
        raise InputError(f"{uri} has SHA-256 {digest}, its tag says {tags.get(SHA256)}: do not use it")
    signatures.check(uri, found.run_id, model)
    return model, {**tags, "version": version}


def check_judgement(name: str, version: str) -> None:
    """Refuse a version whose tags are not those that were signed with its file; nothing without keys."""
    with mlflow_errors():
        found = client().get_model_version(name, version)
    signatures.check_judgement(f"models:/{name}/{version}", name, found.run_id, dict(found.tags))


def checkpoint_of(uri: str) -> InitialWeights:
    """The float weights behind `models:/<name>@<alias>` or `models:/<name>/<version>`, named by version.

    Of a vote, those of its first member.
    """
    name, version = _version_of(uri)
    recorded, exact = version_tags(name, version).get(CHECKPOINTS), f"models:/{name}/{version}"
    if not recorded:
        raise InputError(
            f"{exact} does not record the checkpoint that it was made of (tag {CHECKPOINTS}); name its "
            "checkpoint.json instead"
        )
    return InitialWeights(name=exact, weights=Artifact.model_validate(json.loads(recorded)[0]))


def champions(name: str) -> Champions:
    """The champion of `name` and the best champion so far, or None where there is none yet.

    A best one that was deleted, or that is not trusted any more, is told and stood in for.
    """
    version = alias_version(name, CHAMPION)
    if version is None:
        return Champions(None, None)
    current = _registered(name, version)
    return Champions(current, _best(name, current))


def _best(name: str, current: Registered) -> Registered:
    """The best champion so far when `current` is the champion.

    What a rollback took back is no measure any more; what that was judged beside is one, also for a lost one.
    """
    waiting = [current.tags.get(CHAMPION_THEN, ""), current.tags.get(BEST, "")]
    seen = {current.version, ""}
    while waiting and current.tags.get(BEST):
        best = waiting.pop()
        if best in seen:
            continue
        seen.add(best)
        tags = find_tags(name, best)
        if tags is not None and tags.get(STATE) == WITHDRAWN:
            waiting += [tags.get(CHAMPION_THEN, ""), tags.get(BEST, "")]
            continue
        try:
            return _registered(name, best)
        except InputError as error:
            print(f"version {best}, the best champion of {name} so far, cannot be compared with: {error}")
    return current


def _registered(name: str, version: str) -> Registered:
    uri = f"models:/{name}/{version}"
    model, tags = fetch_model(uri)
    return Registered(version, tags[SHA256], model, *model_facts.read(uri, model), tags)


def _version_of(uri: str) -> tuple[str, str]:
    """Name and version that an address means."""
    name, alias_or_version = _split_uri(uri)
    version = alias_version(name, alias_or_version[1:]) if alias_or_version[0] == "@" else alias_or_version
    if version is None:
        raise InputError(f"{uri} does not exist at {address()}; no version has that alias")
    return name, version


def alias_of(uri: str) -> tuple[str, str] | None:
    """Name and alias of `models:/<name>@<alias>`, None for the address of one version."""
    name, alias_or_version = _split_uri(uri)
    return (name, alias_or_version[1:]) if alias_or_version[0] == "@" else None


def _split_uri(uri: str) -> tuple[str, str]:
    rest = uri.removeprefix("models:/")
    name, at, alias = rest.partition("@")
    if at and name and alias and rest != uri:
        return name, f"@{alias}"
    name, slash, version = rest.partition("/")
    if slash and name and version.isdigit() and rest != uri:
        return name, version
    raise InputError(f"model address {uri!r} must look like models:/digits@champion or models:/digits/3")
