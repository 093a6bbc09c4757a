"""The bill of materials of this very environment."""

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from nightshift.errors import NightshiftError
from nightshift.security import sbom as module
from nightshift.security.sbom import sbom


@pytest.fixture(scope="module")
def made() -> bytes:
    return sbom()


def test_it_names_what_is_installed_with_versions_licences_and_what_needs_what(made):
    found = json.loads(made)
    assert (found["bomFormat"], found["specVersion"]) == ("CycloneDX", "1.6")
    components = {component["name"]: component for component in found["components"]}
    for name in ("torch", "onnxruntime", "mlflow", "nightshift-ml"):
        assert components[name]["version"] == version(name)
    assert components["pydantic"]["licenses"]
    needs = {each["ref"]: each.get("dependsOn", []) for each in found["dependencies"]}
    assert f"numpy=={version('numpy')}" in needs[f"onnxruntime=={version('onnxruntime')}"]


def test_it_is_the_same_each_time_and_takes_no_time_to_validate(made, monkeypatch):
    commands: list[list[str]] = []
    run = subprocess.run
    monkeypatch.setattr(
        subprocess, "run", lambda command, **more: (commands.append(command), run(command, **more))[1]
    )
    assert sbom() == made
    assert ["--no-validate" in command for command in commands] == [True]


def test_it_tells_nothing_of_this_machine(made):
    for place in {sys.prefix, sys.base_prefix, str(Path.home()), str(Path(__file__).parent.parent), "file:"}:
        assert place.encode() not in made or place == "/"


def installed(folder: Path, name: str, url: str) -> None:
    """A package as an installer leaves it that was told where to take it from."""
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\nProject-URL: Home, https://example.org/?q=1\n"
    )
    vcs = {"vcs_info": {"vcs": "git", "commit_id": "abc"}} if url.startswith(("https://t", "git")) else {}
    kind = vcs or ({"dir_info": {"editable": True}} if url.endswith("/") else {"archive_info": {}})
    (info / "direct_url.json").write_text(json.dumps({"url": url, **kind}))


@pytest.fixture
def private(tmp_path, monkeypatch) -> dict[str, list[str]]:
    """The references of packages that came from folders, private indexes and repositories."""
    places = {
        "edited": "file:///home/anna/secret-project/",
        "wheel": "file:///home/anna/wheel-1.0-py3-none-any.whl",
        "indexed": "https://anna:swordfish@index.example.org/a.whl?token=swordfish",
        "token": "https://tok-swordfish@git.example.org/a.git",
        "ssh": "git+ssh://git@git.example.org/a.git",
    }
    for name, url in places.items():
        installed(tmp_path, name, url)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    text = sbom()
    assert b"swordfish" not in text
    assert b"anna" not in text
    assert b"file:" not in text
    components = {component["name"]: component for component in json.loads(text)["components"]}
    return {
        name: [reference["url"] for reference in components[name]["externalReferences"]] for name in places
    }


def test_private_places_and_logins_are_left_out(private):
    home = "https://example.org/?q=1"
    assert private["edited"] == private["wheel"] == [home]
    assert sorted(private["indexed"]) == [home, "https://index.example.org/a.whl"]
    assert sorted(private["token"]) == [home, "https://git.example.org/a.git#abc"]


def test_what_is_written_is_valid(tmp_path, made):
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    found = json.loads(made)
    few = {"numpy", "nightshift-ml", "typer"}
    found["components"] = [component for component in found["components"] if component["name"] in few]
    assert len(found["components"]) == len(few)
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(found)) is None


def test_a_tool_that_is_missing_is_said(monkeypatch):
    monkeypatch.setattr(module.sys, "executable", "/bin/false")
    with pytest.raises(
        NightshiftError, match=r"the bill of materials cannot be made .*; install cyclonedx-bom"
    ):
        sbom()
