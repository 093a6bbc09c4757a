"""The last stage of a night, with a real MLflow server: what it leaves behind, and when it leaves nothing."""

import json
from pathlib import Path

import pytest
import speeds
from ml_fixtures import Night

from nightshift import register
from nightshift.errors import InputError, NightshiftError
from nightshift.records import Evaluation, Scores, Verdict
from nightshift.records.specs import RegisterSpec
from nightshift.register import SBOM
from nightshift.security import signing
from nightshift.tracking import ledger, registry, runs, signatures
from nightshift.workflows.promote import decisions


@pytest.fixture
def spec(ml_night: Night, mlflow_server, monkeypatch, tmp_path) -> RegisterSpec:
    """To register the night's int8 candidate; records hold what the stage reads of them."""
    for name in (signing.SIGNING_KEY, signing.PUBLIC_KEYS, signing.PASSPHRASE_FILE):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NIGHTSHIFT_STORE", f"file://{tmp_path}/store")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{mlflow_server.server_port}")
    name = tmp_path.name
    pipeline = ml_night.plan.pipeline.model_copy(update={"name": name})
    run_id = runs.open_run(name, "night-1", params={})
    candidate = ml_night.candidates["int8"]
    scores = Scores.model_construct(accuracy=0.9, images=40, speed=speeds.speed(candidate.model.size))
    passed = Verdict(gate="min_accuracy", passed=True, value=0.9, limit=0.5, sentence="0.9 is at least 0.5")
    evaluation = Evaluation.model_construct(
        chosen="int8",
        candidate=candidate,
        test={"int8": scores},
        rejected={},
        champion_version=None,
        best_version=None,
        stays_best=None,
        verdicts=(passed,),
        report=candidate.model,
        evidence=candidate.model,
    )
    return RegisterSpec.model_construct(
        plan=ml_night.plan.model_copy(update={"pipeline": pipeline, "mlflow_run_id": run_id}),
        dataset_uri=ml_night.dataset_uri,
        members=(ml_night.checkpoint,),
        evaluation=evaluation,
    )


def use_keys(folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    fingerprint = signing.make_keys(folder)
    monkeypatch.setenv(signing.SIGNING_KEY, str(folder / "signing.key"))
    monkeypatch.setenv(signing.PUBLIC_KEYS, str(folder / "signing.pub"))
    return fingerprint


def test_a_challenger_is_signed_and_the_run_has_the_bill_of_materials(spec, tmp_path, monkeypatch):
    fingerprint = use_keys(tmp_path / "keys", monkeypatch)
    version = register.register(spec)
    assert version.state == "challenger"
    model, tags = registry.fetch_model(f"models:/{version.name}@challenger")
    assert tags[registry.SHA256] == version.sha256 == spec.evaluation.candidate.model.sha256
    assert tags[signatures.SIGNED_BY] == fingerprint
    packages = runs.stored_artifact(version.mlflow_run_id, SBOM)
    assert packages is not None
    assert json.loads(packages)["bomFormat"] == "CycloneDX"
    assert register.register(spec) == version
    assert registry.fetch_model(f"models:/{version.name}/{version.version}")[0] == model


def test_registering_again_offers_nothing_that_is_older_or_was_decided(spec, monkeypatch):
    """The task `register` of an old night is run again, as people do to sign its version."""
    first = register.register(spec)
    name = first.name
    assert first.offered
    assert register.register(spec).offered  # its task was cut off: it is still to be promoted
    later = spec.model_copy(
        update={"plan": spec.plan.model_copy(update={"mlflow_run_id": runs.open_run(name, "2", params={})})}
    )
    second = register.register(later)
    assert (second.version, second.offered) == ("2", True)
    again = register.register(spec)
    assert (again.version, again.offered) == ("1", False)
    assert registry.alias_version(name, registry.CHALLENGER) == "2"
    tag = decisions.record(name, "rejected", "2", None, "ada", run="r")
    assert tag.version == "2"
    assert not register.register(later).offered


def test_a_key_that_is_not_trusted_is_said_before_anything_is_written(spec, tmp_path, monkeypatch):
    use_keys(tmp_path / "keys", monkeypatch)
    monkeypatch.delenv(signing.PUBLIC_KEYS)
    with pytest.raises(InputError, match="NIGHTSHIFT_PUBLIC_KEYS has none; add its public key there"):
        register.register(spec)
    name = spec.plan.pipeline.name
    assert runs.client().search_registered_models(f"name = '{name}'") == []
    assert runs.client().list_artifacts(spec.plan.mlflow_run_id) == []
    assert ledger.history(name) == []


def test_a_night_is_decided_also_without_a_bill_of_materials(spec, monkeypatch, capsys):
    def broken() -> bytes:
        raise NightshiftError("the tool is away")

    monkeypatch.setattr(register, "sbom", broken)
    assert register.register(spec).state == "challenger"
    assert f"the night has no {SBOM}: the tool is away" in capsys.readouterr().out
    assert runs.stored_artifact(spec.plan.mlflow_run_id, SBOM) is None


def test_the_description_shows_names_of_strangers_as_they_are(spec):
    verdict = spec.evaluation.verdicts[0].model_copy(update={"sentence": "class <b> [x](y) is worse"})
    evaluation = spec.evaluation.model_copy(update={"verdicts": (verdict,)})
    assert r"class &lt;b&gt; \[x\](y) is worse" in register.describe(evaluation)
