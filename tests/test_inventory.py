"""All that a real MLflow server knows."""

import pytest
from promotions import challenger

from nightshift.tracking import inventory, registry, runs
from nightshift.tracking.inventory import Version


def own(name: str) -> list[Version]:
    return [version for version in inventory.versions() if version.name == name]


def test_versions_come_with_tags_aliases_and_where_their_file_is(registering, monkeypatch):
    first, second = challenger("all", 1), challenger("all", 2)
    found = {version.version: version for version in own("all")}
    assert found.keys() == {first, second}
    assert (found[first].aliases, found[second].aliases) == ((), ("challenger",))
    assert found[first].tags == registry.version_tags("all", first)
    assert found[first].uri == f"models:/all/{first}"
    assert {found[first].model_id, found[second].model_id} <= inventory.logged_models()
    assert all(inventory.has_file(version) for version in found.values())
    monkeypatch.setattr(inventory, "PAGE", 1)
    assert registry.described("all", first).run_id in inventory.runs()


def test_a_version_is_removed_with_its_logged_model_and_once_more(registering):
    challenger("out", 1)
    challenger("out", 2)
    version = next(each for each in own("out") if each.version == "1")
    for _ in range(2):
        assert inventory.remove("out", "1")
    assert [each.version for each in own("out")] == ["2"]
    assert version.model_id not in inventory.logged_models()
    assert inventory.is_given_up(version.model_id)
    assert not inventory.has_file(version)


def test_a_version_with_an_alias_is_not_removed(registering):
    version = challenger("held", 1)
    assert not inventory.remove("held", version)
    assert inventory.has_file(own("held")[0])


def test_a_model_that_a_person_deleted_can_be_restored_and_one_that_never_was_cannot(registering):
    challenger("undo", 1)
    model_id = own("undo")[0].model_id
    runs.client().delete_logged_model(model_id)
    assert model_id not in inventory.logged_models()
    assert not inventory.is_given_up(model_id)
    assert inventory.is_given_up(f"m-{'0' * 32}")


def test_a_deleted_run_is_known(registering):
    run_id = runs.open_run("gone-run", "n", params={})
    runs.client().delete_run(run_id)
    assert run_id in inventory.runs()


@pytest.mark.parametrize("source", ["models:/all/3", "s3://elsewhere/model", ""])
def test_a_file_that_is_kept_elsewhere_is_not_looked_for(source):
    version = Version("all", "3", {}, (), 0.0, source)
    assert version.model_id == ""
    assert inventory.has_file(version)
