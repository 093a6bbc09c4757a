"""Promotion: what may move, what a person decides, and what the ledger keeps of it."""

import json
import time

import pytest
from small_models import onnx_model

from tasks import ledger, registry, tracking
from tasks.cli.airflow import Airflow
from tasks.config import PreprocessSettings
from tasks.errors import InputError
from tasks.promote import promote
from tasks.specs import PromoteSpec


def challenger(name: str, seed: int, state: str = "challenger") -> str:
    """Register a version as a night does."""
    run_id = tracking.open_night(name, f"night {seed}", params={})
    tags = {
        registry.CLASSES: json.dumps(["cat", "dog"]),
        registry.PREPROCESS: PreprocessSettings(image_size=8).model_dump_json(),
        registry.STATE: state,
        registry.REASONS: "too slow",
        registry.DATA: "d" * 64,
        registry.SETTINGS: f"{seed:064}",
    }
    version = registry.register_version(run_id, name, onnx_model(seed), classes=2, shape=(4, 4, 3), tags=tags)
    if state == "challenger":
        registry.set_alias(name, registry.CHALLENGER, version)
    return version


def act(action: str, name: str, version: str, **more: object):
    return promote(
        PromoteSpec.model_validate({"action": action, "pipeline": name, "version": version, **more})
    )


def kinds(name: str) -> list[tuple[str, str, str | None]]:
    return [(entry.kind, entry.version, entry.instead_of) for entry in ledger.history(name)]


def test_a_move_is_in_the_ledger_with_what_it_replaced(stack):
    first, second = challenger("moved", 1), challenger("moved", 2)
    assert act("move", "moved", first).proceed
    assert act("move", "moved", second).proceed
    assert registry.alias_version("moved", "champion") == second
    assert kinds("moved") == [("promoted", first, None), ("promoted", second, first)]
    again = act("move", "moved", second)
    assert not again.proceed
    assert "is the champion already" in again.reason
    assert len(kinds("moved")) == 2


def test_an_offer_is_superseded_once_a_newer_challenger_came(stack):
    old, new = challenger("race", 1), challenger("race", 2)
    result = act("move", "race", old, only_challenger=True)
    assert not result.proceed
    assert result.reason == f"version {old} was superseded by version {new}"
    assert registry.alias_version("race", "champion") is None
    assert kinds("race") == [("superseded", old, None)]


def test_another_file_than_the_evaluated_one_is_not_promoted(stack):
    version = challenger("swapped", 1)
    with pytest.raises(InputError, match=r"version 1 of swapped has SHA-256 .*: not moved"):
        act("move", "swapped", version, sha256="0" * 64)
    registry.set_version_tag("swapped", version, registry.SHA256, "1" * 64)
    with pytest.raises(InputError, match="do not use it"):
        act("move", "swapped", version)
    assert registry.alias_version("swapped", "champion") is None


def test_a_refused_version_is_not_promoted(stack):
    version = challenger("slow", 1, state="refused")
    with pytest.raises(InputError, match="version 1 of slow was refused: too slow"):
        act("check", "slow", version)


def wait(airflow: Airflow, run_id: str, *states: str) -> None:
    deadline = time.monotonic() + 90
    while not {task["state"] for task in airflow.tasks("promote_asked", run_id)} & set(states):
        if airflow.run_state("promote_asked", run_id) in states:
            return
        assert time.monotonic() < deadline, f"the promotion reached none of {states}"
        time.sleep(0.3)


@pytest.mark.parametrize(("option", "kind"), [("Approve", "promoted"), ("Reject", "rejected")])
def test_a_person_decides_where_the_pipeline_asks_for_one(stack, option, kind):
    version = challenger("asked", len(option))
    before = registry.alias_version("asked", "champion")
    airflow = Airflow()
    run_id = airflow.trigger("promote_asked", {"version": version})
    wait(airflow, run_id, "awaiting_input")
    assert registry.alias_version("asked", "champion") == before
    airflow.respond("promote_asked", run_id, "approve", option)
    while airflow.run_state("promote_asked", run_id) == "running":
        time.sleep(0.3)
    assert airflow.run_state("promote_asked", run_id) == "success"
    assert registry.alias_version("asked", "champion") == (version if kind == "promoted" else before)
    latest = ledger.history("asked")[-1]
    assert (latest.kind, latest.version, latest.by) == (kind, version, "admin")
