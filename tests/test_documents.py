"""What the guide says of variables, settings, packages and images is what the code has."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from test_recipes import BOUNDS
from typer.main import get_command

from nightshift.cli import app
from nightshift.config import STAGE_SETTINGS, Pipeline, Settings
from nightshift.config.pipelines import load_pipeline
from nightshift.config.quantization import RECIPES

ROOT = Path(__file__).parent.parent
DOCUMENTS = [
    *(ROOT / f"{name}.md" for name in ("README", "CONTRIBUTING", "SECURITY")),
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "docker").iterdir()),
]
CODE = [path for folder in ("tasks", "dags") for path in (ROOT / folder).rglob("*.py")]
INTERNAL = {"NIGHTSHIFT_PARENT_PID"}  # one process tells it to its own child


def text_of(*parts: str) -> str:
    return ROOT.joinpath(*parts).read_text(encoding="utf-8")


def named_in_code() -> set[str]:
    """The variables whose whole name stands in the code as a string."""
    strings = re.compile(r"[\"']((?:NIGHTSHIFT|AWS)_[A-Z0-9_]*[A-Z0-9])[\"']")
    return {name for path in CODE for name in strings.findall(path.read_text(encoding="utf-8"))}


def test_every_variable_is_in_the_table_of_the_deployment_and_the_code_reads_each():
    table = re.findall(
        r"(?m)^\| (`(?:NIGHTSHIFT|AWS|MLFLOW|AIRFLOW|REQUESTS)_[^|]+)\|", text_of("docs", "deployment.md")
    )
    documented = {name for row in table for name in re.findall(r"`([A-Z][A-Z0-9_]+)`", row)}
    assert len(documented) > 30
    assert named_in_code() - INTERNAL <= documented
    for name in documented:
        if name.startswith("NIGHTSHIFT_"):
            assert name in named_in_code(), name


def test_packages_are_installed_from_the_clone_with_extras_that_exist():
    """The package index has another program of this name."""
    extras = tomllib.loads(text_of("pyproject.toml"))["project"]["optional-dependencies"]
    for path in [*DOCUMENTS, *CODE]:
        if path.is_dir() or path.name == ".env":
            continue
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"pip install '?\"?nightshift", text), path
        for extra in re.findall(r"pip install '\.\[(\w+)\]'", text):
            assert extra in extras, (path, extra)


def test_the_form_has_what_the_readme_says_and_the_file_has_the_rest():
    only_in_the_file = {"retrain", "predict"}
    tables = {name for name, value in vars(Pipeline(name="x")).items() if isinstance(value, Settings)}
    assert tables - set(STAGE_SETTINGS) == only_in_the_file
    readme = " ".join(text_of("README.md").split())
    assert "every setting of the stages with its range and meaning" in readme
    assert "times, `[retrain]` and `[predict]` are in the file only" in readme


def test_the_photos_template_is_as_the_readme_says():
    photos = load_pipeline(ROOT / "dags" / "pipelines" / "photos.toml")
    readme = " ".join(text_of("README.md").split())
    assert photos.promotion.mode == "approve"
    assert 'Its promotions wait for a person (`mode = "approve"`)' in readme
    assert photos.schedule is None
    assert "It has no schedule" in readme


def test_a_pipeline_is_made_before_a_command_names_it():
    shipped = {path.stem for path in (ROOT / "dags" / "pipelines").glob("*.toml")}
    for path in (ROOT / "README.md", ROOT / "docs" / "deployment.md"):
        text = path.read_text(encoding="utf-8")
        for match in re.finditer(r"(?m)^(?:docker compose run .* cli |nightshift )run ([a-z0-9]+)\b", text):
            made = f"pipelines/{match[1]}.toml" in text[: match.start()]
            assert made or match[1] in shipped, (path.name, match[0])


def defaults(text: str) -> dict[str, str]:
    return dict(re.findall(r"\$\{([A-Z0-9_]+):-([^}]*)\}", text))


def test_the_lines_of_the_example_are_the_defaults_but_for_the_two_that_it_names():
    example = text_of("docker", ".env.example")
    lines = dict(re.findall(r"(?m)^([A-Z0-9_]+)=(.*)$", example))
    used = "\n".join(
        text_of("docker", name)
        for name in ("compose.yaml", "airflow.env", "client.env", "server.env", "store.env")
    )
    without = {"NIGHTSHIFT_SECRETS", "COMPOSE_PROFILES"}
    assert f"but {' and '.join(sorted(without, reverse=True))}, which have none" in example
    assert {name: value for name, value in lines.items() if name not in without} == defaults(used)


def test_the_example_names_pages_that_exist_with_what_it_says_is_there():
    assert "docs/promotion.md says which kinds there are" in text_of("docker", ".env.example")
    assert "smtp:ops@example.org slack:CONNECTION http:CONNECTION" in text_of("docs", "promotion.md")


def test_a_store_that_was_tried_is_the_one_that_is_deployed():
    (tried,) = re.findall(r"(?m)^\| SeaweedFS ([0-9.]+) \|", text_of("docs", "deployment.md"))
    assert defaults(text_of("docker", "compose.yaml"))["SEAWEEDFS_IMAGE"] == f"chrislusf/seaweedfs:{tried}"


def test_the_profile_of_the_stores_is_all_three_or_none():
    services = yaml.safe_load(text_of("docker", "compose.yaml"))["services"]
    assert {name for name, service in services.items() if "stores" in service.get("profiles", [])} == {
        *("postgres", "valkey", "s3")
    }
    assert "all three or none" in text_of("docker", ".env.example")
    assert "the profile `stores` is all three or none" in text_of("docs", "deployment.md")


@pytest.mark.parametrize(
    "name",
    [
        *("AWS_ENDPOINT_URL_S3", "AWS_DEFAULT_REGION", "NIGHTSHIFT_STORE", "MLFLOW_TRACKING_URI"),
        *("MLFLOW_TRACKING_USERNAME", "AIRFLOW__API__BASE_URL", "AIRFLOW__LOGGING__REMOTE_BASE_LOG_FOLDER"),
        *("defaultAirflowRepository", "maxReplicaCount"),
    ],
)
def test_what_depends_on_the_place_is_marked_in_the_values_of_the_chart(name):
    lines = [
        line
        for line in text_of("docker", "values.yaml").splitlines()
        if f"{name}," in line or f"{name}:" in line
    ]
    assert lines
    for line in lines:
        assert "# CHANGE" in line


def test_a_new_recipe_needs_the_line_and_the_row_that_the_guide_says():
    assert set(BOUNDS) == set(RECIPES)
    page = text_of("docs", "models.md")
    rows = re.findall(r"(?m)^\| `([a-z0-9-]+)` \| ", page.split("## The recipes")[1].split("##")[0])
    assert set(rows) == set(RECIPES)
    assert "`BOUNDS` in `tests/test_recipes.py`" in page


def test_the_guide_is_built_as_a_site_without_a_broken_link(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(tmp_path)]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    pages = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.html")}
    assert {f"{path.stem}.html" for path in (ROOT / "docs").glob("*.md")} <= pages
    settings = (tmp_path / "reference" / "settings.html").read_text(encoding="utf-8")
    for model in STAGE_SETTINGS.values():
        for name in model.model_fields:
            assert f"<code>{name}</code>" in settings, name
    commands = (tmp_path / "reference" / "cli.html").read_text(encoding="utf-8")
    for name in get_command(app).commands:
        assert f">nightshift {name}<" in commands, name
    assert "/v1/predict" in (tmp_path / "reference" / "http.html").read_text(encoding="utf-8")


def test_the_steps_of_contributing_name_what_is_there():
    text = text_of("CONTRIBUTING.md")
    steps = re.findall(r"(?ms)^## Adding an? ([a-z ]+)\n(.*?)(?=^## |\Z)", text)
    assert [name for name, _ in steps] == [
        *("network", "quantization recipe", "gate", "source", "image format", "metric", "setting")
    ]
    for _, step in steps:
        paths = re.findall(r"`((?:tasks|tests|docs)/[^`]+)`", step)
        assert paths
        assert [path for path in paths if not (ROOT / path).exists()] == []
    for name, path in re.findall(r"`(\w+)` (?:of|in)\s+`(tasks/[^`]+\.py|tests/[^`]+\.py)`", text):
        assert re.search(rf"\b{name}\b", text_of(path)), (name, path)
