"""Versions registered as nights do, and promotions of them, in a store and a registry of the test's own."""

from pathlib import Path

import pytest
import speeds
from ml_fixtures import Night
from mlflow_server import Door
from small_models import onnx_model

from nightshift import storage
from nightshift.config import PreprocessSettings, store_root
from nightshift.records import Evaluation, Scores, Verdict
from nightshift.records.specs import PromoteSpec, RegisterSpec
from nightshift.security import signing
from nightshift.tracking import ledger, registry, runs
from nightshift.workflows.promote.promote import Promotion, promote


@pytest.fixture
def registering(ml_store: Path, mlflow_server: Door, monkeypatch: pytest.MonkeyPatch) -> Door:
    """A store and a registry of its own; versions are registered as a night does, signed only where a test
    says so: the keys of the session's stack are not those of this registry."""
    for name in (signing.SIGNING_KEY, signing.PUBLIC_KEYS):
        monkeypatch.delenv(name, raising=False)
    return mlflow_server


def challenger(name: str, seed: int, state: str = "challenger", **tags: str) -> str:
    """Register a version as a night does."""
    run_id = runs.open_run(name, f"night {seed}", params={})
    facts = {
        registry.PREPROCESS: PreprocessSettings(image_size=8).model_dump_json(),
        registry.STATE: state,
        registry.REASONS: "too slow",
        registry.DATA: "d" * 64,
        registry.SETTINGS: f"{seed:064}",
        registry.REPORT: f"s3://reports/{seed}",
        f"{registry.GATE}gain": "pass: it is smaller",
    }
    version = registry.register_version(
        run_id,
        name,
        onnx_model(seed),
        classes=2,
        shape=(4, 4, 3),
        tags=facts | tags,
        description="**int8**, 99 %\n\n- ✓ gain: it is smaller",
    )
    if state == "challenger":
        registry.set_alias(name, registry.CHALLENGER, version)
    return version


def act(action: str, name: str, version: str = "", **more: object) -> Promotion:
    return promote(
        PromoteSpec.model_validate(
            {"action": action, "pipeline": name, "version": version, "asks": "never", **more}
        )
    )


def kinds(name: str) -> list[tuple[str, str, str | None]]:
    return [(entry.kind, entry.version, entry.replaces) for entry in ledger.history(name)]


def champion(name: str) -> str | None:
    return registry.alias_version(name, "champion")


def registering_spec(night: Night, name: str, title: str, seed: int, *, passed: bool) -> RegisterSpec:
    """What the night called `title` registers: small bytes of its own, judged by one gate."""
    model = storage.write(storage.join(store_root(), "candidates", f"{seed}.onnx"), onnx_model(seed))
    candidate = night.candidates["int8"].model_copy(update={"model": model})
    scores = Scores.model_construct(accuracy=0.9, images=40, speed=speeds.speed(model.size))
    verdict = Verdict(gate="size", passed=passed, value=0.9, limit=0.5, sentence="it is as small as asked")
    dataset_uri = storage.join(store_root(), "datasets", f"{night.dataset.digest}.json")
    storage.write_record(dataset_uri, night.dataset)
    evaluation = Evaluation.model_construct(
        chosen="int8",
        candidate=candidate,
        test={"int8": scores},
        rejected={},
        champion_version=champion(name),
        best_version=None,
        stays_best=None,
        verdicts=(verdict,),
        report=model,
        evidence=model,
    )
    pipeline = night.plan.pipeline.model_copy(update={"name": name})
    plan = night.plan.model_copy(
        update={
            "pipeline": pipeline,
            "night": title,
            "mlflow_run_id": runs.open_run(name, title, params={}),
        }
    )
    return RegisterSpec.model_construct(
        plan=plan, dataset_uri=dataset_uri, members=(night.checkpoint,), evaluation=evaluation
    )
